"""Motion vectors and reference indices of a slice, from its motion syntax (Rec. ITU-T H.264, 8.4.1)."""

from __future__ import annotations

import numpy as np

from codecmeta.h264 import faults
from codecmeta.h264.direct_prediction import predict_spatially, set_direct
from codecmeta.h264.vector_prediction import (
    MEDIAN,
    TWO_COLUMNS,
    TWO_ROWS,
    find_neighbours,
    pack,
    predict_vector,
    reference_at,
    set_motion,
)
from codecmeta.record.macroblock_types import (
    B_8X8,
    B_8X16,
    B_16X8,
    B_DIRECT,
    B_SKIP,
    I_PCM,
    P_8X8,
    P_8X16,
    P_16X8,
    P_SKIP,
)
from codecmeta.simd.numba_compile import compiled, entry, inlined


@entry
def derive_motion(mbs, motion, state, reference, vector, picture, col):
    """Derive the motion of all macroblocks of a slice.

    Args:
        mbs: array of `MACROBLOCK`, one per address, of a frame that was read completely.
        motion: array of `MOTION`, likewise.
        state: one record of type `MOTION_SLICE`.
        reference: int8 (2, n), -1 throughout, and vector: int32 (2, n), 0 throughout; set where the slice is: by list
            and 4x4 block in raster order, reference index and vector in quarter samples, see vector_prediction.py.
        picture: int32 (2, n / 4), -1 throughout, set likewise: number of the picture that an 8x8 block is predicted
            from.
        col: the same three of the first picture of list 1; empty if it is not known.

    Returns:
        Fault (faults.py) and the macroblock where it occurred.
    """
    m = state[0]
    mb = m.first_mb
    while mb < mbs.size and mbs[mb].slice == m.number:
        row, column = mb // m.width * 4, mb % m.width * 4
        kind = mbs[mb].kind
        fault = faults.NONE
        if kind <= I_PCM:
            mb += 1
            continue
        if kind == P_SKIP:
            _skip(mbs, m, reference, vector, row, column)
        elif kind in (B_SKIP, B_DIRECT):
            fault = _set_direct_blocks(mbs, m, reference, vector, col, row, column, 15)
        elif kind in (P_8X8, B_8X8):
            fault = _set_sub_macroblocks(mbs, motion, m, reference, vector, col, mb)
        else:
            _set_partitions(mbs, motion, m, reference, vector, mb)
        if fault:
            return fault, mb
        for motion_list in range(2 if kind >= B_DIRECT else 1):
            _set_pictures(m, reference, picture, motion_list, row, column)
        mb += 1
    return faults.NONE, mb


@inlined
def _set_pictures(m, reference, picture, motion_list, row, column):
    """Store the pictures from which the four 8x8 blocks of a macroblock are predicted."""
    for y in range(2):
        at = (row // 2 + y) * 2 * m.width + column // 2
        for x in range(2):
            ref = reference_at(reference, motion_list, (row + 2 * y) * 4 * m.width + column + 2 * x)
            if ref >= 0:
                picture[motion_list, np.uintp(at + x)] = m.picture[motion_list, ref]


@inlined
def _is_at_rest(reference, vector, block):
    at = np.uintp(block)
    return reference[0, at] == 0 and vector[0, at] == 0


@compiled
def _skip(mbs, m, reference, vector, row, column):
    """Set the motion of P_Skip (8.4.1.1)."""
    columns = 4 * m.width
    blocks = find_neighbours(mbs, m, row, column, 4)
    a, b, _ = blocks
    x, y = 0, 0
    if a >= 0 and b >= 0 and not _is_at_rest(reference, vector, a) and not _is_at_rest(reference, vector, b):
        x, y = predict_vector(reference, vector, 0, 0, blocks, MEDIAN, False)
    set_motion(reference, vector, 0, row * columns + column, columns, 4, 4, 0, pack(x, y))


@compiled
def _set_direct_blocks(mbs, m, reference, vector, col, row, column, which):
    """Set the motion of the 8x8 blocks of a macroblock whose bits are set in `which`."""
    if col[0].shape[1] != reference.shape[1]:
        return faults.NO_REFERENCE
    if m.spatial:
        predict_spatially(mbs, m, reference, vector, row, column)
    for block in range(4):
        if which >> block & 1:
            fault = set_direct(m, reference, vector, col, row + (block & 2), column + 2 * (block & 1))
            if fault:
                return fault
    return faults.NONE


@inlined
def _set_part(mbs, m, one, reference, vector, row, column, x, y, across, down, part, second, lists, block):
    """Set a partition whose first 4x4 block is (y, x) in the macroblock that begins at (row, column)."""
    columns = 4 * m.width
    first = (row + y) * columns + column + x
    blocks = find_neighbours(mbs, m, row + y, column + x, across)
    for motion_list in range(2):
        if lists >> motion_list & 1:
            ref = np.int64(one.ref[motion_list, block])
            dx, dy = predict_vector(reference, vector, motion_list, ref, blocks, part, second)
            dx += one.mvd[motion_list, 4 * y + x, 0]
            dy += one.mvd[motion_list, 4 * y + x, 1]
            set_motion(reference, vector, motion_list, first, columns, across, down, ref, pack(dx, dy))


@compiled
def _set_partitions(mbs, motion, m, reference, vector, mb):
    """Set a macroblock of one or two partitions."""
    one = motion[mb]
    row, column = mb // m.width * 4, mb % m.width * 4
    kind = mbs[mb].kind
    rows = kind in (P_16X8, B_16X8)
    halves = kind in (P_8X16, B_8X16)
    part = TWO_ROWS if rows else TWO_COLUMNS if halves else MEDIAN
    across, down = 2 if halves else 4, 2 if rows else 4
    for number in range(2 if rows or halves else 1):
        x, y = 2 * number if halves else 0, 2 * number if rows else 0
        lists, block = one.lists[number], y + x // 2
        _set_part(mbs, m, one, reference, vector, row, column, x, y, across, down, part, number == 1, lists, block)


@compiled
def _set_sub_macroblocks(mbs, motion, m, reference, vector, col, mb):
    """Set a macroblock of four sub-macroblocks; all direct ones first, which do not depend on the others."""
    one = motion[mb]
    row, column = mb // m.width * 4, mb % m.width * 4
    direct = 0
    for block in range(4):
        if one.lists[block] == 0:
            direct |= 1 << block
    if direct:
        fault = _set_direct_blocks(mbs, m, reference, vector, col, row, column, direct)
        if fault:
            return fault
    for block in range(4):
        if one.lists[block]:
            shape = one.shape[block]
            across, down = 2 if shape < 2 else 1, 1 if shape & 1 else 2
            for dy in range(0, 2, down):
                for dx in range(0, 2, across):
                    x, y = 2 * (block & 1) + dx, (block & 2) + dy
                    lists = one.lists[block]
                    _set_part(
                        mbs, m, one, reference, vector, row, column, x, y, across, down, MEDIAN, False, lists, block
                    )
    return faults.NONE
