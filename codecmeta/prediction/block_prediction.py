"""Motion-compensated prediction of one block: vector arithmetic of each standard over `codecmeta.simd.block_rows`.

Vectors are in quarter luma samples, chroma vectors in eighths of a chroma sample, for every standard. References are
rows of addresses (`ReferenceSamples`), ``like`` is any array of their sample type and ``kind`` a number of it, ``rule``
an `Interpolation`.
"""

from __future__ import annotations

import numpy as np

from codecmeta.prediction.h264_halfpel import BAND, compute_band
from codecmeta.prediction.mpeg4_qpel import mpeg4_quarter
from codecmeta.prediction.padded_reference import MARGIN, REACH, READY
from codecmeta.prediction.standards import H264, MPEG2, MPEG4_QPEL
from codecmeta.simd.block_rows import (
    BLOCK,
    put_bilinear_4,
    put_bilinear_8,
    put_bilinear_16,
    put_mean_of_four_4,
    put_mean_of_four_8,
    put_mean_of_four_16,
    size_of,
)
from codecmeta.simd.borrowed_array import borrow_at
from codecmeta.simd.numba_cache import kernel
from codecmeta.simd.vector_ir import ROWS

_G, _B, _H, _J = range(4)
_POINTS = np.array(
    [
        [(_G, 0, 0, _G, 0, 0), (_G, 0, 0, _B, 0, 0), (_B, 0, 0, _B, 0, 0), (_B, 0, 0, _G, 0, 1)],
        [(_G, 0, 0, _H, 0, 0), (_B, 0, 0, _H, 0, 0), (_B, 0, 0, _J, 0, 0), (_B, 0, 0, _H, 0, 1)],
        [(_H, 0, 0, _H, 0, 0), (_H, 0, 0, _J, 0, 0), (_J, 0, 0, _J, 0, 0), (_J, 0, 0, _H, 0, 1)],
        [(_H, 0, 0, _G, 1, 0), (_H, 0, 0, _B, 1, 0), (_J, 0, 0, _B, 1, 0), (_B, 1, 0, _H, 0, 1)],
    ],
    np.int64,
).reshape(16, 6)
"""Whole or half samples (plane, row, column; twice) whose mean is the sample at each quarter position (Table 8-12)."""


@kernel(_nrt=False, forceinline=True)
def _outside(position, length):
    """Convert a row or column of a plane to one of the plane with its margin."""
    return min(max(position, -REACH), length + REACH - BLOCK) + MARGIN


