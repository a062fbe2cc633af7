"""Residual planes -> energy E_t -> block means (MeToM, RPM).

Per frame and channel the residual is standardised over the channel's own samples,
``r̃_c = (r_c - mean_c) / (std_c + 1e-6)``, and ``E = Σ_c r̃_c²`` on the luma grid, each chroma sample
standing for the luma samples it covers. A channel without variance contributes 0, so the mean of E is the
number of channels that vary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-6
"""Added to a channel's standard deviation before dividing by it."""


@dataclass(frozen=True, kw_only=True)
class BlockEnergy:
    """What is kept of one picture's residual; block size b, h = ⌈H/b⌉ and w = ⌈W/b⌉ blocks.

    Attributes:
        energy: float32 (h, w), block means of E; a border block averages what lies inside the picture.
        power: float32 (3, h, w), block means of r² of Y, Cb, Cr, each over the block's own samples.
        mean: float32 (3, h, w), block means of r, likewise.
        range: float32 (2,), smallest and largest E of any pixel.
    """

    energy: NDArray[np.float32]
    power: NDArray[np.float32]
    mean: NDArray[np.float32]
    range: NDArray[np.float32]


def standardisation(total: float, square_total: float, samples: int) -> tuple[float, float]:
    """Mean and weight of a channel: E gains ``weight * (r - mean)²`` for each of its samples.

    Args:
        total: sum of the channel's residual.
        square_total: sum of its squares.
        samples: number of samples, 0 for a channel that does not exist.

    Returns:
        The mean and ``1 / (std + EPSILON)²``, a weight of 0 where the channel has no variance.
    """
    if samples == 0:
        return 0.0, 0.0
    mean = total / samples
    variance = square_total / samples - mean * mean
    if variance <= 1e-12:
        return mean, 0.0
    return mean, 1.0 / (variance**0.5 + EPSILON) ** 2


def measure_energy(
    planes: tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]], *, block: int
) -> BlockEnergy:
    """Reduce the residual planes of a picture to block means.

    Args:
        planes: Y (H, W), Cb and Cr (each (⌈H/v⌉, ⌈W/u⌉) for subsampling v, u of 1 or 2; (0, 0) for monochrome), int16.
        block: luma samples per block side, 4 or 8.

    Returns:
        The block means; power and mean of a missing chroma channel are 0.

    Raises:
        ValueError: the planes do not fit together.
    """
    luma = planes[0]
    height, width = luma.shape
    rows, cols = -(-height // block), -(-width // block)
    power = np.zeros((3, rows, cols), np.float32)
    mean = np.zeros((3, rows, cols), np.float32)
    means = np.zeros(3)
    weights = np.zeros(3)
    shift_y = shift_x = 0
    for channel, plane in enumerate(planes):
        if plane.size == 0:
            continue
        shift_y, shift_x = _subsampling(luma.shape, plane.shape) if channel else (0, 0)
        total, square_total = _block_moments(plane, block >> shift_y, block >> shift_x, power[channel], mean[channel])
        means[channel], weights[channel] = standardisation(total, square_total, plane.size)
    energy = np.zeros((rows, cols), np.float32)
    extent = np.zeros(2, np.float32)
    chroma = planes[1:] if planes[1].size else (luma[:0], luma[:0])
    _block_energy(luma, chroma[0], chroma[1], shift_y, shift_x, means, weights, block, energy, extent)
    return BlockEnergy(energy=energy, power=power, mean=mean, range=extent)


def _subsampling(luma: tuple[int, ...], chroma: tuple[int, ...]) -> tuple[int, int]:
    shifts = []
    for full, part in zip(luma, chroma, strict=True):
        if part == full:
            shifts.append(0)
        elif part == (full + 1) // 2:
            shifts.append(1)
        else:
            raise ValueError(f"a chroma plane of shape {chroma} does not go with luma {luma}")
    return shifts[0], shifts[1]


@nb.njit(cache=True, nogil=True)
def _block_moments(plane, block_h, block_w, power, mean):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    total = np.int64(0)
    square_total = np.int64(0)
    for row in range(power.shape[0]):
        y0, y1 = row * block_h, min(row * block_h + block_h, height)
        for col in range(power.shape[1]):
            x0, x1 = col * block_w, min(col * block_w + block_w, width)
            s = np.int64(0)
            q = np.int64(0)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    r = np.int64(plane[y, x])
                    s += r
                    q += r * r
            n = (y1 - y0) * (x1 - x0)
            power[row, col] = q / n
            mean[row, col] = s / n
            total += s
            square_total += q
    return total, square_total


@nb.njit(cache=True, nogil=True)
def _block_energy(luma, cb, cr, shift_y, shift_x, means, weights, block, energy, extent):  # type: ignore[no-untyped-def]
    height, width = luma.shape
    has_chroma = cb.size > 0
    low = np.inf
    high = -np.inf
    for row in range(energy.shape[0]):
        y0, y1 = row * block, min(row * block + block, height)
        for col in range(energy.shape[1]):
            x0, x1 = col * block, min(col * block + block, width)
            s = 0.0
            for y in range(y0, y1):
                for x in range(x0, x1):
                    d = luma[y, x] - means[0]
                    e = weights[0] * d * d
                    if has_chroma:
                        d = cb[y >> shift_y, x >> shift_x] - means[1]
                        e += weights[1] * d * d
                        d = cr[y >> shift_y, x >> shift_x] - means[2]
                        e += weights[2] * d * d
                    s += e
                    low = min(low, e)
                    high = max(high, e)
            energy[row, col] = s / ((y1 - y0) * (x1 - x0))
    extent[0] = low
    extent[1] = high
