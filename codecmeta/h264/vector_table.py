"""The motion of a picture as a table with a row for every block and list."""

from __future__ import annotations

import numpy as np

from codecmeta.h264.vector_prediction import unpack
from codecmeta.record.macroblock_types import B_8X8, B_8X16, B_16X8, B_DIRECT, B_SKIP, I_PCM, P_8X8, P_8X16, P_16X8
from codecmeta.simd.numba_compile import compiled, entry, inlined

MOST_ROWS = 32
"""Rows of a macroblock: sixteen blocks and two lists."""


@entry
def fill_table(mbs, motion, reference, vector, width, table):
    """List the vectors of a picture: macroblocks in raster order, list 0 before list 1 in each.

    Args:
        mbs: array of `MACROBLOCK`, one per address.
        motion: array of `MOTION`, likewise.
        reference, vector: as `derive_motion` fills them.
        width: PicWidthInMbs.
        table: int16 (n, 7), with room for `MOST_ROWS` per macroblock: x, y, w, h in luma samples, dx, dy in quarter
            samples, -1 for list 0 and 1 for list 1.

    Returns:
        Rows that were filled.
    """
    rows = 0
    for mb in range(mbs.size):
        kind = mbs[mb].kind
        if kind <= I_PCM:
            continue
        row, column = mb // width * 4, mb % width * 4
        for motion_list in range(2):
            if kind in (B_SKIP, B_DIRECT):
                if _is_uniform(reference, vector, row, column, 4 * width, 4):
                    rows = _add(reference, vector, motion_list, row, column, 4 * width, 4, 4, table, rows)
                else:
                    for block in range(4):
                        at = row + (block & 2), column + 2 * (block & 1)
                        rows = _add_direct(reference, vector, motion_list, at, 4 * width, table, rows)
            elif kind in (P_8X8, B_8X8):
                for block in range(4):
                    at = row + (block & 2), column + 2 * (block & 1)
                    if motion[mb].lists[block] == 0:
                        rows = _add_direct(reference, vector, motion_list, at, 4 * width, table, rows)
                    else:
                        shape = motion[mb].shape[block]
                        across, down = 2 if shape < 2 else 1, 1 if shape & 1 else 2
                        for y in range(at[0], at[0] + 2, down):
                            for x in range(at[1], at[1] + 2, across):
                                rows = _add(reference, vector, motion_list, y, x, 4 * width, across, down, table, rows)
            else:
                down = 2 if kind in (P_16X8, B_16X8) else 4
                across = 2 if kind in (P_8X16, B_8X16) else 4
                for y in range(row, row + 4, down):
                    for x in range(column, column + 4, across):
                        rows = _add(reference, vector, motion_list, y, x, 4 * width, across, down, table, rows)
    return rows


@inlined
def _is_uniform(reference, vector, row, column, columns, size):
    """Whether a square of 4x4 blocks has one motion, in both lists."""
    first = np.uintp(row * columns + column)
    for motion_list in range(2):
        for y in range(size):
            for x in range(size):
                at = np.uintp((row + y) * columns + column + x)
                if reference[motion_list, at] != reference[motion_list, first]:
                    return False
                if vector[motion_list, at] != vector[motion_list, first]:
                    return False
    return True


@compiled
def _add_direct(reference, vector, motion_list, at, columns, table, rows):
    """An 8x8 block of direct prediction: whole, or its 4x4 blocks where they move differently."""
    row, column = at
    if _is_uniform(reference, vector, row, column, columns, 2):
        return _add(reference, vector, motion_list, row, column, columns, 2, 2, table, rows)
    for y in range(row, row + 2):
        for x in range(column, column + 2):
            rows = _add(reference, vector, motion_list, y, x, columns, 1, 1, table, rows)
    return rows


@inlined
def _add(reference, vector, motion_list, row, column, columns, across, down, table, rows):
    at = np.uintp(row * columns + column)
    if reference[motion_list, at] < 0:
        return rows
    line = np.uintp(rows)
    x, y = unpack(vector[motion_list, at])
    table[line, 0] = 4 * column
    table[line, 1] = 4 * row
    table[line, 2] = 4 * across
    table[line, 3] = 4 * down
    table[line, 4] = x
    table[line, 5] = y
    table[line, 6] = 2 * motion_list - 1
    return rows + 1
