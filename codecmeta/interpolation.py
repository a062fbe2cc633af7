"""Sub-pel interpolation filters of the block-based standards, on one block, compiled.

Samples are read from a flat array: ``start`` is the index of the block's integer sample G, ``stride`` the length of
a row. Results go to ``out``, a flat block of `BLOCK` samples per row, from index ``base``. Blocks are 16, 8 or 4
samples wide and a multiple of four high. All that a filter reads lies inside the array: `reference_samples` sees to it.
"""

from __future__ import annotations

import numpy as np

from codecmeta.kernels import kernel
from codecmeta.strips import (
    ROWS,
    put_bilinear_4,
    put_bilinear_8,
    put_bilinear_16,
    put_mean_of_four_4,
    put_mean_of_four_8,
    put_mean_of_four_16,
)

BLOCK = 16
"""Largest side of a block, and the row length of predicted blocks."""


@kernel(_nrt=False)
def average(first, f, second, s, height, out, base):  # type: ignore[no-untyped-def]
    """``(first + second + 1) >> 1`` of blocks at f and s: quarter samples (8-250), two predictions (8-273)."""
    a = np.uintp(f)
    b = np.uintp(s)
    t = np.uintp(base)
    for i in range(height * BLOCK):
        k = np.uintp(i)
        out[t + k] = np.int32(np.int32(first[a + k]) + np.int32(second[b + k]) + np.int32(1)) >> np.int32(1)


@kernel(_nrt=False)
def weigh(first, f, second, s, weight, height, top, out, base):  # type: ignore[no-untyped-def]
    """``((64 - weight) first + weight second + 32) >> 6``, implicit bi-prediction of H.264 (8.4.2.3.2, 8-299)."""
    w1 = np.int32(weight)
    w0 = np.int32(64) - w1
    a = np.uintp(f)
    b = np.uintp(s)
    t = np.uintp(base)
    for i in range(height * BLOCK):
        k = np.uintp(i)
        total = np.int32(w0 * np.int32(first[a + k]) + w1 * np.int32(second[b + k]) + np.int32(32))
        out[t + k] = min(max(np.int32(total >> np.int32(6)), np.int32(0)), top)


@kernel(_nrt=False)
def h264_chroma(source, start, stride, fy, fx, height, width, out, base):  # type: ignore[no-untyped-def]
    """Chroma sample interpolation, fractions in eighths (Rec. ITU-T H.264, 8.4.2.2.2, 8-270)."""
    for row in range(0, height, ROWS):
        at, to = start + row * stride, base + row * BLOCK
        if width == 16:
            put_bilinear_16(source, at, stride, fy, fx, out, to, np.int64(BLOCK))
        elif width == 8:
            put_bilinear_8(source, at, stride, fy, fx, out, to, np.int64(BLOCK))
        else:
            put_bilinear_4(source, at, stride, fy, fx, out, to, np.int64(BLOCK))


@kernel(_nrt=False)
def half_sample(source, start, stride, fy, fx, height, width, rounding, out, base):  # type: ignore[no-untyped-def]
    """Half-sample prediction by averaging (ISO/IEC 13818-2, 7.6.4; 14496-2, 7.6.2.1; H.263, 6.1.2).

    The mean of two samples is that of four, two of them twice; one sample is the mean of itself. ``rounding`` is
    vop_rounding_type (RTYPE in H.263), 0 in MPEG-1 and MPEG-2.
    """
    down, bias = fy * stride, 2 - rounding
    for row in range(0, height, ROWS):
        at, to = start + row * stride, base + row * BLOCK
        if width == 16:
            put_mean_of_four_16(source, at, stride, down, fx, bias, out, to, np.int64(BLOCK))
        elif width == 8:
            put_mean_of_four_8(source, at, stride, down, fx, bias, out, to, np.int64(BLOCK))
        else:
            put_mean_of_four_4(source, at, stride, down, fx, bias, out, to, np.int64(BLOCK))


@kernel(_nrt=False, inline="always")
def _eight_tap(samples, start, step, position, last, bias):  # type: ignore[no-untyped-def]
    """Half sample after ``position`` on a line of last + 1 samples that is mirrored at both ends."""
    total = 0
    for tap in range(4):
        before = position - tap
        after = position + 1 + tap
        if before < 0:
            before = -1 - before
        if after > last:
            after = 2 * last + 1 - after
        weight = (20, -6, 3, -1)[tap]
        total += weight * (np.int64(samples[start + before * step]) + np.int64(samples[start + after * step]))
    return min(max((total + bias) >> 5, 0), 255)


@kernel(_nrt=False)
def mpeg4_quarter(source, start, stride, fy, fx, height, width, rounding, out, base, lines):  # type: ignore[no-untyped-def]
    """Quarter-sample prediction of MPEG-4 part 2, 8 bit (ISO/IEC 14496-2, 7.6.2.2).

    The eight taps (-1, 3, -6, 20, 20, -6, 3, -1) / 32 see the block's own (height + 1) x (width + 1) samples
    only, mirrored at its edges; a quarter sample is the mean of a half and a whole sample, first along rows, then
    along columns. ``lines`` is int32 scratch of height + 1 rows.
    """
    bias = 16 - rounding
    mean_bias = 1 - rounding
    for row in range(height + (1 if fy else 0)):
        first = start + row * stride
        for col in range(width):
            value = np.int64(source[first + col + (1 if fx == 3 else 0)])
            if fx:
                half = _eight_tap(source, first, 1, col, width, bias)
                value = half if fx == 2 else (half + value + mean_bias) >> 1
            lines[row * BLOCK + col] = value
    for row in range(height):
        for col in range(width):
            value = np.int64(lines[(row + (1 if fy == 3 else 0)) * BLOCK + col])
            if fy:
                half = _eight_tap(lines, col, BLOCK, row, height, bias)
                value = half if fy == 2 else (half + value + mean_bias) >> 1
            out[base + row * BLOCK + col] = value
