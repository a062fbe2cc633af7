"""Inverse transforms from scaled coefficients to residual samples (Rec. ITU-T H.265, 8.6.2, 8.6.4 to 8.6.6).

The coefficients of a block are int16 at `s.coefficients`, rows 2 k and 2 k + 1 interleaved; `s.columns` and `s.rows`
are their extent. Samples beyond int16, which no conforming stream needs, saturate when they are stored.
"""

from __future__ import annotations

import numpy as np

from codecmeta.hevc.matrix_product import row_product_4, row_product_8
from codecmeta.hevc.records import bytes_at, samples_at
from codecmeta.hevc.tables import DST
from codecmeta.simd.numba_compile import compiled, inlined


@inlined
def coefficient_place(x, y, log2):
    """Return where the coefficient at (x, y) of a block is stored."""
    return (((y >> 1) << log2) + x) * 2 + (y & 1)


@inlined
def _saturate(value):
    return np.int16(min(max(value, -32768), 32767))


@inlined
def plane_width(s, plane):
    """Return the samples per row of a colour plane."""
    return s.width >> s.shift_x if plane else s.width


@compiled
def mark(s, plane, x, y, log2):
    """Mark a block as coded; clear the rest of its 8x8 luma block if nothing there was coded before."""
    marks = bytes_at(s.marks[plane], s.mark_count)
    across, down = (3 - s.shift_x, 3 - s.shift_y) if plane else (3, 3)
    first_column, last_column = x >> across, (x + (1 << log2) - 1) >> across
    first_row, last_row = y >> down, (y + (1 << log2) - 1) >> down
    if log2 < across or log2 < down:
        at = first_row * s.width_marks + first_column
        if marks[at] == 0:
            samples = samples_at(s.plane[plane], s.plane_size[plane])
            stride = plane_width(s, plane)
            place = (first_row << down) * stride + (first_column << across)
            for _ in range(1 << down):
                samples[place : place + (1 << across)] = 0
                place += stride
    for row in range(first_row, last_row + 1):
        for column in range(first_column, last_column + 1):
            marks[row * s.width_marks + column] = 1


@compiled
def clear_coefficients(s, log2):
    """Reset the coefficients to 0."""
    coefficients = samples_at(s.coefficients, 1024)
    for pair in range((s.rows + 1) >> 1):
        at = pair << (log2 + 1)
        coefficients[at : at + 2 * s.columns] = 0


@compiled
def inverse_transform(s, plane, x, y, log2, matrix):
    """Transform a block (8.6.4.2), round, and store its samples.

    Args:
        matrix: index among the transform matrices, log2 - 1 or `DST`.
    """
    stride = plane_width(s, plane)
    at = y * stride + x
    size = 1 << log2
    shift = 20 - s.depth
    rounding = np.int64(1) << (shift - 1)
    if s.columns == 1 and s.rows == 1 and matrix != DST:
        samples = samples_at(s.plane[plane], s.plane_size[plane])
        coefficients = samples_at(s.coefficients, 1024)
        half = min(max((64 * np.int64(coefficients[0]) + 64) >> 7, -32768), 32767)
        value = _saturate((64 * half + rounding) >> shift)
        for _ in range(size):
            samples[at : at + size] = value
            at += stride
        coefficients[0] = 0
        return
    target = s.plane[plane] + 2 * at
    row_pairs, column_pairs = (s.rows + 1) >> 1, (s.columns + 1) >> 1
    first = s.matrix_columns + 2048 * matrix
    second = s.matrix_pairs + 2048 * matrix
    half = s.half
    if log2 == 2:
        for _ in range(4):
            row_product_4(first, s.coefficients, 16, row_pairs, 64, 7, half)
            row_product_4(half, second, 128, column_pairs, rounding, shift, target)
            first += 64
            target += 2 * stride
    else:
        for _ in range(size):
            for column in range(0, s.columns, 8):
                row_product_8(first, s.coefficients + 4 * column, 4 << log2, row_pairs, 64, 7, half + 2 * column)
            for column in range(0, size, 8):
                row_product_8(half, second + 4 * column, 128, column_pairs, rounding, shift, target + 2 * column)
            first += 64
            target += 2 * stride
    clear_coefficients(s, log2)


@compiled
def expand(s, t, log2, matrix):
    """Compute the residual of a block as int32 in `s.block`, however it is coded; clear the coefficients.

    Args:
        matrix: index among the transform matrices, log2 - 1 or `DST`.
    """
    coefficients = samples_at(s.coefficients, 1024)
    size = 1 << log2
    shift = 20 - s.depth
    rounding = np.int64(1) << (shift - 1)
    block = s.block
    if s.bypass or s.transform_skip:
        rotated = s.rotation != 0 and s.intra != 0 and log2 == 2
        for y in range(size):
            for x in range(size):
                value = np.int64(coefficients[coefficient_place(x, y, log2)])
                if not s.bypass:
                    value = ((value << (5 + log2)) + rounding) >> shift
                at = (y << log2) + x
                block[15 - at if rotated else at] = value
        if s.rdpcm:
            _accumulate(s, log2)
    else:
        for y in range(size):
            for x in range(s.columns):
                total = np.int64(0)
                for k in range(s.rows):
                    total += np.int64(t.matrix[matrix, k, y]) * coefficients[coefficient_place(x, k, log2)]
                s.scratch[(y << log2) + x] = min(max((total + 64) >> 7, -32768), 32767)
        for y in range(size):
            for x in range(size):
                total = rounding
                for k in range(s.columns):
                    total += np.int64(t.matrix[matrix, k, x]) * s.scratch[(y << log2) + k]
                block[(y << log2) + x] = total >> shift
    clear_coefficients(s, log2)


@compiled
def _accumulate(s, log2):
    """Apply the residual modification of RDPCM (8.6.5, 8.6.8): each sample accumulates those before it."""
    size = 1 << log2
    step = 1 if s.rdpcm == 1 else size
    for y in range(size):
        for x in range(size):
            if (x if s.rdpcm == 1 else y) > 0:
                at = (y << log2) + x
                s.block[at] += s.block[at - step]


@compiled
def store(s, plane, x, y, log2):
    """Store `s.block` among the samples of a plane."""
    samples = samples_at(s.plane[plane], s.plane_size[plane])
    stride = plane_width(s, plane)
    size = 1 << log2
    for row in range(size):
        at = (y + row) * stride + x
        for column in range(size):
            samples[at + column] = _saturate(s.block[(row << log2) + column])
