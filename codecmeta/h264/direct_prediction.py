"""Direct prediction of motion in B slices (Rec. ITU-T H.264, 8.4.1.2), in frames of frame macroblocks.

`col` is the motion of the first picture of list 1: reference indices (2, n) and vectors (2, n) of its 4x4 blocks as in
vector_prediction.py, and the numbers of the pictures that its 8x8 blocks are predicted from, (2, n / 4).
"""

from __future__ import annotations

import numpy as np

from codecmeta.h264 import faults
from codecmeta.h264.vector_prediction import (
    MEDIAN,
    find_neighbours,
    pack,
    predict_vector,
    reference_at,
    set_motion,
    unpack,
)
from codecmeta.simd.numba_compile import inlined


@inlined
def predict_spatially(mbs, m, reference, vector, row, column):
    """Set references and vectors of a macroblock whose blocks all move (8.4.1.2.2), in `m`; row, column: first block.

    `direct_ref` is -2 for both lists where neither neighbour has a reference: then all vectors are 0.
    """
    blocks = find_neighbours(mbs, m, row, column, 4)
    for motion_list in range(2):
        lowest = -1
        for i in range(3):
            ref = reference_at(reference, motion_list, blocks[i])
            if ref >= 0 and (lowest < 0 or ref < lowest):
                lowest = ref
        m.direct_ref[motion_list] = lowest
        m.direct_vector[motion_list] = 0
        if lowest >= 0:
            x, y = predict_vector(reference, vector, motion_list, lowest, blocks, MEDIAN, False)
            m.direct_vector[motion_list] = pack(x, y)
    if m.direct_ref[0] < 0 and m.direct_ref[1] < 0:
        m.direct_ref[0] = m.direct_ref[1] = -2


@inlined
def _co_located(m, reference, row, column):
    """Return list and 4x4 block of the co-located motion (8.4.1.2.1); list -1 if the block there is intra."""
    if m.direct8x8:
        # the block at the macroblock's corner represents its whole 8x8 block
        row = (row & ~3) + (row & 2) * 3 // 2
        column = (column & ~3) + (column & 2) * 3 // 2
    at = np.uintp(row * 4 * m.width + column)
    return 0 if reference[0, at] >= 0 else 1 if reference[1, at] >= 0 else -1, at


@inlined
def set_direct(m, reference, vector, col, row, column):
    """Set the motion of the 8x8 block whose first 4x4 block is (row, column).

    Returns:
        A fault (faults.py).
    """
    columns = 4 * m.width
    size = 2 if m.direct8x8 else 1
    for dy in range(0, 2, size):
        for dx in range(0, 2, size):
            first = (row + dy) * columns + column + dx
            source, at = _co_located(m, col[0], row + dy, column + dx)
            if m.spatial:
                _set_spatial(m, reference, vector, col, first, size, source, at)
            else:
                fault = _set_temporal(m, reference, vector, col, first, size, source, at)
                if fault:
                    return fault
    return faults.NONE


@inlined
def _set_spatial(m, reference, vector, col, first, size, source, at):
    """Set motion by 8.4.1.2.2 with colZeroFlag: a block at rest in the nearest future picture is at rest here.

    For x264 up to build 33, a block that is predicted from list 1 only is not at rest.
    """
    rests = False
    if source >= 0 and not (source == 1 and m.old_direct) and not m.long_term[1, 0] and col[0][source, at] == 0:
        x, y = unpack(col[1][source, at])
        rests = -1 <= x <= 1 and -1 <= y <= 1
    for motion_list in range(2):
        ref, stored = m.direct_ref[motion_list], m.direct_vector[motion_list]
        if ref == -2:
            ref = 0
        if ref == 0 and rests:
            stored = 0
        if ref >= 0:
            set_motion(reference, vector, motion_list, first, 4 * m.width, size, size, ref, stored)


@inlined
def _set_temporal(m, reference, vector, col, first, size, source, at):
    """Set motion by 8.4.1.2.3: co-located motion, scaled by distances in time."""
    columns = 4 * m.width
    ref, x, y = 0, 0, 0
    if source >= 0:
        place = np.int64(at)
        picture = col[2][source, np.uintp(place // columns // 2 * (columns // 2) + place % columns // 2)]
        while ref < 32 and m.picture[0, ref] != picture:
            ref += 1
        if ref == 32 or picture < 0:
            return faults.NO_REFERENCE
        x, y = unpack(col[1][source, at])
    back = _clip(m.order - m.picture_order[0, ref])
    span = _clip(m.picture_order[1, 0] - m.picture_order[0, ref])
    x0, y0, x1, y1 = x, y, 0, 0
    if not m.long_term[0, ref] and span != 0:
        per_span = (16384 + abs(span) // 2) // abs(span) * (1 if span > 0 else -1)
        factor = min(max((back * per_span + 32) >> 6, -1024), 1023)
        x0, y0 = (factor * x + 128) >> 8, (factor * y + 128) >> 8
        x1, y1 = x0 - x, y0 - y
    set_motion(reference, vector, 0, first, columns, size, size, ref, pack(x0, y0))
    set_motion(reference, vector, 1, first, columns, size, size, 0, pack(x1, y1))
    return faults.NONE


@inlined
def _clip(distance):
    return min(max(distance, -128), 127)
