"""Block means of the residual from the coded blocks alone, without making planes of it.

The result is that of `codecmeta.energy.measure_energy` on the planes. Two facts save the work on everything that is
not coded: a cell (b x b luma samples and the chroma that goes with them) without coded blocks has the energy of a zero
residual; and the energy of any sample of a macroblock is bounded by the extremes of its channels, so that only
macroblocks which may hold the picture's extremes are looked at sample by sample.
"""

from __future__ import annotations

import numpy as np

from codecmeta.energy import BlockEnergy, standardisation
from codecmeta.h264.bits import leading_zeros
from codecmeta.h264.compiled import compiled, entry, inlined
from codecmeta.h264.parameter_sets import SequenceParameters
from codecmeta.h264.picture import Buffers
from codecmeta.h264.transform import block_place
from codecmeta.h264.vectors import block_extremes, block_sums

_standardisation = compiled(standardisation)


def measure_blocks(buffers: Buffers, sequence: SequenceParameters, *, block: int) -> BlockEnergy:
    """Reduce the coded blocks of a progressive frame to block means.

    Args:
        buffers: the frame's macroblocks and samples.
        sequence: its geometry; nothing may be cropped at the top or left.
        block: luma samples per block side, 4 or 8.
    """
    height, width = sequence.display_size
    rows, columns = -(-height // block), -(-width // block)
    power, mean = np.zeros((2, 3, rows, columns), np.float32)
    energy = np.empty((rows, columns), np.float32)
    extent = np.empty(2, np.float32)
    v, u = sequence.subsampling
    chroma = int(sequence.chroma_format_idc != 0)
    geometry = (height, width, sequence.width_mbs, block, v - 1, u - 1, chroma)
    room = np.empty((16, 2), np.int64), np.empty((3, 256), np.int64)
    measure(buffers.macroblocks, buffers.samples, geometry, room, power, mean, energy, extent)
    return BlockEnergy(energy=energy, power=power, mean=mean, range=extent)


@entry
def measure(mbs, samples, geometry, room, power, mean, energy, extent):  # type: ignore[no-untyped-def]
    """Block means and extremes of a picture.

    Args:
        mbs: array of `MACROBLOCK`.
        samples: int16, the coded blocks.
        geometry: height and width in luma samples, width in macroblocks, cell size, chroma shifts (down, across),
            whether there is chroma.
        room: int64 (16, 2) and (3, 256), for one macroblock.
        power, mean: float32 (3, rows, columns), zero; written where something is coded.
        energy: float32 (rows, columns), written.
        extent: float32 (2,), written.
    """
    height, width, _width_mbs, _block, down, across, chroma = geometry
    totals = _measure_cells(mbs, samples, geometry, room[0], power, mean)
    chroma_count = (-(-height >> down)) * (-(-width >> across)) if chroma else 0
    mean_y, weight_y = _standardisation(totals[0], totals[1], height * width)
    mean_cb, weight_cb = _standardisation(totals[2], totals[3], chroma_count)
    mean_cr, weight_cr = _standardisation(totals[4], totals[5], chroma_count)
    means, weights = (mean_y, mean_cb, mean_cr), (weight_y, weight_cb, weight_cr)
    _combine_cells(mbs, samples, geometry, room[1], power, mean, means, weights, energy, extent)


@compiled
def _measure_cells(mbs, samples, geometry, sums, power, mean):  # type: ignore[no-untyped-def]
    """Block means of r and r² of all cells with coded blocks.

    Returns:
        Sum and sum of squares of each channel in turn. Every coded macroblock gets its `peak`.
    """
    height, width, width_mbs, block, down, across, _chroma = geometry
    t0, q0, t1, q1, t2, q2 = 0, 0, 0, 0, 0, 0
    for mb in range(mbs.size):
        m = mbs[mb]
        if m.coded[0] | m.coded[1] | m.coded[2] == 0:
            continue
        row, column = mb // width_mbs, mb % width_mbs
        for plane in range(3):
            m.peak[plane] = 0
            if m.coded[plane] == 0:
                continue
            shift_y, shift_x = (down, across) if plane else (0, 0)
            total, square = _measure_plane(
                m, samples, plane, row, column, height, width, block, shift_y, shift_x, sums, power, mean
            )
            if plane == 0:
                t0 += total
                q0 += square
            elif plane == 1:
                t1 += total
                q1 += square
            else:
                t2 += total
                q2 += square
    return t0, q0, t1, q1, t2, q2


@compiled
def _measure_plane(  # type: ignore[no-untyped-def]
    m, samples, plane, row, column, height, width, block, shift_y, shift_x, sums, power, mean
):
    """One plane of one macroblock; returns its sum and sum of squares."""
    half = np.int64(block == 4)
    cell_h, cell_w = block >> shift_y, block >> shift_x
    per_side = 16 // block
    # what of the macroblock lies inside the picture, in samples of the plane
    inside_h = min(16 >> shift_y, -(-(height - 16 * row) >> shift_y))
    inside_w = min(16 >> shift_x, -(-(width - 16 * column) >> shift_x))
    whole = cell_h >= 4 and cell_w >= 4 and inside_h == 16 >> shift_y and inside_w == 16 >> shift_x
    for cell in range(per_side * per_side):
        sums[cell, 0] = 0
        sums[cell, 1] = 0
    peak = np.int64(0)
    coded = np.int64(m.coded[plane])
    base = np.int64(m.first[plane])
    while coded:
        b = 63 - np.int64(leading_zeros(np.uint64(coded & -coded)))
        coded &= coded - 1
        bx, by = block_place(b, 4 >> shift_x)
        if whole:
            cell = (by * 4 >> (3 - shift_y - half)) * per_side + (bx * 4 >> (3 - shift_x - half))
            total, square = block_sums(samples, base)
            sums[cell, 0] += total
            sums[cell, 1] += square
            peak = max(peak, square)
        else:
            for i in range(16):
                dy, dx = by * 4 + (i >> 2), bx * 4 + (i & 3)
                if dy < inside_h and dx < inside_w:
                    r = np.int64(samples[base + i])
                    cell = dy // cell_h * per_side + dx // cell_w
                    sums[cell, 0] += r
                    sums[cell, 1] += r * r
                    peak = max(peak, r * r)
        base += 16
    m.peak[plane] = peak
    total = np.int64(0)
    square = np.int64(0)
    if whole:
        scale = 1.0 / (cell_h * cell_w)  # a power of two: exact
        for y in range(per_side):
            for x in range(per_side):
                cell = y * per_side + x
                power[plane, row * per_side + y, column * per_side + x] = sums[cell, 1] * scale
                mean[plane, row * per_side + y, column * per_side + x] = sums[cell, 0] * scale
                total += sums[cell, 0]
                square += sums[cell, 1]
        return total, square
    for y in range(per_side):
        for x in range(per_side):
            n = max(min(cell_h, inside_h - y * cell_h), 0) * max(min(cell_w, inside_w - x * cell_w), 0)
            if n:
                cell = y * per_side + x
                power[plane, row * per_side + y, column * per_side + x] = sums[cell, 1] / n
                mean[plane, row * per_side + y, column * per_side + x] = sums[cell, 0] / n
                total += sums[cell, 0]
                square += sums[cell, 1]
    return total, square


@inlined
def _term(r, mean, weight):  # type: ignore[no-untyped-def]
    d = r - mean
    return weight * d * d


@inlined
def _bound(m, constant, slopes):  # type: ignore[no-untyped-def]
    """No sample of the macroblock has more energy than this; see `_combine_cells`."""
    total = constant
    for c in range(3):
        if m.coded[c]:
            total += slopes[c] * m.peak[c]
    return total


@compiled
def _close_bound(m, samples, means, weights):  # type: ignore[no-untyped-def]
    """The same, closer, from the extremes of each channel."""
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
def _combine_cells(mbs, samples, geometry, room, power, mean, means, weights, energy, extent):  # type: ignore[no-untyped-def]
    """Energy of all cells, and the extremes over all samples."""
    height, width, width_mbs, block, down, across, _chroma = geometry
    nothing = _term(0, means[0], weights[0]) + _term(0, means[1], weights[1]) + _term(0, means[2], weights[2])
    lowest = 0.0
    constant = 0.0
    for c in range(3):
        lowest += _term(np.rint(means[c]), means[c], weights[c])
        constant += weights[c] * (abs(means[c]) + means[c] * means[c])
    # w (r - m)^2 <= w ((1 + |m|) r^2 + |m| + m^2), and r^2 <= peak; a hair more for rounding
    slopes = (
        weights[0] * (1.000001 + abs(means[0])),
        weights[1] * (1.000001 + abs(means[1])),
        weights[2] * (1.000001 + abs(means[2])),
    )
    per_side = 16 // block
    rows, columns = energy.shape
    low, high = np.inf, -np.inf
    odd = (down and height & 1) or (across and width & 1)
    top, top_bound = -1, -1.0
    row, column = 0, -1
    for mb in range(mbs.size):
        m = mbs[mb]
        column += 1
        if column == width_mbs:
            row, column = row + 1, 0
        y0, x0 = row * per_side, column * per_side
        if y0 >= rows or x0 >= columns:
            continue
        y1, x1 = min(y0 + per_side, rows), min(x0 + per_side, columns)
        if m.coded[0] | m.coded[1] | m.coded[2] == 0:
            low, high = min(low, nothing), max(high, nothing)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    energy[y, x] = nothing
            continue
        if odd and (y1 == rows or x1 == columns):
            # a chroma sample at an odd edge stands for fewer luma samples than the others
            low, high = _scan(mbs, samples, geometry, room, mb, means, weights, energy, True, low, high)
            continue
        for y in range(y0, y1):
            for x in range(x0, x1):
                total = 0.0
                for c in range(3):
                    total += weights[c] * (power[c, y, x] - 2.0 * means[c] * mean[c, y, x] + means[c] * means[c])
                energy[y, x] = total
        bound = _bound(m, constant, slopes)
        if bound > top_bound:
            top, top_bound = mb, bound
    if top >= 0:
        low, high = _scan(mbs, samples, geometry, room, top, means, weights, energy, False, low, high)
    for mb in range(mbs.size):
        if top_bound <= high:
            break
        m = mbs[mb]
        if m.coded[0] | m.coded[1] | m.coded[2] == 0 or _bound(m, constant, slopes) <= high:
            continue
        if _close_bound(m, samples, means, weights) > high:
            low, high = _scan(mbs, samples, geometry, room, mb, means, weights, energy, False, low, high)
    for mb in range(mbs.size):
        # hardly ever needed: a sample that is not coded mostly has the lowest energy there can be
        if low <= lowest:
            break
        low, high = _scan(mbs, samples, geometry, room, mb, means, weights, energy, False, low, high)
    extent[0] = low
    extent[1] = high


@compiled
def _scan(mbs, samples, geometry, room, mb, means, weights, energy, store, low, high):  # type: ignore[no-untyped-def]
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
def _expand(m, samples, plane, columns, room):  # type: ignore[no-untyped-def]
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
