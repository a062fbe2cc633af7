"""What a picture contains, from its decoded samples alone: the residual of an intra prediction.

Each 4x4 block is predicted from the decoded samples above and left of it in four ways (mean, vertical, horizontal,
gradient: above + left - corner, clipped) and the residual with the smallest sum of squares is kept. That is
close to what an encoder leaves after intra prediction, for any codec. The first block of a picture has no neighbours:
in the map it is predicted by its own mean, so that a picture without detail has no residual; an encoder predicts
it as mid-grey, and so does the `motion` source, which stands in for one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codecmeta.decoding.side_data import Planes
from codecmeta.errors import UsageError
from codecmeta.record.energy import measure_energy
from codecmeta.simd.intra_4x4 import subtract_best_of_four
from codecmeta.simd.numba_cache import kernel

Residual = tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]
"""Residual of Y, Cb, Cr, shaped like the samples."""


@dataclass(frozen=True, kw_only=True)
class TextureEnergy:
    """Texture of T frames on blocks of b samples.

    Attributes:
        energy: float32 (T, ⌈H/b⌉, ⌈W/b⌉), block means of E (section `codecmeta.record.energy`).
        range: float32 (T, 2), smallest and largest E of any sample.
    """

    energy: NDArray[np.float32]
    range: NDArray[np.float32]


def texture_planes(planes: Planes, *, bit_depth: int = 8) -> Residual:
    """Intra-prediction residual of a picture.

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


def texture_energy(frames: NDArray[np.uint8], *, block: int = 8) -> TextureEnergy:
    """Texture energy of RGB frames, in BT.601 Y, Cb, Cr at full resolution.

    Args:
        frames: (T, H, W, 3) uint8, R, G, B.
        block: 4 or 8 samples per block side.

    Raises:
        UsageError: the frames are not (T, H, W, 3) uint8, or the block is neither 4 nor 8.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise UsageError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    if block not in (4, 8):
        raise UsageError(f"block must be 4 or 8, got {block}")
    count, height, width = frames.shape[:3]
    energy = np.zeros((count, -(-height // block), -(-width // block)), np.float32)
    extent = np.zeros((count, 2), np.float32)
    samples = np.empty((3, height, width), np.uint8)
    for index, frame in enumerate(frames):
        _ycbcr(np.ascontiguousarray(frame), samples)
        measured = measure_energy(texture_planes((samples[0], samples[1], samples[2])), block=block)
        energy[index] = measured.energy
        extent[index] = measured.range
    return TextureEnergy(energy=energy, range=extent)


OWN_MEAN = -1
"""Makes `intra_residual` predict a block without neighbours by its own mean."""
_NOTHING: NDArray[np.bool_] = np.zeros((0, 0), np.bool_)


@kernel()
def _ycbcr(frame, out):  # type: ignore[no-untyped-def]
    """Full-range BT.601 in integers of 1/256 (Rec. ITU-T T.871)."""
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            r = np.int32(frame[y, x, 0])
            g = np.int32(frame[y, x, 1])
            b = np.int32(frame[y, x, 2])
            out[0, y, x] = (77 * r + 150 * g + 29 * b + 128) >> 8
            out[1, y, x] = min((-43 * r - 85 * g + 128 * b + 32896) >> 8, 255)
            out[2, y, x] = min((128 * r - 107 * g - 21 * b + 32896) >> 8, 255)


@kernel()
def intra_residual(plane, covered, shift_y, shift_x, top, grey, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the residual of every 4x4 block of a plane, but for blocks that are covered.

    Rows of ``plane`` are contiguous but may be apart, those of ``out`` are not. ``covered`` marks 8x8 luma blocks that
    have an inter prediction; an empty array covers nothing. ``shift_y``, ``shift_x`` are the plane's subsampling.
    ``grey`` predicts the block that has no neighbours; below 0 its mean does.
    """
    height, width = plane.shape
    above = np.empty(4, np.int32)
    left = np.empty(4, np.int32)
    block = np.empty((4, 4), np.int32)
    some = covered.size > 0
    stride = plane.strides[0] // plane.itemsize
    for y in range(0, height, 4):
        rows = min(4, height - y)
        for x in range(0, width, 4):
            if some and covered[(y << shift_y) >> 3, (x << shift_x) >> 3]:
                continue
            cols = min(4, width - x)
            if y and x and rows == 4 and cols == 4:
                subtract_best_of_four(plane, y * stride + x, stride, out, y * width + x, width, top)
            else:
                _block_residual(plane, y, x, rows, cols, top, grey, above, left, block, out)


@kernel()
def _block_residual(plane, y, x, rows, cols, top, grey, above, left, block, out):  # type: ignore[no-untyped-def]
    total = np.int32(0)
    known = np.int32(0)
    if y > 0:
        for col in range(cols):
            above[col] = plane[y - 1, x + col]
            total += above[col]
        known += np.int32(cols)
    if x > 0:
        for row in range(rows):
            left[row] = plane[y + row, x - 1]
            total += left[row]
        known += np.int32(rows)
    if known == 0 and grey >= 0:
        total = np.int32(grey)
        known = np.int32(1)
    elif known == 0:
        for row in range(rows):
            for col in range(cols):
                total += np.int32(plane[y + row, x + col])
        known = np.int32(rows * cols)
    dc = np.int32((total + (known >> 1)) // known)
    corner = np.int32(plane[y - 1, x - 1]) if y > 0 and x > 0 else np.int32(0)
    cost_dc = np.int64(0)
    cost_v = np.int64(0)
    cost_h = np.int64(0)
    cost_g = np.int64(0)
    for row in range(rows):
        for col in range(cols):
            value = np.int32(plane[y + row, x + col])
            block[row, col] = value
            d = np.int64(value - dc)
            cost_dc += d * d
            if y > 0:
                d = np.int64(value - above[col])
                cost_v += d * d
            if x > 0:
                d = np.int64(value - left[row])
                cost_h += d * d
                if y > 0:
                    d = np.int64(value - min(max(above[col] + left[row] - corner, 0), top))
                    cost_g += d * d
    mode = 0
    best = cost_dc
    if y > 0 and cost_v < best:
        mode, best = 1, cost_v
    if x > 0 and cost_h < best:
        mode, best = 2, cost_h
    if y > 0 and x > 0 and cost_g < best:
        mode = 3
    for row in range(rows):
        for col in range(cols):
            if mode == 0:
                p = dc
            elif mode == 1:
                p = above[col]
            elif mode == 2:
                p = left[row]
            else:
                p = min(max(above[col] + left[row] - corner, np.int32(0)), np.int32(top))
            out[y + row, x + col] = block[row, col] - p
