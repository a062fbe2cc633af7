"""Block kernels for a vector table: references, predictions and residuals of its blocks, compiled.

One row of macroblocks is processed at a time, so that its samples stay in the cache: its blocks are listed, a reference
is chosen for each, and then every plane is subtracted. Coordinates and sizes of a block are in luma samples. Records
are those of block_records.py: reference pictures are stored in slots, to which the entries of both reference lists
point.
"""

from __future__ import annotations

import numpy as np

from codecmeta.prediction.block_difference import error_of, subtract
from codecmeta.prediction.block_prediction import (
    chroma_component,
    chroma_component_of_four,
    find_chroma,
    find_points,
    put_chroma,
    put_luma,
)
from codecmeta.prediction.block_records import Plane
from codecmeta.prediction.padded_reference import MARGIN
from codecmeta.prediction.reference_selection import choose_one, choose_two, inside, mean_of, weights_of
from codecmeta.prediction.standards import H264, MPEG2, MPEG4_QPEL
from codecmeta.simd.block_rows import BLOCK, fetch, size_of
from codecmeta.simd.numba_cache import kernel

Y, X, HEIGHT, WIDTH, DY, DX, CHROMA_DY, CHROMA_DX, ENTRY, EVEN, SILENT, CHROMA = 0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 15, 16
"""Columns of a table of blocks; those of vectors and entries (-1 for none) occur twice, for list 0 and list 1. EVEN:
both predictions have equal weight; SILENT: no luma residual is left; CHROMA: `OWN`, `WHOLE` or `NONE`."""
COLUMNS = 17

OWN, WHOLE, NONE = 0, 1, 2
"""Chroma of a block: its own, that of its whole macroblock, or handled by another block."""

_SECOND = BLOCK * BLOCK
"""Index of the buffer for the second of two predictions."""


@kernel(_nrt=False)
def _index_blocks(vectors, size, first):
    """Find the row of the vector table whose block starts at each 8x8 cell, per list."""
    for i in range(len(vectors)):
        x, y, w, h = vectors[i, 0], vectors[i, 1], vectors[i, 2], vectors[i, 3]
        if x < 0 or y < 0 or x >= size[1] or y >= size[0] or (x & 7) or (y & 7):
            continue
        if not ((w == 8 or w == 16) and (h == 8 or h == 16)):
            continue
        side = 0 if vectors[i, 6] < 0 else 1
        if first[side, y >> 3, x >> 3] < 0:
            first[side, y >> 3, x >> 3] = i


@kernel(_nrt=False)
def _chroma_vector(vectors, index, first, side, shifts, code):
    """Return dy, dx in eighths for the chroma of a block, and whether it covers its whole macroblock."""
    dx = np.int64(vectors[index, 4])
    dy = np.int64(vectors[index, 5])
    if code in (H264, MPEG2) or vectors[index, 2] != 8 or vectors[index, 3] != 8:
        return chroma_component(dy, shifts[0], code), chroma_component(dx, shifts[1], code), False
    row = (vectors[index, 1] >> 4) << 1
    col = (vectors[index, 0] >> 4) << 1
    total_x = np.int64(0)
    total_y = np.int64(0)
    for k in range(4):
        i = first[side, min(row + (k >> 1), first.shape[1] - 1), min(col + (k & 1), first.shape[2] - 1)]
        if i < 0:
            i = index
        dx = np.int64(vectors[i, 4])
        dy = np.int64(vectors[i, 5])
        # to half samples, towards zero
        total_x += (dx + 1 if dx < 0 and code == MPEG4_QPEL else dx) >> 1
        total_y += (dy + 1 if dy < 0 and code == MPEG4_QPEL else dy) >> 1
    return chroma_component_of_four(total_y), chroma_component_of_four(total_x), True


@kernel(_nrt=False)
def _list_blocks(vectors, first, band, shifts, code, table):
    """Enter the blocks of a row of macroblocks in a table; return their number."""
    count = 0
    for row in range(2 * band, min(2 * band + 2, first.shape[1])):
        for col in range(first.shape[2]):
            i0, i1 = np.int64(first[0, row, col]), np.int64(first[1, row, col])
            if i0 < 0 and i1 < 0:
                continue
            if i0 >= 0 and i1 >= 0 and (vectors[i0, 2] != vectors[i1, 2] or vectors[i0, 3] != vectors[i1, 3]):
                i1 = np.int64(-1)
            block = table[count]
            count += 1
            index = i0 if i0 >= 0 else i1
            block[Y], block[X] = row << 3, col << 3
            block[HEIGHT], block[WIDTH] = vectors[index, 3], vectors[index, 2]
            block[CHROMA] = OWN
            for side in range(2):
                one = i1 if side else i0
                block[ENTRY + side] = 0 if one >= 0 else -1
                if one < 0:
                    continue
                block[DY + side], block[DX + side] = vectors[one, 5], vectors[one, 4]
                dy, dx, whole = _chroma_vector(vectors, one, first, side, shifts, code)
                block[CHROMA_DY + side], block[CHROMA_DX + side] = dy, dx
                if whole:
                    block[CHROMA] = NONE if row & 1 or col & 1 else WHOLE
            block[EVEN] = 1
            block[SILENT] = 0
    return count


