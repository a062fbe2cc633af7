"""Density maps: information per patch of a sampled frame by residual, texture, bits, or texture and coding.

Maps that a record stores are block means of E (`codecmeta.record.energy`). The others are derived from stored arrays:

- `texture`: E of the best of four intra predictions of the cached frames (`codecmeta.record.texture`).
- `bits`: bits of the macroblocks.
- `texture-coded`, `texture-innovation`, `texture-bits`: texture times (1 + g) / 2. g is the share of the patch that
  lies in macroblocks which are not skipped; the share that lies in blocks with a residual; or the mean over the patch
  of b / (b + mean b), b the bits of a macroblock, the mean over the frame. A frame that codes nothing keeps the order
  of its texture.

Each is min-max normalised within the frame before patches are averaged; the density of a flat frame is 1 everywhere,
so that nothing of it is merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.record.density import FLAT, Box, patch_density
from codecmeta.record.macroblock_types import B_SKIP, NOT_CODED, P_SKIP

if TYPE_CHECKING:
    from codecmeta.record.energy import EnergyMap
    from codecmeta.record.meta import VideoMeta

DensityMap = Literal[
    "innovation", "carried", "texture", "bits", "texture-coded", "texture-innovation", "texture-bits"
]  # fmt: skip
DENSITY_MAPS: Final[tuple[DensityMap, ...]] = get_args(DensityMap)

TEXTURE_BLOCK: Final = 4
"""Pixels per side of the blocks on which texture is measured, equal to the blocks on which it is predicted."""
_MACROBLOCK = 16

_FIELDS: Final[Mapping[DensityMap, tuple[str, ...]]] = {
    "innovation": ("energy_innovation", "range_innovation"),
    "carried": ("energy_carried", "range_carried"),
    "texture": ("frames",),
    "bits": ("mb_bits",),
    "texture-coded": ("frames", "mb_type"),
    "texture-innovation": ("frames", "residual_power"),
    "texture-bits": ("frames", "mb_bits"),
}
"""Arrays of the record that a map is computed from."""

_MADE_BY: Final = {
    "frames": ("frames", "--pixels 384"),
    "energy_carried": ("carried", "--maps carried"),
    "mb_bits": ("mb_bits", "--maps innovation"),
    "mb_type": ("mb_type", "--maps innovation"),
}
"""Signal of an array, and the option that extracts it; else those of innovation."""


def list_maps(meta: VideoMeta) -> tuple[DensityMap, ...]:
    """List the maps that can be computed from a record."""
    return tuple(name for name in DENSITY_MAPS if _find_missing(meta, name) is None)


def measure_density(meta: VideoMeta, name: DensityMap, grid: tuple[int, int], box: Box | None) -> NDArray[np.float32]:
    """Measure the mean density of every patch.

    Args:
        meta: the record.
        name: of the map.
        grid: rows and columns of patches on the displayed picture.
        box: region that the grid covers, in pixels of a picture of `display_size`; None is the picture.

    Returns:
        float32 (T, rows, cols) in [0, 1]; all ones where a frame's map is flat.

    Raises:
        UsageError: the name is not that of a map, or the record lacks arrays that it is computed from.
        ValueError: the grid is empty, or the box lies outside the picture.
    """
    if name not in DENSITY_MAPS:
        raise UsageError(f"unknown map {name!r}; choose from {', '.join(DENSITY_MAPS)}")
    missing = _find_missing(meta, name)
    if missing is not None:
        raise UsageError(_explain(meta, name, missing))
    if name in ("innovation", "carried"):
        energy, extent = (getattr(meta, field) for field in _FIELDS[name])
        return _average(meta, energy, extent, meta.block, grid, box)
    if name == "bits":
        bits = np.asarray(meta.mb_bits, np.float32)
        extent = np.stack((bits.min(axis=(1, 2), initial=2**16), bits.max(axis=(1, 2), initial=0)), axis=1)
        return _average(meta, bits, extent, _MACROBLOCK, grid, box)
    texture = meta.texture
    density = _average_texture(meta, texture, grid, box)
    if name == "texture":
        return density
    coded = _average(meta, *_find_coded(meta, name), grid, box)
    flat = texture.range[:, 1] - texture.range[:, 0] <= FLAT
    return np.where(flat[:, None, None], np.float32(1), density * (1 + coded) / 2)


def _find_coded(meta: VideoMeta, name: DensityMap) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Return the coded share of each block, in [0, 1], with its bounds per frame and the block size."""
    coded: NDArray[Any]
    if name == "texture-coded":
        coded = ~np.isin(np.asarray(meta.mb_type), (NOT_CODED, P_SKIP, B_SKIP))
    elif name == "texture-innovation":
        coded = np.any(np.asarray(meta.residual_power) > 0, axis=1)
    else:
        bits = np.asarray(meta.mb_bits, np.float64)
        coded = bits / np.maximum(bits + bits.mean(axis=(1, 2), keepdims=True), FLAT)
    bounds = np.tile(np.array([0, 1], np.float32), (len(coded), 1))
    return coded.astype(np.float32), bounds, meta.block if name == "texture-innovation" else _MACROBLOCK


def _average(
    meta: VideoMeta,
    values: NDArray[np.float32],
    extent: NDArray[np.float32],
    block: int,
    grid: tuple[int, int],
    box: Box | None,
) -> NDArray[np.float32]:
    """Average `patch_density` of a map on the grid of the coded picture."""
    return patch_density(
        values,
        extent,
        width=meta.width,
        height=meta.height,
        block=block,
        orientation=meta.orientation,
        sample_aspect=meta.sample_aspect,
        grid=grid,
        box=box,
    )


def _average_texture(
    meta: VideoMeta, texture: EnergyMap, grid: tuple[int, int], box: Box | None
) -> NDArray[np.float32]:
    """Average `patch_density` of the texture of the cached frames, which are upright and scaled down."""
    height, width = np.asarray(meta.frames).shape[1:3]
    shown_w, shown_h = meta.display_size
    if box is not None:
        # multiplied first, so that the picture's own edges stay exact
        left, right = (edge * width / shown_w for edge in (box[0], box[2]))
        top, bottom = (edge * height / shown_h for edge in (box[1], box[3]))
        box = left, top, right, bottom
    return patch_density(
        texture.energy, texture.range, width=width, height=height, block=TEXTURE_BLOCK, grid=grid, box=box
    )


def _find_missing(meta: VideoMeta, name: DensityMap) -> str | None:
    """Find the first array that a map is computed from and the record lacks."""

    def has(field: str) -> bool:
        return meta.has_frames if field == "frames" else getattr(meta, field) is not None

    return next((field for field in _FIELDS[name] if not has(field)), None)


def _explain(meta: VideoMeta, name: DensityMap, missing: str) -> str:
    """Explain why a record lacks a map, and what to do."""
    signal, option = _MADE_BY.get(missing, ("innovation", "--maps innovation"))
    source: dict[str, Any] = meta.info["signals"].get(signal, {})
    video, present = meta.info["source"]["name"], ", ".join(list_maps(meta)) or "no map"
    return (
        f"the record of {video} has no map {name!r} ({source.get('absent', 'not extracted')}); it has {present}; "
        f"choose one of them, or run: codecmeta extract PATH/{video} --out META {option} --overwrite"
    )
