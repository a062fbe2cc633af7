"""Vector table of a picture, with a row for every block and list."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codecmeta.h264.vector_prediction import unpack
from codecmeta.record.macroblock_types import B_8X8, B_8X16, B_16X8, B_DIRECT, B_SKIP, I_PCM, P_8X8, P_8X16, P_16X8
from codecmeta.simd.numba_compile import compiled, entry, inlined

MOST_ROWS = 32
"""Rows of a macroblock: sixteen blocks and two lists."""


class BlockMotion(NamedTuple):
    """Motion of the 4x4 blocks of a picture.

    Attributes:
        reference, vector: as `derive_motion` fills them.
        columns: blocks per row.
    """

    reference: NDArray[np.int8]
    vector: NDArray[np.int32]
    columns: int


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
        Number of rows filled.
    """
    blocks = BlockMotion(reference, vector, 4 * width)
    rows = 0
    for mb in range(mbs.size):
        kind = mbs[mb].kind
        if kind <= I_PCM:
            continue
        at = mb // width * 4, mb % width * 4
        direct = kind in (B_SKIP, B_DIRECT)
        uniform = direct and _is_uniform(blocks, at[0], at[1], 4)
        for motion_list in range(2):
            if uniform:
                rows = _add(blocks, motion_list, at, (4, 4), table, rows)
            elif direct:
                rows = _list_direct(blocks, motion_list, at, table, rows)
            elif kind in (P_8X8, B_8X8):
                rows = _list_sub_macroblocks(blocks, motion[mb], motion_list, at, table, rows)
            else:
                down = 2 if kind in (P_16X8, B_16X8) else 4
                across = 2 if kind in (P_8X16, B_8X16) else 4
                rows = _list_partitions(blocks, motion_list, at, (4, 4), (down, across), table, rows)
    return rows


@compiled
def _list_direct(blocks, motion_list, at, table, rows):
    """List a macroblock of direct prediction whose motion differs within, by its 8x8 blocks."""
    row, column = at
    for block in range(4):
        rows = _add_direct(blocks, motion_list, (row + (block & 2), column + 2 * (block & 1)), table, rows)
    return rows


@compiled
def _list_sub_macroblocks(blocks, motion, motion_list, at, table, rows):
    """List a macroblock of four sub-macroblocks, each of direct prediction or with partitions of its own."""
    for block in range(4):
        first = at[0] + (block & 2), at[1] + 2 * (block & 1)
        if motion.lists[block] == 0:
            rows = _add_direct(blocks, motion_list, first, table, rows)
        else:
            shape = motion.shape[block]
            part = 1 if shape & 1 else 2, 2 if shape < 2 else 1
            rows = _list_partitions(blocks, motion_list, first, (2, 2), part, table, rows)
    return rows


@compiled
def _list_partitions(blocks, motion_list, at, whole, part, table, rows):
    """List an area of 4x4 blocks, rows and columns `whole`, in partitions of `part`."""
    for row in range(at[0], at[0] + whole[0], part[0]):
        for column in range(at[1], at[1] + whole[1], part[1]):
            rows = _add(blocks, motion_list, (row, column), part, table, rows)
    return rows


@inlined
def _is_uniform(blocks, row, column, size):
    """Return whether a square of 4x4 blocks has one motion, in both lists."""
    first = np.uintp(row * blocks.columns + column)
    for motion_list in range(2):
        for y in range(size):
            for x in range(size):
                at = np.uintp((row + y) * blocks.columns + column + x)
                if blocks.reference[motion_list, at] != blocks.reference[motion_list, first]:
                    return False
                if blocks.vector[motion_list, at] != blocks.vector[motion_list, first]:
                    return False
    return True


@compiled
def _add_direct(blocks, motion_list, at, table, rows):
    """List an 8x8 block of direct prediction: as a whole, or its 4x4 blocks where their motion differs."""
    row, column = at
    if _is_uniform(blocks, row, column, 2):
        return _add(blocks, motion_list, at, (2, 2), table, rows)
    return _list_partitions(blocks, motion_list, at, (2, 2), (1, 1), table, rows)


@inlined
def _add(blocks, motion_list, first, size, table, rows):
    """Add a row for the partition of `size` (down, across) blocks from `first` (row, column), if it uses the list."""
    (row, column), (down, across) = first, size
    at = np.uintp(row * blocks.columns + column)
    if blocks.reference[motion_list, at] < 0:
        return rows
    line = np.uintp(rows)
    x, y = unpack(blocks.vector[motion_list, at])
    table[line, 0] = 4 * column
    table[line, 1] = 4 * row
    table[line, 2] = 4 * across
    table[line, 3] = 4 * down
    table[line, 4] = x
    table[line, 5] = y
    table[line, 6] = 2 * motion_list - 1
    return rows + 1
