"""Prediction of motion vectors from their neighbours (Rec. ITU-T H.264, 8.4.1.3), in frames of frame macroblocks.

A motion field holds, by list and 4x4 block in raster order, the reference index (-1 where the list is not used) and the
vector in quarter samples (0 there). Functions take it as `reference` (2, n) and `vector` (2, n), x in the lower and y
in the upper half of an int32, and the record of the slice, `MOTION_SLICE`, as `m`.
"""

from __future__ import annotations

import numpy as np

from codecmeta.simd.numba_compile import inlined

MOTION_SLICE = np.dtype(
    [
        ("number", "i8"),
        ("first_mb", "i8"),
        ("spatial", "i8"),
        ("direct8x8", "i8"),
        ("old_direct", "i8"),
        ("width", "i8"),
        ("order", "i8"),
        ("picture", "i4", (2, 32)),
        ("picture_order", "i8", (2, 32)),
        ("long_term", "u1", (2, 32)),
        ("direct_ref", "i8", (2,)),
        ("direct_vector", "i8", (2,)),
    ],
    align=True,
)
"""Values that the vectors of a slice depend on.

number, first_mb: see `SLICE` and `read_slice`.  spatial: direct_spatial_mv_pred_flag.  direct8x8:
direct_8x8_inference_flag.  old_direct: colZeroFlag is that of x264 up to build 33, see `_set_spatial`.  width:
PicWidthInMbs.  order: PicOrderCnt of the picture.  picture: number of each entry of the two reference lists, unique
within a stream, -1 beyond their ends and where the picture is not known; picture_order, long_term: its PicOrderCnt, and
whether it is a long-term reference.  direct_ref, direct_vector: what spatial direct prediction gives the macroblock
being worked on, by list.
"""

MEDIAN, TWO_ROWS, TWO_COLUMNS = 0, 1, 2
"""How a partition is predicted: like most, like one of 16x8, like one of 8x16."""


@inlined
def _is_known(mbs, m, row, column):
    """Return whether a 4x4 block that precedes the current one in the picture is in its slice."""
    inside = row >= 0 and column >= 0 and column < 4 * m.width
    return inside and mbs[(row >> 2) * m.width + (column >> 2)].slice == m.number


@inlined
def _rank(row, column):
    """Return luma4x4BlkIdx (6.4.3)."""
    return (column & 1) | (row & 1) << 1 | (column & 2) << 1 | (row & 2) << 2


@inlined
def find_neighbours(mbs, m, row, column, across):
    """Return blocks A, B and C of the partition with a given first 4x4 block and width `across` (6.4.11.7).

    D replaces C where C is not available. Blocks are numbered along the picture; -1 if not available.
    """
    columns = 4 * m.width
    a = row * columns + column - 1 if _is_known(mbs, m, row, column - 1) else -1
    b = (row - 1) * columns + column if _is_known(mbs, m, row - 1, column) else -1
    right = column + across
    mb = (row >> 2) * m.width + (column >> 2)
    other = ((row - 1) >> 2) * m.width + (right >> 2)
    decoded = _rank(row - 1, right) < _rank(row, column) if other == mb else other < mb
    if decoded and _is_known(mbs, m, row - 1, right):
        return a, b, (row - 1) * columns + right
    d = (row - 1) * columns + column - 1 if _is_known(mbs, m, row - 1, column - 1) else -1
    return a, b, d


@inlined
def _median(a, b, c):
    return max(min(a, b), min(max(a, b), c))


@inlined
def pack(x, y):
    """Pack a vector as it is stored, modulo 2^16."""
    return (x & 0xFFFF) | (y << 16)


@inlined
def unpack(vector):
    """Return the components of a stored vector."""
    return ((np.int64(vector) & 0xFFFF) ^ 0x8000) - 0x8000, np.int64(vector) >> 16


@inlined
def reference_at(reference, motion_list, block):
    """Return the reference index of a block, -1 if the block is not available."""
    return np.int64(reference[motion_list, np.uintp(block)]) if block >= 0 else -1


@inlined
def _vector_at(vector, motion_list, block):
    return unpack(vector[motion_list, np.uintp(block)] if block >= 0 else np.int32(0))


@inlined
def predict_vector(reference, vector, motion_list, ref, blocks, part, second):
    """Predict mvpLX (8.4.1.3).

    Args:
        ref: refIdxLX.
        blocks: A, B and C as `find_neighbours` returns them.
        part: one of `MEDIAN`, `TWO_ROWS`, `TWO_COLUMNS`.
        second: whether the partition is the second of two.
    """
    a, b, c = blocks
    ref_a = reference_at(reference, motion_list, a)
    ref_b = reference_at(reference, motion_list, b)
    ref_c = reference_at(reference, motion_list, c)
    chosen = -1
    if part == TWO_ROWS:
        if second and ref_a == ref:
            chosen = a
        elif not second and ref_b == ref:
            chosen = b
    elif part == TWO_COLUMNS:
        if second and ref_c == ref:
            chosen = c
        elif not second and ref_a == ref:
            chosen = a
    if chosen < 0:
        only = np.int64(ref_a == ref) + np.int64(ref_b == ref) + np.int64(ref_c == ref)
        if only == 1:
            chosen = a if ref_a == ref else b if ref_b == ref else c
        elif b < 0 and c < 0:
            chosen = a
    if chosen >= 0:
        return _vector_at(vector, motion_list, chosen)
    ax, ay = _vector_at(vector, motion_list, a)
    bx, by = _vector_at(vector, motion_list, b)
    cx, cy = _vector_at(vector, motion_list, c)
    return _median(ax, bx, cx), _median(ay, by, cy)


@inlined
def set_motion(reference, vector, motion_list, first, columns, across, down, ref, stored):
    """Set reference and vector of a partition of `across` times `down` 4x4 blocks, whose first one is `first`."""
    for dy in range(down):
        at = np.uintp(first + dy * columns)
        for dx in range(across):
            reference[motion_list, at + np.uintp(dx)] = ref
            vector[motion_list, at + np.uintp(dx)] = stored
