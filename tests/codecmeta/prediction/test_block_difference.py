from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.prediction.block_difference import error_of, subtract

FAR = 2**62
TYPES = [(255, np.uint8), (16383, np.uint16)]
SIZES = [(16, 16), (8, 16), (16, 8), (8, 8), (4, 4), (8, 4), (5, 7), (16, 13), (1, 1), (10, 16)]
"""Height and width of what lies inside the picture; the last four are cut by its edge."""
WEIGHTS = [
    (32, 32, 6, 0),
    (0, 64, 6, 0),
    (-64, 128, 6, 0),
    (21, 43, 6, 0),
    (40, 0, 5, -9),
    (-3, 0, 0, 20),
    (70, 9, 7, 3),
]
"""w0, w1, shift and offset of weighted prediction; the first is the mean."""
PLACES = [(3, 1), (1, 9), (0, 0), (4, 20)]
"""Row and column where the points of a prediction begin."""


def picture(top: int, dtype: Any, shape: tuple[int, int] = (20, 40)) -> NDArray[Any]:
    rng = np.random.default_rng(top)
    plane = rng.integers(0, top + 1, shape)
    plane[rng.random(shape) < 0.3] = top
    plane[rng.random(shape) < 0.3] = 0
    return plane.astype(dtype)


def address(plane: NDArray[Any], row: int = 0, col: int = 0) -> int:
    return int(plane.ctypes.data) + (row * plane.shape[1] + col) * plane.itemsize


def predicted(
    planes: list[NDArray[Any]], height: int, width: int, weights: tuple[int, ...], top: int
) -> NDArray[np.int64]:
    """Mean of the first two points and of the last two, weighted (8-250, 8-298, 8-299)."""
    a, b, c, d = (
        plane[row : row + height, col : col + width].astype(np.int64)
        for plane, (row, col) in zip(planes, PLACES, strict=True)
    )
    w0, w1, shift, offset = weights
    half = 1 << (shift - 1) if shift else 0
    total = w0 * ((a + b + 1) >> 1) + w1 * ((c + d + 1) >> 1) + half
    return np.asarray(np.clip((total >> shift) + offset, 0, top))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("top", "dtype"), TYPES)
@pytest.mark.parametrize("size", SIZES)
def test_error_and_residual_of_a_prediction(
    size: tuple[int, int], top: int, dtype: Any, weights: tuple[int, ...]
) -> None:
    height, width = size
    current, *planes = (picture(top - k, dtype) for k in range(5))
    area = (2, 6, height, width)
    exact = current[2 : 2 + height, 6 : 6 + width].astype(np.int64) - predicted(planes, height, width, weights, top)
    expected = int((exact**2).sum())
    points = tuple(address(plane, *place) for plane, place in zip(planes, PLACES, strict=True))
    samples, factors, kind = (address(current), 40), (*weights, top), dtype(0)
    assert error_of(kind, samples, area, points, 40, factors, FAR) == expected
    assert error_of(kind, samples, area, points, 40, factors, expected + 1) == expected
    assert error_of(kind, samples, area, points, 40, factors, expected // 2) == expected // 2
    swapped = (*points[2:], *points[:2])
    if size != (1, 1) and weights[0] != weights[1]:
        assert error_of(kind, samples, area, swapped, 40, factors, FAR) != expected
    out = np.full(current.shape, 7, np.int16)
    assert subtract(kind, samples, area, points, 40, factors, 0.0, (address(out), 40)) == (expected > 0)
    np.testing.assert_array_equal(out[2 : 2 + height, 6 : 6 + width], exact)
    out[2 : 2 + height, 6 : 6 + width] = 7
    assert (out == 7).all()


@pytest.mark.parametrize(("top", "dtype"), TYPES)
@pytest.mark.parametrize("size", SIZES)
def test_residual_with_dead_zone(size: tuple[int, int], top: int, dtype: Any) -> None:
    height, width = size
    current, block = picture(top, dtype), picture(top - 1, dtype, (16, 16))
    exact = current[2 : 2 + height, 5 : 5 + width].astype(np.int64) - block[:height, :width]
    squares = [(exact[y : y + 4, x : x + 4] ** 2).mean() for y in range(0, height, 4) for x in range(0, width, 4)]
    # a limit that one 4x4 block just meets is not below it
    for mean in (0.0, float(np.median(squares)), max(squares), max(squares) + 0.1):
        expected = exact.copy()
        for y in range(0, height, 4):
            for x in range(0, width, 4):
                if (exact[y : y + 4, x : x + 4] ** 2).mean() < mean:
                    expected[y : y + 4, x : x + 4] = 0
        out = np.full(current.shape, 7, np.int16)
        coded = subtract(
            dtype(0), (address(current), 40), (2, 5, height, width), (address(block),) * 4, 16,
            (32, 32, 6, 0, top), 16 * mean, (address(out), 40),
        )  # fmt: skip
        assert coded == expected.any()
        np.testing.assert_array_equal(out[2 : 2 + height, 5 : 5 + width], expected)
        out[2 : 2 + height, 5 : 5 + width] = 7
        assert (out == 7).all()