@kernel(_nrt=False, forceinline=True)
def _limit(zones, channel, y, x):
    """Return the dead zone of a block at a luma sample."""
    return zones.limits[1 if channel else 0, np.int64(zones.qp[y >> 4, x >> 4]) + 128] if zones.qp.size else 0.0


@kernel(_nrt=False)
def _choose(plane, lists, zones, work, count):
    """Choose the entries of every block of a table (H.264)."""
    for number in range(count):
        one = work.table[number]
        y, x = np.int64(one[Y]), np.int64(one[X])
        block = (y, x, np.int64(one[HEIGHT]), np.int64(one[WIDTH]))
        limit = _limit(zones, 0, y, x)
        vector0 = (np.int64(one[DY]), np.int64(one[DX]))
        vector1 = (np.int64(one[DY + 1]), np.int64(one[DX + 1]))
        if one[ENTRY] >= 0 and one[ENTRY + 1] >= 0:
            entry0, entry1, even, error = choose_two(plane, lists, work.sums, block, (vector0, vector1), limit)
            one[ENTRY], one[ENTRY + 1], one[EVEN] = entry0, entry1, even
        else:
            side = 0 if one[ENTRY] >= 0 else 1
            vector = vector1 if side else vector0
            entry, error = choose_one(plane, lists, work.sums, side, block, vector, limit)
            one[ENTRY + side], one[EVEN] = entry, 0
        one[SILENT] = error == 0 or error < limit


@kernel(_nrt=False, forceinline=True)
def _weights(block, lists, plane):
    """Return the weights of the entries of a block in a plane."""
    entry0, entry1 = block[ENTRY], block[ENTRY + 1]
    if block[EVEN]:
        return mean_of(plane.top)
    if entry0 >= 0 and entry1 >= 0:
        return weights_of(lists.pairs[entry0, entry1], plane.channel)
    if entry0 >= 0:
        return weights_of(lists.singles[0, entry0], plane.channel)
    return weights_of(lists.singles[1, entry1], plane.channel)


@kernel(_nrt=False, forceinline=True)
def _mark(coded, channel, y, x, h, w):
    for row in range(y >> 3, min((y + h + 7) >> 3, coded.shape[1])):
        for col in range(x >> 3, min((x + w + 7) >> 3, coded.shape[2])):
            coded[channel, row, col] = 1


@kernel(_nrt=False)
def _subtract_luma(plane, lists, zones, rule, work, count, coded):
    """Subtract the chosen predictions from luma, or from chroma that is predicted like luma."""
    kind = plane.like[0]
    stride = plane.size[1] + 2 * MARGIN if rule.code == H264 else np.int64(BLOCK)
    for number in range(count):
        one = work.table[number]
        if plane.channel == 0 and one[SILENT]:
            continue
        y, x, h, w = np.int64(one[Y]), np.int64(one[X]), np.int64(one[HEIGHT]), np.int64(one[WIDTH])
        block = (y, x, h, w)
        a = b = c = d = np.int64(0)
        for side in range(2):
            if one[ENTRY + side] < 0:
                continue
            address = plane.slots[lists.slots[side, one[ENTRY + side]]]
            vector = (np.int64(one[DY + side]), np.int64(one[DX + side]))
            if rule.code == H264:
                c, d = find_points(address, plane.like, plane.size, block, vector, rule.top, work.sums)
            else:
                room = work.blocks[side * _SECOND : (side + 1) * _SECOND]
                put_luma(address, plane.size, block, vector, rule, room, work.lines)
                c = d = np.int64(room.ctypes.data)
            if side == 0:
                a, b = c, d
        if one[ENTRY] < 0:
            a, b = c, d
        limit, weights = _limit(zones, plane.channel, y, x), _weights(one, lists, plane)
        if subtract(kind, plane.samples, inside(block, plane.size), (a, b, c, d), stride, weights, limit, plane.out):
            _mark(coded, plane.channel, y, x, h, w)


