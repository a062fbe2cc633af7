"""Density maps that are made from what a record stores, against sums over samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta import DENSITY_MAPS, UsageError, VideoMeta
from codecmeta.record.macroblock_types import MB_TYPE_NAMES
from tests.codecmeta.record.test_meta import record

GRID = 3, 5


def patch_means(values: NDArray[Any], *, block: int, grid: tuple[int, int] = GRID) -> NDArray[np.float64]:
    """Means over patches of a 50x34 picture, by samples of 1/30 of a patch."""
    rows, cols = grid
    y = (np.arange(30 * rows) + 0.5) * 34 / (30 * rows) // block
    x = (np.arange(30 * cols) + 0.5) * 50 / (30 * cols) // block
    fine = values[:, y.astype(int)][:, :, x.astype(int)].astype(np.float64)
    return fine.reshape(len(values), rows, 30, cols, 30).mean(axis=(2, 4))


@pytest.fixture
def meta() -> VideoMeta:
    made = record()
    power = np.asarray(made.residual_power)
    kept = np.random.default_rng(1).random((3, 1, 9, 13)) < 0.4
    types = np.random.default_rng(2).integers(0, len(MB_TYPE_NAMES), (3, 3, 4)).astype(np.uint8)
    return replace(made, residual_power=power * kept, mb_type=types)


def test_bits_are_normalised_within_each_frame(meta: VideoMeta) -> None:
    bits = np.asarray(meta.mb_bits).astype(np.float64)
    low, high = bits.min(axis=(1, 2), keepdims=True), bits.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(
        meta.density(GRID, map="bits"), patch_means((bits - low) / (high - low), block=16), atol=0.01
    )


def test_texture_is_weighed_by_what_is_coded(meta: VideoMeta) -> None:
    texture, bits = meta.density(GRID, map="texture"), np.asarray(meta.mb_bits).astype(np.float64)
    names = np.array(MB_TYPE_NAMES)[np.asarray(meta.mb_type)]
    expected = {
        "texture-coded": patch_means(~np.isin(names, ("not coded", "P_Skip", "B_Skip")), block=16),
        "texture-innovation": patch_means(np.asarray(meta.residual_power).sum(axis=1) > 0, block=4),
        "texture-bits": patch_means(bits / (bits + bits.mean(axis=(1, 2), keepdims=True)), block=16),
    }
    for name, coded in expected.items():
        assert coded.min() + 0.02 > 0.01 and coded.std() > 0.05
        found = meta.density(GRID, map=name)
        np.testing.assert_allclose(found, texture * (1 + coded) / 2, atol=0.01)
        assert not np.allclose(found, texture, atol=0.01)


def test_a_frame_that_codes_nothing_keeps_the_order_of_its_texture(meta: VideoMeta) -> None:
    skipped = replace(
        meta,
        mb_type=np.full_like(np.asarray(meta.mb_type), MB_TYPE_NAMES.index("B_Skip")),
        mb_bits=np.zeros_like(np.asarray(meta.mb_bits)),
        residual_power=np.zeros_like(np.asarray(meta.residual_power)),
    )
    texture = skipped.density(GRID, map="texture")
    for name in ("texture-coded", "texture-innovation", "texture-bits"):
        np.testing.assert_allclose(skipped.density(GRID, map=name), texture / 2, rtol=1e-6)


def test_maps_that_a_record_has(meta: VideoMeta) -> None:
    assert meta.density_maps == DENSITY_MAPS
    info = {**meta.info, "signals": {"innovation": {"absent": "not asked for (vp9: a proxy is made on request only)"}}}
    pixels = replace(
        meta, info=info, **dict.fromkeys(("energy_innovation", "range_innovation", "energy_carried", "range_carried")),
        **dict.fromkeys(("residual_power", "residual_mean", "mb_bits", "mb_type")),
    )  # fmt: skip
    assert pixels.density_maps == ("texture",)
    with pytest.raises(UsageError, match=r"no map 'texture-innovation' \(not asked for \(vp9.*it has texture; choose"):
        pixels.density(GRID, map="texture-innovation")
    with pytest.raises(UsageError, match=r"no map 'texture' .*it has no map; .*--pixels 384"):
        replace(pixels, frames=None).density(GRID, map="texture")
    with pytest.raises(UsageError, match="unknown map 'detail'; choose from innovation, carried"):
        meta.density(GRID, map="detail")
