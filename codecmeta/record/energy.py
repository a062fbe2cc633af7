"""Energy E_t of residual planes and its block means (MeToM, RPM).

Per frame and channel the residual is standardised over the channel's own samples,
``r̃_c = (r_c - mean_c) / (std_c + 1e-6)``, and ``E = Σ_c r̃_c²`` on the luma grid, each chroma sample counting for the
luma samples it covers. A channel without variance contributes 0, so the mean of E is the number of channels that vary.

The mean of E over a block follows from the block's means of r and r². Only the picture's extremes need single samples,
and only those of blocks whose channels have a sufficient range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codecmeta.record.energy_kernels import reduce_planes

Residual = tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]
"""Residual of Y, Cb, Cr, shaped like the samples."""


@dataclass(frozen=True, kw_only=True)
class EnergyMap:
    """Energy of a picture, or of T pictures along a first axis; block size b, h = ⌈H/b⌉ and w = ⌈W/b⌉ blocks.

    Attributes:
        energy: float32 (h, w), block means of E; a border block averages the samples inside the picture.
        range: float32 (2,), smallest and largest E of any pixel, or of any cell where single pixels are unknown.
    """

    energy: NDArray[np.float32]
    range: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BlockEnergy(EnergyMap):
    """Block means of one picture's residual.

    Attributes:
        power: float32 (3, h, w), block means of r² of Y, Cb, Cr, each over the block's own samples.
        mean: float32 (3, h, w), block means of r, likewise.
    """

    power: NDArray[np.float32]
    mean: NDArray[np.float32]


def measure_energy(
    planes: Residual,
    *,
    block: int,
    coded: NDArray[np.uint8] | None = None,
) -> BlockEnergy:
    """Reduce the residual planes of a picture to block means.

    Args:
        planes: Y (H, W), Cb and Cr (each (⌈H/v⌉, ⌈W/u⌉) for subsampling v, u of 1 or 2; (0, 0) for monochrome), int16.
        block: luma samples per block side, 4 or 8.
        coded: uint8 (3, ⌈H/8⌉, ⌈W/8⌉), 0 for each channel of an 8x8 luma block that counts as 0 regardless of its
            samples; None to read samples everywhere.

    Returns:
        The block means; power and mean of a missing chroma channel are 0.

    Raises:
        ValueError: the shapes of the planes do not match.
    """
    y, cb, cr = (np.ascontiguousarray(plane) for plane in planes)
    height, width = y.shape
    shift_y, shift_x = _subsampling(y.shape, cb.shape) if cb.size else (0, 0)
    if cr.shape != cb.shape:
        raise ValueError(f"chroma planes of shapes {cb.shape} and {cr.shape} differ; they must be equal")
    rows, cols = -(-height // block), -(-width // block)
    if coded is None:
        coded = np.ones((3, -(-height // 8), -(-width // 8)), np.uint8)
    elif coded.shape != (3, -(-height // 8), -(-width // 8)):
        raise ValueError(f"coded has shape {coded.shape}; {height} x {width} samples need one value per 8x8 block")
    energy = np.empty((rows, cols), np.float32)
    power, mean = np.zeros((3, rows, cols), np.float32), np.zeros((3, rows, cols), np.float32)
    extent = np.empty(2, np.float32)
    reduce_planes((y, cb, cr), (shift_y, shift_x), block, coded, energy, power, mean, extent)
    return BlockEnergy(energy=energy, power=power, mean=mean, range=extent)


def _subsampling(luma: tuple[int, ...], chroma: tuple[int, ...]) -> tuple[int, int]:
    shifts = []
    for full, part in zip(luma, chroma, strict=True):
        if part == full:
            shifts.append(0)
        elif part == (full + 1) // 2:
            shifts.append(1)
        else:
            raise ValueError(f"a chroma plane of shape {chroma} does not match luma {luma}")
    return shifts[0], shifts[1]
