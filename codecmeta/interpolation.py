"""Sub-pel interpolation filters of the block-based standards, on one block, compiled.

Every kernel reads a window of ``source`` that lies wholly inside the array (`prediction` sees to that by
copying a clamped window where a vector points over the picture edge) and writes ``height`` x ``width`` samples
into ``out``. ``y``, ``x`` are the position of the block's integer sample G; ``fy``, ``fx`` the fraction.
Sums are written in int32 on purpose: the compiler then keeps eight lanes and more per instruction.
"""

from __future__ import annotations

import numba as nb
import numpy as np

MARGIN_BEFORE = 2
"""Samples that the longest filter reads above and left of a block."""
MARGIN_AFTER = 3
"""Samples that the longest filter reads below and right of a block."""


@nb.njit(cache=True, nogil=True, inline="always")
def _six_tap(a, b, c, d, e, f):  # type: ignore[no-untyped-def]
    return np.int32(
        np.int32(a)
        - np.int32(5) * np.int32(b)
        + np.int32(20) * np.int32(c)
        + np.int32(20) * np.int32(d)
        - np.int32(5) * np.int32(e)
        + np.int32(f)
    )


@nb.njit(cache=True, nogil=True, inline="always")
def _clip(value, top):  # type: ignore[no-untyped-def]
    return min(max(value, np.int32(0)), top)


@nb.njit(cache=True, nogil=True)
def copy(source, y, x, height, width, out):  # type: ignore[no-untyped-def]
    """Whole-sample position."""
    for row in range(height):
        line = source[y + row, x : x + width]
        target = out[row, :width]
        for col in range(width):
            target[col] = line[col]


@nb.njit(cache=True, nogil=True)
def average(first, second, height, width, out):  # type: ignore[no-untyped-def]
    """``(first + second + 1) >> 1``: quarter samples of H.264 (8-250), and the two predictions of a block (8-273)."""
    for row in range(height):
        a = first[row, :width]
        b = second[row, :width]
        target = out[row, :width]
        for col in range(width):
            target[col] = np.int32(np.int32(a[col]) + np.int32(b[col]) + np.int32(1)) >> np.int32(1)


@nb.njit(cache=True, nogil=True)
def weigh(first, second, weight, height, width, top, out):  # type: ignore[no-untyped-def]
    """``((64 - weight) first + weight second + 32) >> 6``, implicit bi-prediction of H.264 (8.4.2.3.2, 8-299)."""
    w1 = np.int32(weight)
    w0 = np.int32(64) - w1
    for row in range(height):
        a = first[row, :width]
        b = second[row, :width]
        target = out[row, :width]
        for col in range(width):
            v = np.int32(w0 * np.int32(a[col]) + w1 * np.int32(b[col]) + np.int32(32)) >> np.int32(6)
            target[col] = _clip(np.int32(v), top)


@nb.njit(cache=True, nogil=True)
def _h264_horizontal(source, y, x, height, width, top, out):  # type: ignore[no-untyped-def]
    for row in range(height):
        s = source[y + row, x - 2 : x + width + 3]
        target = out[row, :width]
        for col in range(width):
            v = _six_tap(s[col], s[col + 1], s[col + 2], s[col + 3], s[col + 4], s[col + 5])
            target[col] = _clip(np.int32(np.int32(v + np.int32(16)) >> np.int32(5)), top)


@nb.njit(cache=True, nogil=True)
def _h264_vertical(source, y, x, height, width, top, out):  # type: ignore[no-untyped-def]
    for row in range(height):
        a = source[y + row - 2, x : x + width]
        b = source[y + row - 1, x : x + width]
        c = source[y + row, x : x + width]
        d = source[y + row + 1, x : x + width]
        e = source[y + row + 2, x : x + width]
        f = source[y + row + 3, x : x + width]
        target = out[row, :width]
        for col in range(width):
            v = _six_tap(a[col], b[col], c[col], d[col], e[col], f[col])
            target[col] = _clip(np.int32(np.int32(v + np.int32(16)) >> np.int32(5)), top)


