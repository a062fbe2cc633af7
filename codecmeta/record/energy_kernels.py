"""Block means, extremes and energy of residual planes, compiled; see energy.py and cell_moments.py."""

from __future__ import annotations

import numpy as np

from codecmeta.simd.numba_cache import kernel

EPSILON = 1e-6
"""Added to a channel's standard deviation before dividing by it."""


@kernel()
def standardise(total, square_total, samples):
    """Return mean and weight of a channel: E gains ``weight * (r - mean)²`` for each of its samples.

    Args:
        total: sum of the channel's residual.
        square_total: sum of its squares.
        samples: number of samples, 0 for a channel that does not exist.

    Returns:
        The mean and ``1 / (std + EPSILON)²``, a weight of 0 where the channel has no variance.
    """
    if samples == 0:
        return 0.0, 0.0
    mean = total / samples
    variance = square_total / samples - mean * mean
    if variance <= 1e-12:
        return mean, 0.0
    return mean, 1.0 / (variance**0.5 + EPSILON) ** 2


_FITS = 23170
"""Largest residual whose square, eight times, fits 32 bits."""


@kernel(_nrt=False)
def _add_line(line, sums, squares, least, most):
    """Add a line of samples to the sums and extremes of its columns; sums of squares may wrap around."""
    for x in range(line.size):
        r = line[x]
        sums[x] = np.int32(sums[x] + np.int32(r))
        squares[x] = np.int32(squares[x] + np.int32(np.int32(r) * np.int32(r)))
        least[x] = min(least[x], r)
        most[x] = max(most[x], r)


@kernel(_nrt=False, inline="always")
def _fold(columns, first, last, side, height, moments, limits, row):
    """Fill block moments and extremes from those of the columns; return sums and extremes of the row of blocks.

    The number of columns per block, ``side``, must be a literal for this to become vector code.
    """
    sums, squares, least, most = columns
    samples = height * side
    total = np.int64(0)
    square_total = np.int64(0)
    lowest = np.int16(32767)
    highest = np.int16(-32768)
    for col in range(first, last):
        s = np.int32(0)
        q = np.uint64(0)
        low = np.int16(32767)
        high = np.int16(-32768)
        for k in range(side):
            x = np.uintp((col - first) * side + k)
            s = np.int32(s + sums[x])
            q += np.uint64(np.uint32(squares[x]))
            low = min(low, least[x])
            high = max(high, most[x])
        moments[0, row, col] = np.int64(q) / samples
        moments[1, row, col] = s / samples
        limits[0, row, col] = low
        limits[1, row, col] = high
        total += np.int64(s)
        square_total += np.int64(q)
        lowest = min(lowest, low)
        highest = max(highest, high)
    return total, square_total, lowest, highest


@kernel(_nrt=False)
def _measure_block(plane, y0, y1, x0, x1, moments, limits, row, col):
    """Fill moments and extremes of one block from its samples; return its sums."""
    s = np.int64(0)
    q = np.int64(0)
    low = np.int16(32767)
    high = np.int16(-32768)
    for y in range(y0, y1):
        for x in range(x0, x1):
            r = plane[y, x]
            s += np.int64(r)
            q += np.int64(r) * np.int64(r)
            low = min(low, r)
            high = max(high, r)
    samples = (y1 - y0) * (x1 - x0)
    moments[0, row, col] = q / samples
    moments[1, row, col] = s / samples
    limits[0, row, col] = low
    limits[1, row, col] = high
    return s, q


