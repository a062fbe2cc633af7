"""Compiled kernels for block means and extremes of a picture's coded blocks; see moments.py."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.slice_bits import leading_zeros, set_bits
from codecmeta.h264.transform import block_place
from codecmeta.record.energy_kernels import standardise
from codecmeta.simd.block_sums import block_extremes, run_sums
from codecmeta.simd.numba_compile import compiled, entry, inlined


@entry
def fill_moments(mbs, samples, geometry, coded, room, moments):
    """Fill the moments, the first half of `measure`."""
    _measure_cells(mbs, samples, geometry, coded, room[0], moments)


@entry
def measure(mbs, samples, geometry, coded, room, moments, energy, extent):
    """Fill block means and extremes of a picture.

    Args:
        mbs: array of `MACROBLOCK`.
        samples: int16, the coded blocks.
        geometry: height and width in luma samples, width in macroblocks, cell size, chroma shifts (down, across),
            whether there is chroma.
        coded: int64 (macroblocks, 4), scratch memory for facts about the coded macroblocks.
        room: int64 (3, 256), scratch memory for one macroblock.
        moments: float32 (2, 3, rows, columns), zero; block means of r² and r, written where blocks are coded.
        energy: float32 (rows, columns), written.
        extent: float32 (2,), written.
    """
    height, width, _width_mbs, _block, down, across, chroma = geometry
    count, totals = _measure_cells(mbs, samples, geometry, coded, room[0], moments)
    chroma_count = (-(-height >> down)) * (-(-width >> across)) if chroma else 0
    mean_y, weight_y = standardise(totals[0], totals[1], height * width)
    mean_cb, weight_cb = standardise(totals[2], totals[3], chroma_count)
    mean_cr, weight_cr = standardise(totals[4], totals[5], chroma_count)
    means, weights = (mean_y, mean_cb, mean_cr), (weight_y, weight_cb, weight_cr)
    cells = energy.reshape(-1)
    plane = cells.size
    flat = moments.reshape(-1)
    _combine(flat[: 3 * plane], flat[3 * plane :], means, weights, cells)
    shown = (-(-height // 16)) * (-(-width // 16))
    _find_extremes(mbs, samples, geometry, coded[:count], shown, room, means, weights, energy, extent)


@compiled
def _combine(power, mean, means, weights, energy):
    """Compute the energy of all cells: the mean of w (r - m)² is w (power - 2 m mean + m²)."""
    n = energy.size
    constant = 0.0
    for c in range(3):
        constant += weights[c] * means[c] * means[c]
    w0, w1, w2 = weights
    d0, d1, d2 = 2.0 * means[0] * w0, 2.0 * means[1] * w1, 2.0 * means[2] * w2
    y_power, cb_power, cr_power = power[:n], power[n : 2 * n], power[2 * n :]
    y_mean, cb_mean, cr_mean = mean[:n], mean[n : 2 * n], mean[2 * n :]
    for i in range(n):
        total = constant + w0 * y_power[i] - d0 * y_mean[i]
        total += w1 * cb_power[i] - d1 * cb_mean[i]
        energy[i] = total + (w2 * cr_power[i] - d2 * cr_mean[i])


@compiled
def _measure_cells(mbs, samples, geometry, found, sums, moments):
    """Fill block means of r and r² of all cells with coded blocks.

    Returns:
        Number of coded macroblocks of the picture: `found` gets their address, and the largest r² of each channel. Sum
            and sum
        of squares of each channel in turn.
    """
    height, width, width_mbs, block, down, across, chroma = geometry
    t0, q0, t1, q1, t2, q2 = 0, 0, 0, 0, 0, 0
    count = 0
    run_y = 4 if block == 8 else 1
    run_c = (0 if block >> across < 4 else 1) if down and across else 0 if down or across else run_y
    row, column = 0, -1
    for mb in range(mbs.size):
        column += 1
        if column == width_mbs:
            row, column = row + 1, 0
        m = mbs[mb]
        if m.coded[0] | m.coded[1] | m.coded[2] == 0 or 16 * row >= height or 16 * column >= width:
            continue
        inside = 16 * row + 16 <= height and 16 * column + 16 <= width
        found[count, 0] = mb
        for plane in range(3 if chroma else 1):
            total, square, peak = 0, 0, 0
            run = run_c if plane else run_y
            if m.coded[plane]:
                if inside and run:
                    total, square, peak = _measure_runs(m, samples, plane, row, column, block, run, moments)
                else:
                    total, square, peak = _measure_part(m, samples, plane, row, column, geometry, sums, moments)
            found[count, 1 + plane] = peak
            if plane == 0:
                t0 += total
                q0 += square
            elif plane == 1:
                t1 += total
                q1 += square
            else:
                t2 += total
                q2 += square
        count += 1
    return count, (t0, q0, t1, q1, t2, q2)


@compiled
def _measure_runs(m, samples, plane, row, column, block, run, moments):
    """Measure a plane of a macroblock wholly inside the picture, whose cells are runs of 1 or 4 consecutive blocks.

    Returns:
        Sum, sum of squares, and the largest square.
    """
    total, square, peak = np.int64(0), np.int64(0), np.int64(0)
    coded = np.uint64(m.coded[plane])
    base = np.int64(m.first[plane])
    per_side = 16 // block
    scale = 1.0 / (16 * run)
    mask = np.uint64((1 << run) - 1)
    cell = 0
    while coded:
        blocks = np.int64(set_bits(coded & mask))
        if blocks:
            cell_sum, cell_square, cell_peak = run_sums(samples, base, blocks)
            base += 16 * blocks
            x, y = block_place(cell, per_side)
            moments[0, plane, row * per_side + y, column * per_side + x] = cell_square * scale
            moments[1, plane, row * per_side + y, column * per_side + x] = cell_sum * scale
            total += cell_sum
            square += cell_square
            peak = max(peak, cell_peak)
        coded >>= np.uint64(run)
        cell += 1
    return total, square, peak


@compiled
def _measure_part(m, samples, plane, row, column, geometry, sums, moments):
    """Measure a plane of any macroblock, counting only samples inside the picture.

    Returns:
        Sum, sum of squares, and the largest square.
    """
    height, width, _width_mbs, block, down, across, _chroma = geometry
    shift_y, shift_x = (down, across) if plane else (0, 0)
    cell_h, cell_w = block >> shift_y, block >> shift_x
    down_to, across_to = (2 if block == 4 else 3) - shift_y, (2 if block == 4 else 3) - shift_x
    per_side = 16 // block
    inside_h = min(16 >> shift_y, -(-(height - 16 * row) >> shift_y))
    inside_w = min(16 >> shift_x, -(-(width - 16 * column) >> shift_x))
    for i in range(2 * per_side * per_side):
        sums[i] = 0
    peak = np.int64(0)
    coded = np.int64(m.coded[plane])
    base = np.int64(m.first[plane])
    while coded:
        b = 63 - np.int64(leading_zeros(np.uint64(coded & -coded)))
        coded &= coded - 1
        bx, by = block_place(b, 4 >> shift_x)
        if by * 4 + 4 <= inside_h and bx * 4 + 4 <= inside_w and cell_h >= 4 and cell_w >= 4:
            cell = (by * 4 >> down_to) * per_side + (bx * 4 >> across_to)
            block_sum, block_square, block_peak = run_sums(samples, base, 1)
            sums[2 * cell] += block_sum
            sums[2 * cell + 1] += block_square
            peak = max(peak, block_peak)
            base += 16
            continue
        for i in range(16):
            dy, dx = by * 4 + (i >> 2), bx * 4 + (i & 3)
            if dy < inside_h and dx < inside_w:
                r = np.int64(samples[base + i])
                cell = (dy >> down_to) * per_side + (dx >> across_to)
                sums[2 * cell] += r
                sums[2 * cell + 1] += r * r
                peak = max(peak, r * r)
        base += 16
    total = np.int64(0)
    square = np.int64(0)
    for y in range(per_side):
        for x in range(per_side):
            n = max(min(cell_h, inside_h - y * cell_h), 0) * max(min(cell_w, inside_w - x * cell_w), 0)
            if n:
                cell = y * per_side + x
                moments[0, plane, row * per_side + y, column * per_side + x] = sums[2 * cell + 1] / n
                moments[1, plane, row * per_side + y, column * per_side + x] = sums[2 * cell] / n
                total += sums[2 * cell]
                square += sums[2 * cell + 1]
    return total, square, peak


@inlined
def _term(r, mean, weight):
    d = r - mean
    return weight * d * d


@inlined
def _bound(found, constant, slopes):
    """Bound the energy of the macroblock's samples from above; see `_find_extremes`."""
    return constant + slopes[0] * found[1] + slopes[1] * found[2] + slopes[2] * found[3]


