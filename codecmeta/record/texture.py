"""Texture of a picture: the residual of an intra prediction, from its decoded samples only.

Each 4x4 block is predicted from the decoded samples above and left of it in four ways (mean, vertical, horizontal,
gradient: above + left - corner, clipped) and the residual with the smallest sum of squares is kept. That is close to
what an encoder leaves after intra prediction, for any codec. The first block of a picture has no neighbours: in the map
it is predicted by its own mean, so that a picture without detail has no residual; an encoder predicts it as mid-grey,
and so does the `motion` source, which imitates one.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.record.energy import EnergyMap, Residual, measure_energy
from codecmeta.simd.intra_4x4 import OWN_MEAN, intra_residual
from codecmeta.simd.numba_cache import kernel

Samples: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


def texture_planes(planes: tuple[Samples, Samples, Samples], *, bit_depth: int = 8) -> Residual:
    """Return the intra prediction residual of a picture.

    Args:
        planes: Y, Cb, Cr samples (uint8 or uint16, (0, 0) where a plane is missing), any sizes.
        bit_depth: bits per sample, 8 to 15.

    Returns:
        int16 planes of the same shapes.
    """
    y, cb, cr = (np.empty(plane.shape, np.int16) for plane in planes)
    for plane, out in zip(planes, (y, cb, cr), strict=True):
        intra_residual(plane, _NOTHING, 0, 0, (1 << bit_depth) - 1, OWN_MEAN, out)
    return y, cb, cr


def texture_energy(frames: NDArray[np.uint8], *, block: int = 8) -> EnergyMap:
    """Return the texture energy of RGB frames, in BT.601 Y, Cb, Cr at full resolution.

    Args:
        frames: (T, H, W, 3) uint8, R, G, B.
        block: 4 or 8 samples per block side.

    Returns:
        Energy (T, ⌈H/b⌉, ⌈W/b⌉) and range (T, 2).

    Raises:
        UsageError: the frames are not (T, H, W, 3) uint8, or the block is neither 4 nor 8.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise UsageError(f"frames are {frames.dtype} {frames.shape}; uint8 (T, H, W, 3) is required")
    if block not in (4, 8):
        raise UsageError(f"block is {block}; choose from 4, 8")
    count, height, width = frames.shape[:3]
    energy = np.zeros((count, -(-height // block), -(-width // block)), np.float32)
    extent = np.zeros((count, 2), np.float32)
    samples = np.empty((3, height, width), np.uint8)
    for index, frame in enumerate(frames):
        _ycbcr(np.ascontiguousarray(frame), samples)
        measured = measure_energy(texture_planes((samples[0], samples[1], samples[2])), block=block)
        energy[index] = measured.energy
        extent[index] = measured.range
    return EnergyMap(energy=energy, range=extent)


_NOTHING: NDArray[np.bool_] = np.zeros((0, 0), np.bool_)


@kernel()
def _ycbcr(frame: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Convert to full-range BT.601 in integers of 1/256 (Rec. ITU-T T.871)."""
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            r = np.int32(frame[y, x, 0])
            g = np.int32(frame[y, x, 1])
            b = np.int32(frame[y, x, 2])
            out[0, y, x] = (77 * r + 150 * g + 29 * b + 128) >> 8
            out[1, y, x] = min((-43 * r - 85 * g + 128 * b + 32896) >> 8, np.int32(255))
            out[2, y, x] = min((128 * r - 107 * g - 21 * b + 32896) >> 8, np.int32(255))