@kernel(_nrt=False)
def _compute_bands(address, plane, first, last, shape, top, like, sums):
    """Compute rows first to last of a plane of half samples where they are missing."""
    bands = (shape[0] + BAND - 1) // BAND
    ready = borrow_at(address[READY], like)
    for band in range(first // BAND, last // BAND + 1):
        flag = (plane - 1) * bands + band
        if ready[flag] == 0:
            compute_band(borrow_at(address[0], like), shape, plane, band, top, borrow_at(address[plane], like), sums)
            ready[flag] = 1


@kernel(_nrt=False, forceinline=True)
def find_points(address, like, size, block, vector, top, sums):
    """Find the two blocks of whole or half samples whose mean predicts an H.264 block.

    Args:
        address: uintp (5,), a channel of the reference.
        like: array of the sample type.
        size: height and width of the plane.
        block: y, x of the block's top-left sample, its height and width.
        vector: dy and dx in quarter samples.
        top: largest sample value.
        sums: scratch of `h264_halfpel.compute_band`.

    Returns:
        Addresses of the first sample of both.
    """
    y, x, height, _ = block
    dy, dx = vector
    stride = size[1] + 2 * MARGIN
    row = _outside(y + (dy >> 2), size[0])
    col = _outside(x + (dx >> 2), size[1])
    first = np.int64(address[0]) + (row * stride + col) * like.itemsize
    k = ((dy & 3) << 2) | (dx & 3)
    if k == 0:
        return first, first
    shape = (size[0] + 2 * MARGIN, stride)
    a, b = _POINTS[k, 0], _POINTS[k, 3]
    row_a, row_b = row + _POINTS[k, 1], row + _POINTS[k, 4]
    if a:
        _compute_bands(address, a, row_a, row_a + height - 1, shape, top, like, sums)
    if b:
        _compute_bands(address, b, row_b, row_b + height - 1, shape, top, like, sums)
    first = np.int64(address[a]) + (row_a * stride + col + _POINTS[k, 2]) * like.itemsize
    second = np.int64(address[b]) + (row_b * stride + col + _POINTS[k, 5]) * like.itemsize
    return first, second


@kernel(_nrt=False, forceinline=True)
def find_chroma(address, like, size, block, vector):
    """Return the address of the whole sample before a chroma block; vector in eighths of chroma samples."""
    stride = size[1] + 2 * MARGIN
    row = _outside(block[0] + (vector[0] >> 3), size[0])
    col = _outside(block[1] + (vector[1] >> 3), size[1])
    return np.int64(address[0]) + (row * stride + col) * like.itemsize


@kernel(_nrt=False)
def put_chroma(kind, at, stride, vector, block, rule, out):
    """Write the prediction of a chroma block from `find_chroma`'s address to a block at the address ``out``.

    Bilinear in H.264 (8.4.2.2.2, 8-270), half samples elsewhere.
    """
    fy, fx = vector[0] & 7, vector[1] & 7
    if rule.code != H264:
        put_half_samples(kind, at, stride, (fy >> 2, fx >> 2), block, rule.rounding, out)
        return
    _, _, height, width = block
    size = size_of(kind)
    for row in range(0, height, ROWS):
        source, target = at + row * stride * size, out + row * BLOCK * size
        if width == 16:
            put_bilinear_16(kind, source, stride, target, (fy, fx))
        elif width == 8:
            put_bilinear_8(kind, source, stride, target, (fy, fx))
        else:
            put_bilinear_4(kind, source, stride, target, (fy, fx))


@kernel(_nrt=False)
def put_half_samples(kind, at, stride, fractions, block, rounding, out):
    """Write a half-sample prediction by averaging (ISO/IEC 13818-2, 7.6.4; 14496-2, 7.6.2.1; H.263, 6.1.2).

    A mean of two samples is computed as one of four, each sample twice; a single sample four times. ``rounding`` is
    vop_rounding_type (RTYPE in H.263), 0 in MPEG-1 and MPEG-2.
    """
    _, _, height, width = block
    size = size_of(kind)
    how = (fractions[0], fractions[1], 2 - rounding)
    for row in range(0, height, ROWS):
        source, target = at + row * stride * size, out + row * BLOCK * size
        if width == 16:
            put_mean_of_four_16(kind, source, stride, target, how)
        elif width == 8:
            put_mean_of_four_8(kind, source, stride, target, how)
        else:
            put_mean_of_four_4(kind, source, stride, target, how)


@kernel(_nrt=False)
def put_luma(address, size, block, vector, rule, out, lines):
    """Write the prediction of a luma block of MPEG-1, MPEG-2, MPEG-4 or H.263.

    Args:
        address: uintp (5,), a channel of the reference.
        size: height and width of the plane.
        block: y, x of the block's top-left sample, its height and width, 8 or 16.
        vector: dy and dx in quarter samples.
        rule: of the standard.
        out: flat block of BLOCK rows of BLOCK for the result.
        lines: int32 scratch of BLOCK + 1 rows of BLOCK.
    """
    y, x, height, width = block
    dy, dx = vector
    stride = size[1] + 2 * MARGIN
    start = _outside(y + (dy >> 2), size[0]) * stride + _outside(x + (dx >> 2), size[1])
    if rule.code == MPEG4_QPEL:
        source = borrow_at(address[0] + np.uintp(start * out.itemsize), out)
        mpeg4_quarter(source, stride, (dy & 3, dx & 3), (height, width), rule.rounding, out, lines)
    else:
        at = np.int64(address[0]) + start * out.itemsize
        fractions = ((dy >> 1) & 1, (dx >> 1) & 1)
        put_half_samples(out[0], at, stride, fractions, block, rule.rounding, np.int64(out.ctypes.data))


@kernel(_nrt=False, inline="always")
def _towards_zero(value):
    return (value + 1) >> 1 if value < 0 else value >> 1


@kernel(_nrt=False)
def chroma_component(d, shift, code):
    """Return a chroma vector component in eighths from a luma component in quarters, for subsampling ``1 << shift``.

    H.264 8.4.1.4 and 8.4.2.2.2; MPEG-1/2: 13818-2, 7.6.3.7; H.263 6.1.1 and 14496-2, 7.6.2.1.
    """
    if shift == 0:
        return d << 1
    if code == H264:
        return d
    if code == MPEG4_QPEL:
        half = _towards_zero(d)
        return ((half >> 1) | (half & 1)) << 2
    half = d >> 1
    if code == MPEG2:
        return _towards_zero(half) << 2
    return (2 * (half >> 2) + (1 if half & 3 else 0)) << 2


@kernel(_nrt=False)
def chroma_component_of_four(total):
    """Return a chroma component in eighths from the sum of a macroblock's four luma components in half samples.

    The sum is in sixteenths of a chroma sample, which are rounded to the nearest half sample, sixteenths 3 to 13 to the
    middle (14496-2, 7.6.2.1, Table 7-9; H.263, Table F.1).
    """
    part = total & 15
    return (2 * (total >> 4) + (0 if part < 3 else 1 if part < 14 else 2)) << 2
