"""Difference of a block and its prediction, compiled.

``current`` is (flat samples, row length) of the picture, ``area`` the part (y, x, height, width) of a block inside it.
Blocks that the picture's edge cuts to an odd size are taken sample by sample, all others in strips.
"""

from __future__ import annotations

import numpy as np

from codecmeta.interpolation import BLOCK
from codecmeta.kernels import kernel
from codecmeta.strips import (
    ROWS,
    average_error_8,
    average_error_16,
    subtract_4,
    subtract_8,
    subtract_16,
    weighted_error_8,
    weighted_error_16,
)


@kernel(_nrt=False)
def error_of_mean(current, area, points, bound):  # type: ignore[no-untyped-def]
    """Sum of squared differences to the mean of two blocks, or ``bound`` once it is reached."""
    samples, row_length = current
    y, x, height, width = area
    first, i, second, j, stride = points
    total = np.int64(0)
    if height % ROWS or (width != 16 and width != 8):
        for row in range(height):
            at, step = (y + row) * row_length + x, row * stride
            for col in range(width):
                mean = (np.int64(first[i + step + col]) + np.int64(second[j + step + col]) + 1) >> 1
                total += (np.int64(samples[at + col]) - mean) ** 2
        return min(total, bound)
    for row in range(0, height, ROWS):
        at, step = (y + row) * row_length + x, row * stride
        if width == 16:
            total += average_error_16(samples, at, row_length, first, i + step, second, j + step, stride)
        else:
            total += average_error_8(samples, at, row_length, first, i + step, second, j + step, stride)
        if total >= bound:
            return bound
    return total


@kernel(_nrt=False)
def error_of_weighted(current, area, blocks, first, second, weight, top, bound):  # type: ignore[no-untyped-def]
    """As `error_of_mean` for the weighted sum of the blocks at two places of ``blocks``."""
    samples, row_length = current
    y, x, height, width = area
    total = np.int64(0)
    if height % ROWS or (width != 16 and width != 8):
        for row in range(height):
            at, step = (y + row) * row_length + x, row * BLOCK
            for col in range(width):
                a, b = np.int64(blocks[first + step + col]), np.int64(blocks[second + step + col])
                sample = min(max(((64 - weight) * a + weight * b + 32) >> 6, 0), top)
                total += (np.int64(samples[at + col]) - sample) ** 2
        return min(total, bound)
    for row in range(0, height, ROWS):
        at, step = (y + row) * row_length + x, row * BLOCK
        a, b = first + step, second + step
        if width == 16:
            total += weighted_error_16(samples, at, row_length, blocks, a, blocks, b, np.int64(BLOCK), weight, top)
        else:
            total += weighted_error_8(samples, at, row_length, blocks, a, blocks, b, np.int64(BLOCK), weight, top)
        if total >= bound:
            return bound
    return total


@kernel(_nrt=False)
def subtract(current, area, prediction, base, limit, out, out_length):  # type: ignore[no-untyped-def]
    """Residual of a block; of its 4x4 blocks whose sum of squares is below ``limit``, 0.

    Args:
        current: the picture.
        area: the part of the block inside it.
        prediction: flat samples of the predicted block.
        base: index of the first.
        limit: dead zone, a float64; for a 4x4 block that the picture's edge cuts, the same mean square counts.
        out: flat int16 plane, as large as the picture.
        out_length: length of its rows.
    """
    samples, row_length = current
    y, x, height, width = area
    if height % ROWS or (width != 16 and width != 8 and width != 4):
        for top in range(0, height, 4):
            for left in range(0, width, 4):
                part = (y + top, x + left, min(4, height - top), min(4, width - left))
                _subtract_part(current, part, prediction, base + top * BLOCK + left, limit, out, out_length)
        return
    least = np.int64(np.ceil(limit))
    for row in range(0, height, ROWS):
        at, p, o = (y + row) * row_length + x, base + row * BLOCK, (y + row) * out_length + x
        if width == 16:
            subtract_16(samples, at, row_length, prediction, p, np.int64(BLOCK), out, o, out_length, least)
        elif width == 8:
            subtract_8(samples, at, row_length, prediction, p, np.int64(BLOCK), out, o, out_length, least)
        else:
            subtract_4(samples, at, row_length, prediction, p, np.int64(BLOCK), out, o, out_length, least)


@kernel(_nrt=False)
def _subtract_part(current, part, prediction, base, limit, out, out_length):  # type: ignore[no-untyped-def]
    samples, row_length = current
    y, x, height, width = part
    total = np.int64(0)
    for row in range(height):
        for col in range(width):
            r = np.int64(samples[(y + row) * row_length + x + col]) - np.int64(prediction[base + row * BLOCK + col])
            out[(y + row) * out_length + x + col] = r
            total += r * r
    if total * 16 < limit * (height * width):
        for row in range(height):
            for col in range(width):
                out[(y + row) * out_length + x + col] = 0