@compiled
def _close_bound(m, samples, means, weights):
    """Bound the energy more tightly, from the extremes of each channel."""
    total = 0.0
    for c in range(3):
        low, high = np.int64(0), np.int64(0)
        coded = np.int64(m.coded[c])
        base = np.int64(m.first[c])
        while coded:
            coded &= coded - 1
            least, most = block_extremes(samples, base)
            base += 16
            low, high = min(low, least), max(high, most)
        total += max(_term(low, means[c], weights[c]), _term(high, means[c], weights[c]))
    return total


@compiled
def _find_extremes(mbs, samples, geometry, found, shown, room, means, weights, energy, extent):
    """Find the extremes of E over all samples, and the energy of cells at odd edges of subsampled chroma."""
    height, width, width_mbs, _block, down, across, _chroma = geometry
    lowest = 0.0
    constant = 0.0
    for c in range(3):
        lowest += _term(np.rint(means[c]), means[c], weights[c])
        constant += weights[c] * (abs(means[c]) + means[c] * means[c])
    # w (r - m)^2 <= w ((1 + |m|) r^2 + |m| + m^2), and r^2 is at most what was found; slightly more for rounding
    slopes = (
        weights[0] * (1.000001 + abs(means[0])),
        weights[1] * (1.000001 + abs(means[1])),
        weights[2] * (1.000001 + abs(means[2])),
    )
    low, high = np.inf, -np.inf
    if found.shape[0] < shown:
        low = _term(0, means[0], weights[0]) + _term(0, means[1], weights[1]) + _term(0, means[2], weights[2])
        high = low
    odd = (down and height & 1) or (across and width & 1)
    top, top_bound = -1, -1.0
    for i in range(found.shape[0]):
        mb = found[i, 0]
        if odd and (mb // width_mbs * 16 + 16 >= height or mb % width_mbs * 16 + 16 >= width):
            # a chroma sample at an odd edge covers fewer luma samples than the others
            low, high = _scan(mbs, samples, geometry, room, mb, means, weights, energy, True, low, high)
        bound = _bound(found[i], constant, slopes)
        if bound > top_bound:
            top, top_bound = mb, bound
    if top >= 0:
        low, high = _scan(mbs, samples, geometry, room, top, means, weights, energy, False, low, high)
    for i in range(found.shape[0]):
        if top_bound <= high:
            break
        if _bound(found[i], constant, slopes) <= high:
            continue
        mb = found[i, 0]
        if _close_bound(mbs[mb], samples, means, weights) > high:
            low, high = _scan(mbs, samples, geometry, room, mb, means, weights, energy, False, low, high)
    for i in range(found.shape[0]):
        # rarely needed: a sample that is not coded mostly has the lowest possible energy
        if low <= lowest:
            break
        low, high = _scan(mbs, samples, geometry, room, found[i, 0], means, weights, energy, False, low, high)
    extent[0] = low
    extent[1] = high


@compiled
def _scan(mbs, samples, geometry, room, mb, means, weights, energy, store, low, high):
    """Widen the extremes `low`, `high` by the samples of one macroblock; `store` its cells' energy as well."""
    height, width, width_mbs, block, down, across, chroma = geometry
    m = mbs[mb]
    for plane in range(3 if chroma else 1):
        _expand(m, samples, plane, 4 >> across if plane else 4, room)
    y0, x0 = mb // width_mbs * 16, mb % width_mbs * 16
    y1, x1 = min(y0 + 16, height), min(x0 + 16, width)
    for top in range(y0, y1, block):
        for left in range(x0, x1, block):
            bottom, right = min(top + block, y1), min(left + block, x1)
            total = 0.0
            for y in range(top, bottom):
                for x in range(left, right):
                    e = _term(room[0, (y - y0) * 16 + x - x0], means[0], weights[0])
                    if chroma:
                        at = ((y - y0) >> down) * (16 >> across) + ((x - x0) >> across)
                        e += _term(room[1, at], means[1], weights[1])
                        e += _term(room[2, at], means[2], weights[2])
                    total += e
                    low, high = min(low, e), max(high, e)
            if store:
                energy[top // block, left // block] = total / ((bottom - top) * (right - left))
    return low, high


@compiled
def _expand(m, samples, plane, columns, room):
    """Lay out a plane of the macroblock, `columns` 4x4 blocks wide, in raster order."""
    for i in range(256):
        room[plane, i] = 0
    base = np.int64(m.first[plane])
    coded = np.int64(m.coded[plane])
    while coded:
        b = 63 - np.int64(leading_zeros(np.uint64(coded & -coded)))
        coded &= coded - 1
        x, y = block_place(b, columns)
        for i in range(16):
            room[plane, (y * 4 + (i >> 2)) * columns * 4 + x * 4 + (i & 3)] = samples[base + i]
        base += 16
