"""Sub-pel interpolation filters of the block-based standards, on one block, compiled.

Samples are read from a flat array: ``start`` is the index of the block's integer sample G, ``stride`` the length of
a row. Results go to ``out``, a flat block of `BLOCK` samples per row, from index ``base``. Everything that a filter
reads lies inside the array; `prediction` sees to that by copying a clamped window where a vector points over the edge.

Three habits keep the loops vectorised: indices are unsigned, so that no negative index has to be considered; sums
are narrowed to int32 at every step; and the number of columns is an argument, `BLOCK` for narrower blocks too, because
the compiler would unroll a constant number into scalar code. Constant indices are passed as np.int64, because numba
compiles a function anew for each literal.
"""

from __future__ import annotations

import numba as nb
import numpy as np

BLOCK = 16
"""Largest side of a block, and the row length of predicted blocks."""
MARGIN_BEFORE = 2
"""Samples that the longest filter reads above and left of a block."""
MARGIN_AFTER = 3
"""Samples that the longest filter reads below and right of a block."""


@nb.njit(cache=True, nogil=True)
def copy(source, start, stride, height, columns, out, base):  # type: ignore[no-untyped-def]
    """Whole-sample position."""
    for row in range(height):
        s = np.uintp(start + row * stride)
        t = np.uintp(base + row * BLOCK)
        for col in range(columns):
            out[t + np.uintp(col)] = source[s + np.uintp(col)]


@nb.njit(cache=True, nogil=True)
def average(first, f, second, s, height, out, base):  # type: ignore[no-untyped-def]
    """``(first + second + 1) >> 1`` of blocks at f and s: quarter samples (8-250), two predictions (8-273)."""
    a = np.uintp(f)
    b = np.uintp(s)
    t = np.uintp(base)
    for i in range(height * BLOCK):
        k = np.uintp(i)
        out[t + k] = np.int32(np.int32(first[a + k]) + np.int32(second[b + k]) + np.int32(1)) >> np.int32(1)


@nb.njit(cache=True, nogil=True)
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


@nb.njit(cache=True, nogil=True, inline="always")
def _six_tap(source, at, step):  # type: ignore[no-untyped-def]
    """``A - 5B + 20C + 20D - 5E + F`` of six samples ``step`` apart, A at index ``at`` (8-241, 8-242)."""
    at1 = at + step
    at2 = at1 + step
    at3 = at2 + step
    at4 = at3 + step
    at5 = at4 + step
    outer = np.int32(np.int32(source[at]) + np.int32(source[at5]))
    middle = np.int32(np.int32(source[at1]) + np.int32(source[at4]))
    inner = np.int32(np.int32(source[at2]) + np.int32(source[at3]))
    return np.int32(outer - np.int32(5) * middle + np.int32(20) * inner)


@nb.njit(cache=True, nogil=True)
def _h264_half(source, start, stride, step, height, columns, top, out, base):  # type: ignore[no-untyped-def]
    """Half samples b (``step`` 1) or h (``step`` = stride)."""
    for row in range(height):
        s = np.uintp(start + row * stride - 2 * step)
        t = np.uintp(base + row * BLOCK)
        for col in range(columns):
            v = np.int32(_six_tap(source, s + np.uintp(col), np.uintp(step)) + np.int32(16)) >> np.int32(5)
            out[t + np.uintp(col)] = min(max(np.int32(v), np.int32(0)), top)


@nb.njit(cache=True, nogil=True)
def _h264_centre(source, start, stride, height, columns, top, out, base, sums):  # type: ignore[no-untyped-def]
    """Half samples j, from unrounded horizontal sums."""
    for row in range(height + 5):
        s = np.uintp(start + (row - 2) * stride - 2)
        t = np.uintp(row * BLOCK)
        for col in range(columns):
            sums[t + np.uintp(col)] = _six_tap(source, s + np.uintp(col), np.uintp(1))
    for row in range(height):
        s = np.uintp(row * BLOCK)
        t = np.uintp(base + row * BLOCK)
        for col in range(columns):
            v = np.int32(_six_tap(sums, s + np.uintp(col), np.uintp(BLOCK)) + np.int32(512)) >> np.int32(10)
            out[t + np.uintp(col)] = min(max(np.int32(v), np.int32(0)), top)