@nb.njit(cache=True, nogil=True)
def _h264_centre(source, y, x, height, width, top, out, sums):  # type: ignore[no-untyped-def]
    for row in range(height + 5):
        s = source[y + row - 2, x - 2 : x + width + 3]
        target32 = sums[row, :width]
        for col in range(width):
            target32[col] = _six_tap(s[col], s[col + 1], s[col + 2], s[col + 3], s[col + 4], s[col + 5])
    for row in range(height):
        a = sums[row, :width]
        b = sums[row + 1, :width]
        c = sums[row + 2, :width]
        d = sums[row + 3, :width]
        e = sums[row + 4, :width]
        f = sums[row + 5, :width]
        target = out[row, :width]
        for col in range(width):
            v = _six_tap(a[col], b[col], c[col], d[col], e[col], f[col])
            target[col] = _clip(np.int32(np.int32(v + np.int32(512)) >> np.int32(10)), top)


@nb.njit(cache=True, nogil=True)
def h264_luma(source, y, x, fy, fx, height, width, top, out, extra, sums):  # type: ignore[no-untyped-def]
    """Luma sample interpolation, fractions in quarters (Rec. ITU-T H.264, 8.4.2.2.1, Table 8-12).

    ``extra`` is scratch like ``out``; ``sums`` int32 scratch of height + 5 rows.
    """
    if fx == 0 and fy == 0:
        copy(source, y, x, height, width, out)
        return
    if fy == 0:
        _h264_horizontal(source, y, x, height, width, top, out)
        if fx != 2:
            copy(source, y, x + (fx >> 1), height, width, extra)
            average(out, extra, height, width, out)
        return
    if fx == 0:
        _h264_vertical(source, y, x, height, width, top, out)
        if fy != 2:
            copy(source, y + (fy >> 1), x, height, width, extra)
            average(out, extra, height, width, out)
        return
    if fx == 2 or fy == 2:
        _h264_centre(source, y, x, height, width, top, out, sums)
        if fy != 2:
            _h264_horizontal(source, y + (fy >> 1), x, height, width, top, extra)
            average(out, extra, height, width, out)
        elif fx != 2:
            _h264_vertical(source, y, x + (fx >> 1), height, width, top, extra)
            average(out, extra, height, width, out)
        return
    _h264_horizontal(source, y + (fy >> 1), x, height, width, top, out)
    _h264_vertical(source, y, x + (fx >> 1), height, width, top, extra)
    average(out, extra, height, width, out)


@nb.njit(cache=True, nogil=True)
def h264_chroma(source, y, x, fy, fx, height, width, out):  # type: ignore[no-untyped-def]
    """Chroma sample interpolation, fractions in eighths (Rec. ITU-T H.264, 8.4.2.2.2, 8-270)."""
    if fx == 0 and fy == 0:
        copy(source, y, x, height, width, out)
        return
    a = np.int32((8 - fx) * (8 - fy))
    b = np.int32(fx * (8 - fy))
    c = np.int32((8 - fx) * fy)
    d = np.int32(fx * fy)
    right = 1 if fx else 0
    below = 1 if fy else 0
    for row in range(height):
        s = source[y + row, x : x + width]
        s_right = source[y + row, x + right : x + right + width]
        t = source[y + row + below, x : x + width]
        t_right = source[y + row + below, x + right : x + right + width]
        target = out[row, :width]
        for col in range(width):
            v = np.int32(
                a * np.int32(s[col])
                + b * np.int32(s_right[col])
                + c * np.int32(t[col])
                + d * np.int32(t_right[col])
                + np.int32(32)
            )
            target[col] = v >> np.int32(6)


