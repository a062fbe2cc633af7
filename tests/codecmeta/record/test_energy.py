"""Energy of residuals that no 8-bit picture has, and extremes that hide; what is usual is in test_density."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.record.energy import measure_energy

Planes = tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]


def pixel_energy(planes: Planes) -> NDArray[np.float64]:
    """E on the luma grid of 4:2:0 planes."""
    height, width = planes[0].shape
    total = np.zeros((height, width))
    for plane in planes:
        values = plane.astype(np.float64)
        squared = ((values - values.mean()) / (values.std() + 1e-6)) ** 2
        step = round(planes[0].shape[1] / plane.shape[1])
        repeated = np.repeat(np.repeat(squared, step, axis=0), step, axis=1)
        total += repeated[:height, :width]
    return total


def random_planes(peak: int, shape: tuple[int, int] = (40, 56)) -> Planes:
    rng = np.random.default_rng(peak)
    half = (-(-shape[0] // 2), -(-shape[1] // 2))
    y, cb, cr = (rng.integers(-peak, peak, size, np.int16, endpoint=peak < 32768) for size in (shape, half, half))
    return y, cb, cr


def check(planes: Planes, block: int) -> None:
    measured = measure_energy(planes, block=block)
    expected = pixel_energy(planes)
    for row, col in np.ndindex(measured.energy.shape):
        cell = (slice(row * block, (row + 1) * block), slice(col * block, (col + 1) * block))
        assert measured.energy[row, col] == pytest.approx(expected[cell].mean(), rel=1e-5)
        luma = planes[0][cell].astype(np.float64)
        assert measured.power[0, row, col] == pytest.approx((luma**2).mean(), rel=1e-6)
        assert measured.mean[0, row, col] == pytest.approx(luma.mean(), rel=1e-6, abs=1e-6)
    assert measured.range == pytest.approx([expected.min(), expected.max()], rel=1e-5)


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("shape", [(40, 56), (37, 51)])
@pytest.mark.parametrize("peak", [255, 16383, 23170, 23171, 32767])
def test_residuals_of_any_size(peak: int, shape: tuple[int, int], block: int) -> None:
    check(random_planes(peak, shape), block)


def test_eight_squares_of_the_largest_residual() -> None:
    """A sum of eight squares passes 32 bits between 23170 and 23171."""
    for value in (23170, 23171, -32768):
        planes = random_planes(255)
        planes[0][8:16, 16:24] = value
        check(planes, 8)


@pytest.mark.parametrize("at", [(0, 0), (17, 33), (39, 55)])
def test_extremes_are_those_of_single_samples(at: tuple[int, int]) -> None:
    """The largest E lies where the channels add up, not where one has its peak; so does the smallest."""
    planes = random_planes(255)
    for plane in planes:
        plane[...] = np.where(plane >= 0, 40, -40)
    row, col = at
    # peaks of single channels elsewhere: bounds that are not met
    planes[0][20, 8], planes[1][2, 20], planes[2][15, 2] = 150, 150, 150
    for channel, plane in enumerate(planes):
        plane[row >> bool(channel), col >> bool(channel)] = 140
    check(planes, 8)
    expected = pixel_energy(planes)
    assert np.unravel_index(int(expected.argmax()), expected.shape)[0] >> 1 == row >> 1
    for channel, plane in enumerate(planes):
        plane[row >> bool(channel), col >> bool(channel)] = 1
    check(planes, 8)


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("shape", [(40, 56), (37, 51)])
def test_what_is_not_coded_is_not_read(shape: tuple[int, int], block: int) -> None:
    """Marked blocks count as 0, whatever their samples say."""
    rng = np.random.default_rng(3)
    planes = random_planes(255, shape)
    coded = (rng.random((3, -(-shape[0] // 8), -(-shape[1] // 8))) < 0.4).astype(np.uint8)
    clean = tuple(plane.copy() for plane in planes)
    for channel, plane in enumerate(clean):
        side = 4 if channel else 8
        for row, col in np.argwhere(coded[channel] == 0):
            plane[row * side : (row + 1) * side, col * side : (col + 1) * side] = 0
    measured = measure_energy(planes, block=block, coded=coded)
    expected = measure_energy(clean, block=block)
    for name in ("energy", "power", "mean", "range"):
        np.testing.assert_array_equal(getattr(measured, name), getattr(expected, name))
        assert not np.array_equal(getattr(measured, name), getattr(measure_energy(planes, block=block), name))
    nothing = measure_energy(planes, block=block, coded=np.zeros_like(coded))
    assert not nothing.power.any()
    assert not nothing.energy.any()


def test_marks_must_cover_the_picture() -> None:
    with pytest.raises(ValueError, match="one value per 8x8 block"):
        measure_energy(random_planes(255), block=8, coded=np.ones((3, 5, 6), np.uint8))