@kernel(_nrt=False)
def _block_moments(plane, block_h, block_w, coded, shift, columns, moments, limits):
    """Fill means of r² and r and extremes of r of each block; return the sums of r and r² over the plane.

    A block of a cell that is not coded is 0. ``shift`` is log2 of the blocks per cell side, ``columns`` scratch memory.
    """
    height, width = plane.shape
    whole = width // block_w
    total = np.int64(0)
    square_total = np.int64(0)
    moments[:] = 0.0
    limits[:] = 0
    for row in range(moments.shape[1]):
        y0, y1 = row * block_h, min(row * block_h + block_h, height)
        marks = coded[row >> shift]
        first = 0
        while first < moments.shape[2]:
            if marks[first >> shift] == 0:
                first += 1
                continue
            last = first + 1
            while last < whole and marks[last >> shift]:
                last += 1
            run = (y0, y1, first, last)
            if first < whole:
                s, q = _measure_run(plane, run, block_w, columns, moments, limits, row)
            else:
                s, q = _measure_block(plane, y0, y1, first * block_w, width, moments, limits, row, first)
            total += s
            square_total += q
            first = last
    return total, square_total


@kernel(_nrt=False)
def _measure_run(plane, run, block_w, columns, moments, limits, row):
    """Fill moments and extremes of a row of adjacent blocks; return their sums."""
    y0, y1, first, last = run
    sums, squares, least, most = columns
    x0, count = first * block_w, (last - first) * block_w
    sums[:count] = 0
    squares[:count] = 0
    least[:count] = 32767
    most[:count] = -32768
    for y in range(y0, y1):
        _add_line(plane[y, x0 : x0 + count], sums, squares, least, most)
    if block_w == 8:
        s, q, low, high = _fold(columns, first, last, 8, y1 - y0, moments, limits, row)
    elif block_w == 4:
        s, q, low, high = _fold(columns, first, last, 4, y1 - y0, moments, limits, row)
    else:
        s, q, low, high = _fold(columns, first, last, 2, y1 - y0, moments, limits, row)
    if low >= -_FITS and high <= _FITS:
        return s, q
    s, q = np.int64(0), np.int64(0)
    for col in range(first, last):
        left = col * block_w
        part, square_part = _measure_block(plane, y0, y1, left, left + block_w, moments, limits, row, col)
        s += part
        q += square_part
    return s, q


@kernel(_nrt=False, inline="always")
def _term(r, mean, weight):
    d = r - mean
    return weight * d * d


@kernel(_nrt=False)
def _add_channel(moments, limits, mean, weight, energy, floor, ceiling):
    """Add a channel's contribution to each block's mean of E, and to the bounds of E of its samples."""
    nearest = np.rint(mean)
    for row in range(energy.shape[0]):
        for col in range(energy.shape[1]):
            power, average = moments[0, row, col], moments[1, row, col]
            low, high = np.float64(limits[0, row, col]), np.float64(limits[1, row, col])
            energy[row, col] += weight * max(power - 2.0 * average * mean + mean * mean, 0.0)
            floor[row, col] += _term(min(max(nearest, low), high), mean, weight)
            ceiling[row, col] += max(_term(low, mean, weight), _term(high, mean, weight))


@kernel()
def reduce_planes(planes, shifts, block, coded, energy, power, mean, extent):
    """Fill the block means and the extremes of a picture."""
    luma, cb, cr = planes
    rows, cols = energy.shape
    shift = 0 if block == 8 else 1
    columns = (
        np.empty(luma.shape[1], np.int32),
        np.empty(luma.shape[1], np.int32),
        np.empty(luma.shape[1], np.int16),
        np.empty(luma.shape[1], np.int16),
    )
    moments = np.empty((2, rows, cols))
    limits = np.empty((2, rows, cols), np.int16)
    total, floor, ceiling = np.zeros((rows, cols)), np.zeros((rows, cols)), np.zeros((rows, cols))
    means = np.zeros(3)
    weights = np.zeros(3)
    for channel in range(3 if cb.size else 1):
        plane = luma if channel == 0 else cb if channel == 1 else cr
        tall, wide = (block >> shifts[0], block >> shifts[1]) if channel else (block, block)
        s, q = _block_moments(plane, tall, wide, coded[channel], shift, columns, moments, limits)
        means[channel], weights[channel] = standardise(s, q, plane.size)
        _add_channel(moments, limits, means[channel], weights[channel], total, floor, ceiling)
        power[channel] = moments[0]
        mean[channel] = moments[1]
    _find_extremes(luma, cb, cr, shifts, block, coded, means, weights, total, floor, ceiling, extent)
    energy[:] = total


