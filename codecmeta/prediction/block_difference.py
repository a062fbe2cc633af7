"""Difference between a block and its prediction, compiled.

``current`` is (address, row length) of a plane, ``area`` the part (y, x, height, width) of a block inside the
picture, ``points`` and ``weights`` as in `codecmeta.simd.block_rows`. Blocks that the picture's edge cuts to an odd
size are processed sample by sample, all others four rows at a time.
"""

from __future__ import annotations

import numpy as np

from codecmeta.simd.block_rows import (
    error_8,
    error_16,
    sample_at,
    size_of,
    subtract_4,
    subtract_8,
    subtract_16,
    weighted_error_8,
    weighted_error_16,
    weighted_subtract_4,
    weighted_subtract_8,
    weighted_subtract_16,
)
from codecmeta.simd.borrowed_array import borrow_at
from codecmeta.simd.numba_cache import kernel
from codecmeta.simd.vector_ir import ROWS


@kernel(_nrt=False, forceinline=True)
def is_mean(weights):
    """Return whether a weighted sum is the plain mean."""
    return weights[0] == 32 and weights[1] == 32 and weights[2] == 6 and weights[3] == 0


@kernel(_nrt=False, forceinline=True)
def _down(points, step):
    return points[0] + step, points[1] + step, points[2] + step, points[3] + step


@kernel(_nrt=False)
def _predicted_sample(kind, points, ahead, weights):
    a0, b0, a1, b1 = _down(points, ahead)
    first = (sample_at(kind, a0) + sample_at(kind, b0) + 1) >> 1
    second = (sample_at(kind, a1) + sample_at(kind, b1) + 1) >> 1
    if is_mean(weights):
        return (first + second + 1) >> 1
    w0, w1, shift, offset, top = weights
    return min(max(((w0 * first + w1 * second + ((1 << shift) >> 1)) >> shift) + offset, 0), top)


@kernel(_nrt=False)
def _error_of_part(kind, current, area, points, stride, weights, bound):
    at, row_length = current
    item = size_of(kind)
    total = np.int64(0)
    for row in range(area[2]):
        for col in range(area[3]):
            sample = _predicted_sample(kind, points, (row * stride + col) * item, weights)
            total += (sample_at(kind, at + (row * row_length + col) * item) - sample) ** 2
    return min(total, bound)


@kernel(_nrt=False)
def _error_of_weighted(kind, current, height, width, points, stride, weights, bound):
    at, row_length = current
    total = np.int64(0)
    for row in range(0, height, ROWS):
        lines = (at + row * row_length * size_of(kind), row_length)
        here = _down(points, row * stride * size_of(kind))
        if width == 16:
            total += weighted_error_16(kind, lines, here, stride, weights)
        else:
            total += weighted_error_8(kind, lines, here, stride, weights)
        if total >= bound:
            return bound
    return total


@kernel(_nrt=False)
def _error_of_mean(kind, current, height, width, points, stride, bound):
    at, row_length = current
    total = np.int64(0)
    step, step_here = ROWS * row_length * size_of(kind), ROWS * stride * size_of(kind)
    for _ in range(0, height, ROWS):
        if width == 16:
            total += error_16(kind, (at, row_length), points, stride)
        else:
            total += error_8(kind, (at, row_length), points, stride)
        if total >= bound:
            return bound
        at += step
        points = _down(points, step_here)
    return total


@kernel(_nrt=False, forceinline=True)
def error_of(kind, current, area, points, stride, weights, bound):
    """Return the sum of squared differences from a prediction, or ``bound`` once it is reached."""
    y, x, height, width = area
    samples = (current[0] + (y * current[1] + x) * size_of(kind), current[1])
    if height % ROWS or (width != 16 and width != 8):
        return _error_of_part(kind, samples, area, points, stride, weights, bound)
    if is_mean(weights):
        return _error_of_mean(kind, samples, height, width, points, stride, bound)
    return _error_of_weighted(kind, samples, height, width, points, stride, weights, bound)


@kernel(_nrt=False)
def subtract(kind, current, area, points, stride, weights, limit, out):
    """Store the residual of a block, with 0 in its 4x4 blocks whose sum of squares is below ``limit``.

    Args:
        kind: number of the sample type.
        current: the picture.
        area: the part of the block inside it.
        points: the prediction.
        stride: its row length.
        weights: of its parts.
        limit: dead zone, a float64; for a 4x4 block that the picture's edge cuts, the same mean square applies.
        out: (address, row length) of an int16 plane as large as the picture.

    Returns:
        Whether any of it is not 0.
    """
    address, row_length = current
    y, x, height, width = area
    item = size_of(kind)
    at, to = address + (y * row_length + x) * item, out[0] + (y * out[1] + x) * 2
    coded = np.int64(0)
    if height % ROWS or (width != 16 and width != 8 and width != 4):
        for top in range(0, height, 4):
            for left in range(0, width, 4):
                part = (min(4, height - top), min(4, width - left))
                samples = (at + (top * row_length + left) * item, row_length)
                here = _down(points, (top * stride + left) * item)
                target = (to + (top * out[1] + left) * 2, out[1])
                coded |= _subtract_part(kind, samples, part, here, stride, weights, limit, target)
        return coded != 0
    least = np.int64(np.ceil(limit))
    mean = is_mean(weights)
    for row in range(0, height, ROWS):
        lines, here = (at + row * row_length * item, row_length), _down(points, row * stride * item)
        target = (to + row * out[1] * 2, out[1])
        if mean:
            if width == 16:
                coded |= subtract_16(kind, lines, here, stride, target, least)
            elif width == 8:
                coded |= subtract_8(kind, lines, here, stride, target, least)
            else:
                coded |= subtract_4(kind, lines, here, stride, target, least)
        elif width == 16:
            coded |= weighted_subtract_16(kind, lines, here, stride, target, least, weights)
        elif width == 8:
            coded |= weighted_subtract_8(kind, lines, here, stride, target, least, weights)
        else:
            coded |= weighted_subtract_4(kind, lines, here, stride, target, least, weights)
    return coded != 0


@kernel(_nrt=False)
def _subtract_part(kind, current, part, points, stride, weights, limit, out):
    height, width = part
    item = size_of(kind)
    target = borrow_at(np.uintp(out[0]), _INT16)
    total = np.int64(0)
    for row in range(height):
        for col in range(width):
            sample = sample_at(kind, current[0] + (row * current[1] + col) * item)
            r = sample - _predicted_sample(kind, points, (row * stride + col) * item, weights)
            target[row * out[1] + col] = r
            total += r * r
    if total * 16 < limit * (height * width):
        for row in range(height):
            for col in range(width):
                target[row * out[1] + col] = 0
        return np.int64(0)
    return np.int64(total != 0)


_INT16 = np.zeros(1, np.int16)
