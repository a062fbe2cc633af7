from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.difference import error_of_mean, error_of_weighted, subtract
from codecmeta.interpolation import BLOCK

FAR = 2**62
TYPES = [(255, np.uint8), (16383, np.uint16)]
SIZES = [(16, 16), (8, 16), (16, 8), (8, 8), (4, 4), (8, 4), (5, 7), (16, 13), (1, 1), (10, 16)]
"""Height and width of what lies inside the picture; the last four are cut by its edge."""


def picture(top: int, dtype: Any, shape: tuple[int, int] = (20, 40)) -> NDArray[Any]:
    rng = np.random.default_rng(top)
    plane = rng.integers(0, top + 1, shape)
    plane[rng.random(shape) < 0.3] = top
    plane[rng.random(shape) < 0.3] = 0
    return plane.astype(dtype)


@pytest.mark.parametrize(("top", "dtype"), TYPES)
@pytest.mark.parametrize("size", SIZES)
def test_error_of_the_mean_of_two_blocks(size: tuple[int, int], top: int, dtype: Any) -> None:
    height, width = size
    current, first, second = (picture(top - k, dtype) for k in range(3))
    area = (2, 6, height, width)
    points = (first.ravel(), 3 * 40 + 1, second.ravel(), 1 * 40 + 9, 40)
    mean = (first[3 : 3 + height, 1 : 1 + width].astype(np.int64) + second[1 : 1 + height, 9 : 9 + width] + 1) >> 1
    expected = int(((current[2 : 2 + height, 6 : 6 + width].astype(np.int64) - mean) ** 2).sum())
    assert error_of_mean((current.ravel(), 40), area, points, FAR) == expected
    assert error_of_mean((current.ravel(), 40), area, points, expected + 1) == expected
    assert error_of_mean((current.ravel(), 40), area, points, expected // 2) == expected // 2
    assert error_of_mean((current.ravel(), 40), (1, 6, height, width), points, FAR) != expected


@pytest.mark.parametrize("weight", [-64, 0, 21, 43, 128])
@pytest.mark.parametrize(("top", "dtype"), TYPES)
@pytest.mark.parametrize("size", SIZES)
def test_error_of_a_weighted_sum(size: tuple[int, int], top: int, dtype: Any, weight: int) -> None:
    height, width = size
    current, blocks = picture(top, dtype), picture(top - 1, dtype, (2 * BLOCK, BLOCK))
    a, b = blocks[:height, :width].astype(np.int64), blocks[BLOCK : BLOCK + height, :width].astype(np.int64)
    sample = np.clip(((64 - weight) * a + weight * b + 32) >> 6, 0, top)
    expected = int(((current[1 : 1 + height, 3 : 3 + width].astype(np.int64) - sample) ** 2).sum())
    arguments = ((current.ravel(), 40), (1, 3, height, width), blocks.ravel(), 0, BLOCK * BLOCK)
    assert error_of_weighted(*arguments, weight, top, FAR) == expected
    assert error_of_weighted(*arguments, weight, top, expected // 2) == expected // 2
    assert error_of_weighted(*arguments, 64 - weight, top, FAR) != expected


@pytest.mark.parametrize(("top", "dtype"), TYPES)
@pytest.mark.parametrize("size", SIZES)
def test_residual_with_dead_zone(size: tuple[int, int], top: int, dtype: Any) -> None:
    height, width = size
    current, block = picture(top, dtype), picture(top - 1, dtype, (BLOCK, BLOCK))
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
        subtract((current.ravel(), 40), (2, 5, height, width), block.ravel(), 0, 16 * mean, out.ravel(), 40)
        np.testing.assert_array_equal(out[2 : 2 + height, 5 : 5 + width], expected)
        out[2 : 2 + height, 5 : 5 + width] = 7
        assert (out == 7).all()
