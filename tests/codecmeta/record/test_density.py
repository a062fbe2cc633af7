"""Energy and density against a pixel-level float64 computation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from codecmeta.record.density import patch_density
from codecmeta.record.energy import measure_energy
from codecmeta.record.orientation import UPRIGHT, Orientation


def pixel_energy(planes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """E of design: standardise per channel, square, repeat chroma onto the luma grid, sum. float64 (H, W)."""
    height, width = planes[0].shape
    total = np.zeros((height, width))
    for plane in planes:
        if plane.size == 0 or plane.std() == 0:
            continue
        values = plane.astype(np.float64)
        squared = ((values - values.mean()) / (values.std() + 1e-6)) ** 2
        tall, wide = -(-height // plane.shape[0]), -(-width // plane.shape[1])
        total += np.repeat(np.repeat(squared, tall, 0), wide, 1)[:height, :width]
    return total


def random_planes(height: int, width: int, chroma: tuple[int, int], seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    sizes = [(height, width), *[(-(-height // chroma[0]), -(-width // chroma[1]))] * 2]
    return tuple(np.round(rng.laplace(0, 6, size) * (rng.random(size) < 0.3)).astype(np.int16) for size in sizes)


SIZES = [(64, 96, (2, 2)), (81, 121, (2, 2)), (50, 34, (1, 2)), (33, 47, (1, 1))]


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize(("height", "width", "chroma"), SIZES)
def test_block_means_of_energy(height: int, width: int, chroma: tuple[int, int], block: int) -> None:
    planes = random_planes(height, width, chroma, seed=height)
    measured = measure_energy(planes, block=block)
    expected = pixel_energy(planes)
    assert measured.range == pytest.approx([expected.min(), expected.max()], rel=1e-5)
    for row in range(measured.energy.shape[0]):
        for col in range(measured.energy.shape[1]):
            cell = (slice(row * block, (row + 1) * block), slice(col * block, (col + 1) * block))
            assert measured.energy[row, col] == pytest.approx(expected[cell].mean(), rel=1e-5)
            for channel, plane in enumerate(planes):
                tall, wide = block // chroma[0] if channel else block, block // chroma[1] if channel else block
                part = plane[row * tall : (row + 1) * tall, col * wide : (col + 1) * wide].astype(np.float64)
                assert measured.power[channel, row, col] == pytest.approx((part**2).mean(), rel=1e-6)
                assert measured.mean[channel, row, col] == pytest.approx(part.mean(), rel=1e-6, abs=1e-6)


def test_mean_of_energy_is_the_number_of_varying_channels() -> None:
    planes = random_planes(64, 96, (2, 2), seed=1)
    assert measure_energy(planes, block=8).energy.mean() == pytest.approx(3, rel=1e-5)
    flat = (planes[0], np.full_like(planes[1], 7), planes[2])
    assert measure_energy(flat, block=8).energy.mean() == pytest.approx(2, rel=1e-5)
    gray = (planes[0], planes[1][:0, :0], planes[2][:0, :0])
    assert measure_energy(gray, block=8).energy.mean() == pytest.approx(1, rel=1e-5)


def shown_density(
    energy: np.ndarray, orientation: Orientation, grid: tuple[int, int], box: tuple[int, int, int, int] | None
) -> np.ndarray:
    """Turn the pixels, cut the box, normalise, and average every patch: no blocks, no affine short-cut."""
    shown = (energy - energy.min()) / (energy.max() - energy.min())
    shown = shown.T if orientation.transposed else shown
    shown = shown[:, ::-1] if orientation.mirrored else shown
    shown = shown[::-1] if orientation.flipped else shown
    if box is not None:
        shown = shown[box[1] : box[3], box[0] : box[2]]
    rows, cols = grid
    tall, wide = shown.shape[0] // rows, shown.shape[1] // cols
    return shown.reshape(rows, tall, cols, wide).mean(axis=(1, 3))


EIGHT = [
    Orientation(transposed=transposed, mirrored=mirrored, flipped=flipped)
    for transposed, mirrored, flipped in itertools.product((False, True), repeat=3)
]


@pytest.mark.parametrize("orientation", EIGHT)
@pytest.mark.parametrize("box", [None, (16, 8, 48, 56)])
def test_density_of_aligned_patches_is_exact(orientation: Orientation, box: tuple[int, int, int, int] | None) -> None:
    planes = random_planes(64, 96, (2, 2), seed=3)
    measured = measure_energy(planes, block=8)
    grid = (4, 4) if box is None else (3, 2)
    density = patch_density(
        measured.energy[None],
        measured.range[None],
        width=96,
        height=64,
        block=8,
        orientation=orientation,
        grid=grid,
        box=box,
    )
    expected = shown_density(pixel_energy(planes), orientation, grid, box)
    np.testing.assert_allclose(density[0], expected, rtol=2e-5, atol=1e-7)
    for other in EIGHT:
        if other != orientation and other.transposed == orientation.transposed:
            turned = shown_density(pixel_energy(planes), other, grid, box)
            assert np.abs(density[0] - turned).max() > 1e-3


def test_density_in_square_pixels() -> None:
    """A box in pixels that are half as wide as the samples: the same region, the same density."""
    planes = random_planes(64, 96, (2, 2), seed=4)
    measured = measure_energy(planes, block=8)
    turned = Orientation.from_rotation(90)
    for orientation, box, wide in (
        (UPRIGHT, (16, 8, 48, 56), (32, 8, 96, 56)),
        (turned, (16, 8, 48, 56), (8, 8, 24, 56)),
    ):
        plain, square = (
            patch_density(
                measured.energy[None],
                measured.range[None],
                width=96,
                height=64,
                block=8,
                grid=(3, 2),
                box=one,
                orientation=orientation,
                sample_aspect=sample_aspect,
            )
            for one, sample_aspect in ((box, None), (wide, (2, 1)))
        )
        np.testing.assert_allclose(square, plain, rtol=1e-6)


def test_density_of_any_patch_is_area_weighted() -> None:
    """Patches that cut through blocks: equal to averaging pixels whose energy is constant within a block."""
    planes = random_planes(81, 121, (2, 2), seed=5)
    measured = measure_energy(planes, block=8)
    pixels = np.repeat(np.repeat(measured.energy.astype(np.float64), 8, 0), 8, 1)[:81, :121]
    normal = (pixels - measured.range[0]) / (float(measured.range[1]) - float(measured.range[0]))
    fine = np.repeat(np.repeat(normal, 27, 0), 27, 1)  # every patch edge of a 27x27 grid falls on a fine pixel
    expected = fine.reshape(27, 81, 27, 121).mean(axis=(1, 3))
    density = patch_density(
        measured.energy[None], measured.range[None], width=121, height=81, block=8, grid=(27, 27), box=None
    )
    np.testing.assert_allclose(density[0], expected, rtol=1e-5, atol=1e-7)


def test_flat_map_merges_nothing() -> None:
    zero = np.zeros((1, 4, 4), np.float32)
    density = patch_density(zero, np.zeros((1, 2), np.float32), width=32, height=32, block=8, grid=(3, 3), box=None)
    assert (density == 1).all()


@pytest.mark.parametrize("box", [(0, 0, 33, 32), (4, 4, 4, 8), (-1, 0, 8, 8), (8, 0, 4, 8)])
def test_box_outside_the_picture(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="inside the displayed picture"):
        patch_density(
            np.zeros((1, 4, 4), np.float32),
            np.zeros((1, 2), np.float32),
            width=32,
            height=32,
            block=8,
            grid=(2, 2),
            box=box,
        )
