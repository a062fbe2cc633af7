from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.prediction.h264_halfpel import BAND, B, H, J, compute_band


def oracle(plane: NDArray[Any], kind: int, top: int) -> NDArray[np.int64]:
    """Half samples of a plane (8-241 to 8-248); what wraps around its edges is wrong."""

    def taps(values: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        total = np.zeros_like(values)
        for k, weight in enumerate((1, -5, 20, 20, -5, 1)):
            total += weight * np.roll(values, 2 - k, axis)
        return total

    whole = plane.astype(np.int64)
    if kind == J:
        return np.clip((taps(taps(whole, 1), 0) + 512) >> 10, 0, top)
    return np.clip((taps(whole, 1 if kind == B else 0) + 16) >> 5, 0, top)


def extremes(shape: tuple[int, int], top: int, dtype: Any) -> NDArray[Any]:
    """Noise next to patterns on which sums of taps are as large and as small as can be."""
    rng = np.random.default_rng(top)
    plane = rng.integers(0, top + 1, shape)
    signs = np.array([1, 0, 1, 1, 0, 1])
    plane[10:34, :24] = top * np.tile(np.outer(signs, signs), (4, 4))
    plane[10:34, 30:54] = top * np.tile(1 - np.outer(signs, signs), (4, 4))
    plane[10:34, 60:84] = top * np.tile(np.outer(signs, 1 - signs), (4, 4))
    return plane.astype(dtype)


@pytest.mark.parametrize(("top", "dtype", "wide"), [(255, np.uint8, np.int16), (16383, np.uint16, np.int32)])
@pytest.mark.parametrize("kind", [B, H, J])
def test_bands_of_half_samples(kind: int, top: int, dtype: Any, wide: Any) -> None:
    plane = extremes((45, 90), top, dtype)
    out = np.full(plane.size, 77, dtype)
    sums = np.empty((BAND + 5) * plane.shape[1], wide)
    expected = oracle(plane, kind, top)
    for band in (1, 0, 2):
        compute_band(plane.ravel(), plane.shape, kind, band, top, out, sums)
    got = out.reshape(plane.shape)
    np.testing.assert_array_equal(got[2:-3, 2:-3], expected[2:-3, 2:-3])
    for other in {B, H, J} - {kind}:
        assert not np.array_equal(got[2:-3, 2:-3], oracle(plane, other, top)[2:-3, 2:-3])


def test_only_the_band_that_is_asked_for_is_written() -> None:
    plane = extremes((64, 90), 255, np.uint8)
    out = np.full(plane.size, 77, np.uint8)
    compute_band(plane.ravel(), plane.shape, B, 2, 255, out, np.empty((BAND + 5) * 90, np.int16))
    got = out.reshape(plane.shape)
    assert (got[: 2 * BAND] == 77).all()
    assert (got[3 * BAND :] == 77).all()
    assert not (got[2 * BAND : 3 * BAND, 2:-3] == 77).all()