@kernel(_nrt=False)
def _scan(planes, shifts, block, coded, row, col, means, weights):
    """Return mean, smallest and largest E of the samples of one block."""
    luma, cb, cr = planes
    shift_y, shift_x = shifts
    y0, x0 = row * block >> 3, col * block >> 3
    in0, in1, in2 = coded[0, y0, x0], coded[1, y0, x0], coded[2, y0, x0]
    bottom, right = min(row * block + block, luma.shape[0]), min(col * block + block, luma.shape[1])
    total = 0.0
    low = np.inf
    high = -np.inf
    for y in range(row * block, bottom):
        for x in range(col * block, right):
            e = _term(luma[y, x] if in0 else np.int16(0), means[0], weights[0])
            if cb.size:
                e += _term(cb[y >> shift_y, x >> shift_x] if in1 else np.int16(0), means[1], weights[1])
                e += _term(cr[y >> shift_y, x >> shift_x] if in2 else np.int16(0), means[2], weights[2])
            total += e
            low = min(low, e)
            high = max(high, e)
    return total / ((bottom - row * block) * (right - col * block)), low, high


@kernel(_nrt=False)
def _find_extremes(luma, cb, cr, shifts, block, coded, means, weights, energy, floor, ceiling, extent):
    """Find the smallest and largest E of the picture, from the samples of the blocks that may contain it.

    A chroma sample at an odd edge covers fewer luma samples than the others, so that blocks there also take their mean
    from the samples.
    """
    planes = (luma, cb, cr)
    rows, cols = energy.shape
    last_row = rows - 1 if cb.size and shifts[0] and luma.shape[0] & 1 else rows
    last_col = cols - 1 if cb.size and shifts[1] and luma.shape[1] & 1 else cols
    top = np.argmax(ceiling)
    _, low, high = _scan(planes, shifts, block, coded, top // cols, top % cols, means, weights)
    for row in range(rows):
        for col in range(cols):
            odd = row == last_row or col == last_col
            if odd or floor[row, col] < low or ceiling[row, col] > high:
                mean, least, most = _scan(planes, shifts, block, coded, row, col, means, weights)
                low, high = min(low, least), max(high, most)
                if odd:
                    energy[row, col] = mean
    extent[0] = low
    extent[1] = high


@kernel()
def interleave(power, mean, moments):
    """Lay out block means (3, h4, w4) as the moments of cells (h4, w4, 2, 3)."""
    for row in range(moments.shape[0]):
        for col in range(moments.shape[1]):
            for channel in range(3):
                moments[row, col, 0, channel] = power[channel, row, col]
                moments[row, col, 1, channel] = mean[channel, row, col]


@kernel()
def fill_cell_moments(plane, step_y, step_x, channel, moments):
    """Measure means of r² and r of a channel on all cells, ``step_y`` x ``step_x`` samples each."""
    height, width = plane.shape
    sums = np.empty(width, np.int32)
    squares = np.empty(width, np.int64)
    for row in range(moments.shape[0]):
        y0, y1 = min(row * step_y, height - 1), min(row * step_y + step_y, height)
        sums[:] = 0
        squares[:] = 0
        for y in range(y0, y1):
            line = plane[y]
            for x in range(width):
                r = np.int32(line[x])
                sums[x] = np.int32(sums[x] + r)
                squares[x] += np.int64(np.int32(r * r))
        for col in range(moments.shape[1]):
            x0, x1 = min(col * step_x, width - 1), min(col * step_x + step_x, width)
            total = np.int64(0)
            square_total = np.int64(0)
            for x in range(x0, x1):
                total += np.int64(sums[x])
                square_total += squares[x]
            samples = (y1 - y0) * (x1 - x0)
            moments[row, col, 0, channel] = square_total / samples
            moments[row, col, 1, channel] = total / samples
