"""Density of patches by stage: the map that each stage reads, and its values on a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codecmeta import DENSITY_MAPS, DensityMap, UsageError
from compress.errors import ConfigError, SignalError
from compress.stage import Compression

if TYPE_CHECKING:
    from codecmeta import VideoMeta

MapChoice: TypeAlias = Literal["auto", "none"] | DensityMap
"""A map of `codecmeta.VideoMeta.density`; `auto` is that of `AUTO`; with `none` nothing merges before the encoder."""

MAP_CHOICES: Final[tuple[MapChoice, ...]] = ("auto", "none", *DENSITY_MAPS)

DensityStage = Literal["patches", "tokens"]
"""What is merged by density before the encoder (RPM), and ranked by it after the encoder (BTM)."""

AUTO: Final[Mapping[DensityStage, tuple[DensityMap, ...]]] = {
    "patches": ("texture", "innovation", "carried"),
    "tokens": ("texture", "innovation", "carried"),
}
"""What `auto` takes: the first that a record has.

Chosen on validation clips (`bench.accuracy.maps`, bench/results/density_maps.json): among the maps that a default
record has, none was significantly better than the texture of the cached frames at either stage, neither with the judge
that was trained on whole clips nor with the mean of the two that were not.
"""


@dataclass(frozen=True, kw_only=True)
class StageMaps:
    """Maps that the stages read of one video.

    Attributes:
        patches: by which patches merge before the encoder; None where none do.
        tokens: by which tokens are ranked; None where the record has no map.
        skipped: why no patches merge, empty where they do.
    """

    patches: DensityMap | None
    tokens: DensityMap | None
    skipped: str = ""


def choose_maps(meta: VideoMeta, choice: MapChoice, *, whole: str = "") -> StageMaps:
    """Choose the map of each stage.

    Args:
        meta: the video.
        choice: the map of both; see `MapChoice`.
        whole: why no patches merge unless a map is named; empty where ``auto`` may merge them.

    Raises:
        ConfigError: the choice is unknown.
        SignalError: the record lacks the map.
    """
    if choice not in MAP_CHOICES:
        raise ConfigError(f"unknown map {choice!r}; choose from {', '.join(MAP_CHOICES)}")
    present = meta.density_maps
    found = {stage: next((name for name in names if name in present), None) for stage, names in AUTO.items()}
    if choice == "none":
        return StageMaps(patches=None, tokens=found["tokens"], skipped="map is none")
    if choice == "auto":
        skipped = whole if found["patches"] else "the record has neither cached frames nor a residual"
        if skipped:
            return StageMaps(patches=None, tokens=found["tokens"], skipped=skipped)
        return StageMaps(patches=found["patches"], tokens=found["tokens"], skipped=skipped)
    if choice not in present:
        try:
            meta.density((1, 1), map=choice)
        except UsageError as error:
            raise SignalError(str(error)) from error
    return StageMaps(patches=choice, tokens=choice)


def name_density(compression: Compression, map: DensityMap) -> Compression:
    """Describe what was merged by a map, with the map's name among its sources."""
    return replace(compression, sources={**compression.sources, "density": map})


def measure_density(
    meta: VideoMeta, map: DensityMap | None, grid: tuple[int, int], *, covered: float
) -> NDArray[np.float32]:
    """Measure density S_t of the patches of an encoder, float32 (T, rows, cols) in [0, 1]; ones for a flat frame.

    Args:
        meta: the video.
        map: the map to measure; see `choose_maps`.
        grid: rows and columns of patches.
        covered: share of the picture's width and height that they cover, from its upper left corner.

    Raises:
        SignalError: the record has no map.
    """
    if map is None:
        source = meta.info["source"]["name"]
        raise SignalError(
            f"the record of {source} has neither cached frames nor a residual; "
            f"run: codecmeta extract PATH/{source} --out META --pixels 384 --overwrite"
        )
    width, height = meta.display_size
    return meta.density(grid, (0.0, 0.0, width * covered, height * covered), map=map)