@nb.njit(cache=True, nogil=True)
def half_sample(source, y, x, fy, fx, height, width, rounding, out):  # type: ignore[no-untyped-def]
    """Half-sample prediction by averaging (ISO/IEC 13818-2, 7.6.4; 14496-2, 7.6.2.1; H.263, 6.1.2).

    ``rounding`` is vop_rounding_type (RTYPE in H.263), 0 in MPEG-1 and MPEG-2.
    """
    if fx == 0 and fy == 0:
        copy(source, y, x, height, width, out)
        return
    if fx and fy:
        bias = np.int32(2 - rounding)
        for row in range(height):
            s = source[y + row, x : x + width + 1]
            t = source[y + row + 1, x : x + width + 1]
            target = out[row, :width]
            for col in range(width):
                v = np.int32(s[col]) + np.int32(s[col + 1]) + np.int32(t[col]) + np.int32(t[col + 1])
                target[col] = np.int32(v + bias) >> np.int32(2)
        return
    bias = np.int32(1 - rounding)
    for row in range(height):
        s = source[y + row, x : x + width]
        t = source[y + row + fy, x + fx : x + fx + width]
        target = out[row, :width]
        for col in range(width):
            target[col] = np.int32(np.int32(s[col]) + np.int32(t[col]) + bias) >> np.int32(1)


@nb.njit(cache=True, nogil=True, inline="always")
def _mirror(index, last):  # type: ignore[no-untyped-def]
    if index < 0:
        return -1 - index
    if index > last:
        return 2 * last + 1 - index
    return index


@nb.njit(cache=True, nogil=True, inline="always")
def _eight_tap(a, b, c, d, e, f, g, h, bias):  # type: ignore[no-untyped-def]
    total = 20 * (d + e) - 6 * (c + f) + 3 * (b + g) - (a + h)
    return min(max((total + bias) >> 5, 0), 255)


@nb.njit(cache=True, nogil=True)
def mpeg4_quarter(source, y, x, fy, fx, height, width, rounding, out, lines):  # type: ignore[no-untyped-def]
    """Quarter-sample prediction of MPEG-4 part 2, 8 bit (ISO/IEC 14496-2, 7.6.2.2).

    The eight taps (-1, 3, -6, 20, 20, -6, 3, -1) / 32 see the block's own (height + 1) x (width + 1) samples
    only, mirrored at its edges; a quarter sample is the mean of a half and a whole sample, first along rows, then
    along columns. ``lines`` is int32 scratch of height + 1 rows.
    """
    bias = 16 - rounding
    mean_bias = 1 - rounding
    rows = height + (1 if fy else 0)
    for row in range(rows):
        s = source[y + row]
        for col in range(width):
            whole = np.int64(s[x + col + (1 if fx == 3 else 0)])
            if fx == 0:
                lines[row, col] = whole
                continue
            half = _eight_tap(
                np.int64(s[x + _mirror(col - 3, width)]),
                np.int64(s[x + _mirror(col - 2, width)]),
                np.int64(s[x + _mirror(col - 1, width)]),
                np.int64(s[x + col]),
                np.int64(s[x + col + 1]),
                np.int64(s[x + _mirror(col + 2, width)]),
                np.int64(s[x + _mirror(col + 3, width)]),
                np.int64(s[x + _mirror(col + 4, width)]),
                bias,
            )
            lines[row, col] = half if fx == 2 else (half + whole + mean_bias) >> 1
    for row in range(height):
        for col in range(width):
            whole = np.int64(lines[row + (1 if fy == 3 else 0), col])
            if fy == 0:
                out[row, col] = whole
                continue
            half = _eight_tap(
                np.int64(lines[_mirror(row - 3, height), col]),
                np.int64(lines[_mirror(row - 2, height), col]),
                np.int64(lines[_mirror(row - 1, height), col]),
                np.int64(lines[row, col]),
                np.int64(lines[row + 1, col]),
                np.int64(lines[_mirror(row + 2, height), col]),
                np.int64(lines[_mirror(row + 3, height), col]),
                np.int64(lines[_mirror(row + 4, height), col]),
                bias,
            )
            out[row, col] = half if fy == 2 else (half + whole + mean_bias) >> 1
