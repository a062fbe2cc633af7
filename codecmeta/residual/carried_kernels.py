"""Compiled kernels that carry moments of 4x4 cells along motion vectors; see `codecmeta.residual.carried`."""

from __future__ import annotations

import numpy as np

from codecmeta.simd.numba_cache import kernel


@kernel(_nrt=False, inline="always")
def _source(row, col, displacement, side, rows, cols):
    """Return the index of the first of the six moments of the cell that a cell is predicted from."""
    # vectors count quarter samples, so a cell is sixteen steps; the nearest cell is taken
    y = min(max(row + ((np.int64(displacement[side, row, col, 1]) + 8) >> 4), 0), rows - 1)
    x = min(max(col + ((np.int64(displacement[side, row, col, 0]) + 8) >> 4), 0), cols - 1)
    return np.uintp((y * cols + x) * 6)


@kernel(_nrt=False)
def carry_moments(states, reference, displacement, mask, own, out):
    """Fill the moments of all cells; states, own and out are flat, six moments per cell."""
    rows, cols = reference.shape[1:]
    by_power = mask.size == 0
    half = np.float32(0.5)
    for row in range(rows):
        for col in range(cols):
            at = np.uintp((row * cols + col) * 6)
            slot0, slot1 = np.int64(reference[0, row, col]), np.int64(reference[1, row, col])
            if slot0 < 0 and slot1 < 0:
                for k in range(6):
                    out[at + np.uintp(k)] = own[at + np.uintp(k)]
                continue
            i = _source(row, col, displacement, 0 if slot0 >= 0 else 1, rows, cols)
            first = states[slot0 if slot0 >= 0 else slot1]
            if slot0 >= 0 and slot1 >= 0:
                j = _source(row, col, displacement, 1, rows, cols)
                second = states[slot1]
                for k in range(6):
                    m = np.uintp(k)
                    out[at + m] = half * first[i + m] + half * second[j + m]
            else:
                for k in range(6):
                    out[at + np.uintp(k)] = first[i + np.uintp(k)]
            for channel in range(3):
                power, mean = at + np.uintp(channel), at + np.uintp(channel + 3)
                if own[power] > 0 if by_power else mask[channel, row, col]:
                    out[power] = own[power]
                    out[mean] = own[mean]


@kernel()
def sum_channel(moments, channel, step_y, step_x, height, width):
    """Sum r and r² of a channel over the picture, of ``height`` x ``width`` samples."""
    total = 0.0
    square_total = 0.0
    for row in range(moments.shape[0]):
        tall = max(min(step_y, height - row * step_y), 0)
        for col in range(moments.shape[1]):
            area = tall * max(min(step_x, width - col * step_x), 0)
            total += area * np.float64(moments[row, col, 1, channel])
            square_total += area * np.float64(moments[row, col, 0, channel])
    return total, square_total


@kernel()
def fill_energy(moments, means, weights, height, width, side, energy, extent):
    """Fill the block means of E, and its extremes over all cells."""
    low = np.inf
    high = -np.inf
    for block_row in range(energy.shape[0]):
        for block_col in range(energy.shape[1]):
            total = 0.0
            total_area = 0
            for row in range(block_row * side, min(block_row * side + side, moments.shape[0])):
                for col in range(block_col * side, min(block_col * side + side, moments.shape[1])):
                    e = 0.0
                    for channel in range(3):
                        power = np.float64(moments[row, col, 0, channel])
                        mean = np.float64(moments[row, col, 1, channel])
                        e += weights[channel] * (power - 2.0 * mean * means[channel] + means[channel] ** 2)
                    e = max(e, 0.0)
                    area = min(4, height - 4 * row) * min(4, width - 4 * col)
                    total += area * e
                    total_area += area
                    low = min(low, e)
                    high = max(high, e)
            energy[block_row, block_col] = total / total_area
    extent[0] = low
    extent[1] = high