@nb.njit(cache=True, nogil=True)
def h264_luma(source, start, stride, fy, fx, height, columns, top, out, base, extra, sums):  # type: ignore[no-untyped-def]
    """Luma sample interpolation, fractions in quarters (Rec. ITU-T H.264, 8.4.2.2.1, Table 8-12).

    Args:
        source: flat samples; with start and stride as the module says.
        start: index of sample G.
        stride: row length.
        fy: vertical fraction, 0 to 3.
        fx: horizontal fraction.
        height: rows of the block.
        columns: columns to compute.
        top: largest sample value, int32.
        out: flat samples to write.
        base: index of the first.
        extra: scratch of one block, like ``out``.
        sums: int32 scratch of BLOCK + 5 rows.
    """
    if fx == 0 and fy == 0:
        copy(source, start, stride, height, columns, out, base)
        return
    right = start + (fx >> 1)
    below = start + (fy >> 1) * stride
    if fy == 0 or fx == 0:
        step = 1 if fy == 0 else stride
        _h264_half(source, start, stride, step, height, columns, top, out, base)
        if fx == 2 or fy == 2:
            return
        copy(source, right if fy == 0 else below, stride, height, columns, extra, np.int64(0))
    elif fx == 2 or fy == 2:
        _h264_centre(source, start, stride, height, columns, top, out, base, sums)
        if fx == fy:
            return
        if fx == 2:
            _h264_half(source, below, stride, np.int64(1), height, columns, top, extra, np.int64(0))
        else:
            _h264_half(source, right, stride, stride, height, columns, top, extra, np.int64(0))
    else:
        _h264_half(source, below, stride, np.int64(1), height, columns, top, out, base)
        _h264_half(source, right, stride, stride, height, columns, top, extra, np.int64(0))
    average(out, base, extra, np.int64(0), height, out, base)


@nb.njit(cache=True, nogil=True)
def h264_chroma(source, start, stride, fy, fx, height, columns, out, base):  # type: ignore[no-untyped-def]
    """Chroma sample interpolation, fractions in eighths (Rec. ITU-T H.264, 8.4.2.2.2, 8-270)."""
    a = np.int32((8 - fx) * (8 - fy))
    b = np.int32(fx * (8 - fy))
    c = np.int32((8 - fx) * fy)
    d = np.int32(fx * fy)
    right = np.uintp(1 if fx else 0)
    below = np.uintp(stride if fy else 0)
    for row in range(height):
        s = np.uintp(start + row * stride)
        t = np.uintp(base + row * BLOCK)
        for col in range(columns):
            at = s + np.uintp(col)
            upper = np.int32(a * np.int32(source[at]) + b * np.int32(source[at + right]))
            lower = np.int32(c * np.int32(source[at + below]) + d * np.int32(source[at + below + right]))
            out[t + np.uintp(col)] = np.int32(upper + lower + np.int32(32)) >> np.int32(6)


@nb.njit(cache=True, nogil=True)
def half_sample(source, start, stride, fy, fx, height, columns, rounding, out, base):  # type: ignore[no-untyped-def]
    """Half-sample prediction by averaging (ISO/IEC 13818-2, 7.6.4; 14496-2, 7.6.2.1; H.263, 6.1.2).

    ``rounding`` is vop_rounding_type (RTYPE in H.263), 0 in MPEG-1 and MPEG-2.
    """
    if fx and fy:
        bias = np.int32(2 - rounding)
        for row in range(height):
            s = np.uintp(start + row * stride)
            t = np.uintp(base + row * BLOCK)
            for col in range(columns):
                at = s + np.uintp(col)
                under = at + np.uintp(stride)
                upper = np.int32(np.int32(source[at]) + np.int32(source[at + np.uintp(1)]))
                lower = np.int32(np.int32(source[under]) + np.int32(source[under + np.uintp(1)]))
                out[t + np.uintp(col)] = np.int32(upper + lower + bias) >> np.int32(2)
        return
    bias = np.int32(1 - rounding) if fx or fy else np.int32(0)
    other = np.uintp(fx + fy * stride)
    for row in range(height):
        s = np.uintp(start + row * stride)
        t = np.uintp(base + row * BLOCK)
        for col in range(columns):
            at = s + np.uintp(col)
            total = np.int32(np.int32(source[at]) + np.int32(source[at + other]))
            out[t + np.uintp(col)] = np.int32(total + bias) >> np.int32(1)


@nb.njit(cache=True, nogil=True, inline="always")
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


@nb.njit(cache=True, nogil=True)
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