@kernel(_nrt=False)
def _subtract_chroma(plane, lists, zones, rule, work, count, coded):
    """Subtract the chosen predictions from a chroma plane, vectors in eighths of its samples."""
    kind, shifts = plane.like[0], plane.shifts
    place = np.int64(work.blocks.ctypes.data)
    for number in range(count):
        one = work.table[number]
        if one[CHROMA] == NONE:
            continue
        y, x, h, w = np.int64(one[Y]), np.int64(one[X]), np.int64(one[HEIGHT]), np.int64(one[WIDTH])
        if one[CHROMA] == WHOLE:
            h = w = np.int64(16)
        block = (y >> shifts[0], x >> shifts[1], h >> shifts[0], w >> shifts[1])
        fractions = np.int64(0)
        for side in range(2):
            if one[ENTRY + side] >= 0:
                fractions |= one[CHROMA_DY + side] | one[CHROMA_DX + side]
        first = second = np.int64(0)
        stride = plane.size[1] + 2 * MARGIN
        for side in range(2):
            if one[ENTRY + side] < 0:
                continue
            vector = (np.int64(one[CHROMA_DY + side]), np.int64(one[CHROMA_DX + side]))
            address = plane.slots[lists.slots[side, one[ENTRY + side]]]
            second = find_chroma(address, plane.like, plane.size, block, vector)
            if fractions & 7:
                put = place + side * _SECOND * size_of(kind)
                put_chroma(kind, second, stride, vector, block, rule, put)
                second = put
            if side == 0:
                first = second
        if one[ENTRY] < 0:
            first = second
        if fractions & 7:
            stride = np.int64(BLOCK)
        area, points = inside(block, plane.size), (first, first, second, second)
        limit, weights = _limit(zones, plane.channel, y, x), _weights(one, lists, plane)
        # unmarked blocks need not be written
        least = max(np.int64(np.ceil(limit)), 1)
        if error_of(kind, plane.samples, area, points, stride, weights, least) >= least and subtract(
            kind, plane.samples, area, points, stride, weights, limit, plane.out
        ):
            _mark(coded, plane.channel, y, x, h, w)


@kernel(_nrt=False)
def _note(table, count, lists, reference, displacement):
    """Enter the slots and vectors of a table in the picture's maps."""
    for number in range(count):
        one = table[number]
        bottom = min((one[Y] + one[HEIGHT]) >> 3, reference.shape[1])
        right = min((one[X] + one[WIDTH]) >> 3, reference.shape[2])
        for side in range(2):
            if one[ENTRY + side] < 0:
                continue
            slot = lists[side, one[ENTRY + side]]
            packed = _pack((one[DY + side], one[DX + side]))
            for row in range(one[Y] >> 3, bottom):
                for col in range(one[X] >> 3, right):
                    reference[side, row, col] = slot
                    displacement[side, row, col] = packed


@kernel(_nrt=False, forceinline=True)
def _pack(vector):
    """Pack dx and dy as two little-endian int16."""
    return np.int32((vector[1] & 0xFFFF) | (vector[0] << 16))


_LINE = 64
"""Bytes of a cache line."""


@kernel(_nrt=False)
def _fetch_rows(address, length, first, last, width):
    """Prefetch rows of a plane; the rows of one block are too far apart for the hardware prefetcher."""
    for row in range(first, last):
        start = address + row * length
        for ahead in range(0, width, _LINE):
            fetch(start + ahead)


@kernel(_nrt=False)
def _fetch_macroblocks(plane, lists, first, last):
    """Prefetch rows of a plane, and the same rows of the first reference of either list."""
    item = size_of(plane.like[0])
    height, width = plane.size
    last = min(last, height)
    _fetch_rows(plane.samples[0], plane.samples[1] * item, first, last, width * item)
    for side in range(2):
        slot = lists.slots[side, 0]
        if lists.counts[side] and (side == 0 or slot != lists.slots[0, 0]):
            length = (width + 2 * MARGIN) * item
            start = np.int64(plane.slots[slot, 0]) + (MARGIN + MARGIN * (width + 2 * MARGIN)) * item
            _fetch_rows(start, length, first, last, width * item)


@kernel(_nrt=False, forceinline=True)
def _plane(picture, rule, result, channel):
    """Return a plane of the picture."""
    size, shifts = (picture.chroma, picture.shifts) if channel else (picture.luma, (0, 0))
    samples = (picture.samples[channel, 0], picture.samples[channel, 1])
    out = (result.planes[channel, 0], result.planes[channel, 1])
    return Plane(picture.like, channel, samples, picture.slots[channel], size, shifts, rule.top, out)


@kernel(_nrt=False)
def compensate(picture, lists, vectors, zones, rule, work, result):
    """Subtract the best prediction from every block that has a vector.

    Args:
        picture: `Picture`.
        lists: `ReferenceLists`.
        vectors: int16 (n, 7).
        zones: `DeadZones`.
        rule: `Interpolation`.
        work: `Workspace`.
        result: `Compensated`, to write.
    """
    _index_blocks(vectors, picture.luma, work.first)
    like_luma = rule.code == H264 and picture.shifts[0] == 0 and picture.shifts[1] == 0
    channels = 3 if picture.chroma[0] else 1
    for band in range((picture.luma[0] + 15) >> 4):
        count = _list_blocks(vectors, work.first, band, picture.shifts, rule.code, work.table)
        for channel in range(channels):
            plane = _plane(picture, rule, result, channel)
            tall = 16 >> plane.shifts[0]
            for ahead in range(0 if band == 0 else 1, 2):
                _fetch_macroblocks(plane, lists, (band + ahead) * tall, (band + ahead + 1) * tall)
            if channel == 0 and rule.code == H264:
                _choose(plane, lists, zones, work, count)
            if channel == 0 or like_luma:
                _subtract_luma(plane, lists, zones, rule, work, count, result.coded)
            else:
                _subtract_chroma(plane, lists, zones, rule, work, count, result.coded)
        _note(work.table, count, lists.slots, result.reference, result.displacement)
