"""Difference of a block and its prediction, compiled; the tuples are those of `selection`."""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def squared_error(plane, size, area, prediction, bound):  # type: ignore[no-untyped-def]
    """Sum of squared differences over ``area``, or ``bound`` once it is reached."""
    y, x, height, width = area
    samples, start, stride = prediction
    total = np.int64(0)
    for row in range(height):
        a = np.uintp((y + row) * size[1] + x)
        b = np.uintp(start + row * stride)
        line = np.int32(0)
        for col in range(width):
            d = np.int32(np.int32(plane[a + np.uintp(col)]) - np.int32(samples[b + np.uintp(col)]))
            line = np.int32(line + np.int32(d * d))
        total += np.int64(np.uint32(line))  # sixteen squares of 14 bits just fit
        if row & 3 == 3 and total >= bound:
            return bound
    return min(total, bound)


@nb.njit(cache=True, nogil=True)
def subtract(plane, size, area, prediction, limit, columns, out, squares):  # type: ignore[no-untyped-def]
    """Residual of a block; its 4x4 blocks whose sum of squares is below ``limit`` are left at 0.

    Squares are summed over ``columns`` to keep the loop vectorised, also over those beyond the block where the plane
    goes on; nothing is made of them.
    """
    y, x, height, width = area
    samples, start, stride = prediction
    if start + height * stride + columns > len(samples) or (y + height) * size[1] + columns > len(plane):
        columns = width
    for top in range(0, height, 4):
        rows = min(4, height - top)
        if limit > 0.0:
            for col in range(columns):
                squares[np.uintp(col)] = 0
            for row in range(top, top + rows):
                a = np.uintp((y + row) * size[1] + x)
                b = np.uintp(start + row * stride)
                for col in range(columns):
                    i = np.uintp(col)
                    d = np.int32(np.int32(plane[a + i]) - np.int32(samples[b + i]))
                    squares[i] = np.int32(squares[i] + np.int32(d * d))
        for left in range(0, width, 4):
            cols = min(4, width - left)
            if limit > 0.0:
                total = np.int64(0)
                for col in range(left, left + cols):
                    total += np.int64(squares[np.uintp(col)])
                if total * 16 < limit * (rows * cols):
                    continue
            elif left:
                continue
            else:
                cols = width
            for row in range(top, top + rows):
                a = np.uintp((y + row) * size[1] + x + left)
                b = np.uintp(start + row * stride + left)
                for col in range(cols):
                    i = np.uintp(col)
                    out[a + i] = np.int32(np.int32(plane[a + i]) - np.int32(samples[b + i]))
