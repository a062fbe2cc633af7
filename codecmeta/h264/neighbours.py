"""Neighbouring macroblocks and the values inherited from them (Rec. ITU-T H.264, 6.4.9 to 6.4.13).

In non-MBAFF pictures a macroblock address is its raster position; in MBAFF frames it is twice the raster position of
its pair, plus 1 for the bottom macroblock.
"""

from __future__ import annotations

import numpy as np

from codecmeta.h264.records import macroblocks_at
from codecmeta.record.macroblock_types import B_DIRECT, B_SKIP, I_4X4, I_8X8, I_PCM, P_SKIP
from codecmeta.simd.numba_compile import compiled, inlined

UNAVAILABLE = 64
"""Marks the total_coeff of a block that is not available; counts are at most 64, those of variable-length coded
blocks at most 16."""


@compiled
def locate(s):
    """Find the neighbours A and B of the current macroblock (6.4.9, 6.4.12)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    if s.mbaff:
        _locate_in_pairs(s)
        return
    left = s.mb - 1
    if s.column == 0 or mbs[left].slice != s.number:
        left = -1
    top = s.mb - s.width
    if top < 0 or mbs[top].slice != s.number:
        top = -1
    s.top = top
    for row in range(4):
        s.left[row] = left
        s.left_row[row] = row


@inlined
def pair_left(s):
    """Return the top macroblock of the pair to the left (mbAddrA of 6.4.10), -1 if not available."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    pair = (s.mb & ~1) - 2
    return pair if s.column > 0 and mbs[pair].slice == s.number else -1


@inlined
def pair_above(s):
    """Return the top macroblock of the pair above (mbAddrB of 6.4.10), -1 if not available."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    pair = (s.mb & ~1) - 2 * s.width
    return pair if pair >= 0 and mbs[pair].slice == s.number else -1


@compiled
def _locate_in_pairs(s):
    """Apply Table 6-4 to the luma locations (-1, 4 * row) and (0, -1)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    bottom = s.mb & 1
    above = pair_above(s)
    if not s.field:
        if bottom:
            s.top = s.mb - 1
        else:
            s.top = above + 1 if above >= 0 else -1
    elif above < 0:
        s.top = -1
    else:
        s.top = above + 1 if bottom or not mbs[above].field else above
    left = pair_left(s)
    for row in range(4):
        s.left_row[row] = row
        if left < 0:
            s.left[row] = -1
        elif mbs[left].field == s.field:
            s.left[row] = left + bottom
        elif s.field:
            # a field macroblock next to a frame pair: its upper half lies next to the pair's top macroblock
            s.left[row] = left + (row >> 1)
            s.left_row[row] = (row & 1) * 2
        else:
            # a frame macroblock next to a field pair: the first line of each of its 4x4 rows is even, in the top field
            s.left[row] = left
            s.left_row[row] = (row >> 1) + 2 * bottom


@compiled
def inferred_field(s):
    """Return mb_field_decoding_flag of a pair that does not code it (7.4.4)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    pair = pair_left(s)
    if pair < 0:
        pair = pair_above(s)
    return np.int64(mbs[pair].field) if pair >= 0 else 0


@inlined
def is_skip(kind):
    """Return whether a macroblock is P_Skip or B_Skip."""
    return kind in (P_SKIP, B_SKIP)


@compiled
def gather_total_coeff(s):
    """Fill the borders of `s.total_coeff` (6.4.11.4 to 6.4.11.6, 9.2.1, 9.3.3.1.1.9) and clear its inside.

    Where 8x8 blocks have a coded_block_flag, a neighbour without 8x8 blocks counts as one whose flag is 0. For x264
    before build 151, it is not available, not even if it is I_PCM.
    """
    mbs = macroblocks_at(s.macroblocks, s.count)
    missing = UNAVAILABLE if s.intra or not s.cabac else 0
    for plane in range(3):
        for cell in range(25):
            s.total_coeff[plane, cell] = 0
    planes = 3 if s.chroma else 1
    if s.top < 0 or _is_unavailable(s, s.top):
        for plane in range(planes):
            for x in range(4):
                s.total_coeff[plane, 1 + x] = missing
    elif _has_counts(s, s.top):
        for plane in range(planes):
            for x in range(4):
                s.total_coeff[plane, 1 + x] = mbs[s.top].total_coeff[plane, x]
    for y in range(4):
        left = s.left[y]
        unavailable = left < 0 or _is_unavailable(s, left)
        if not unavailable and not _has_counts(s, left):
            continue
        for plane in range(planes):
            cell, row = 5 + 5 * y, 4 + s.left_row[y]
            if plane > 0 and s.chroma == 1:
                # the rows of 4:2:0 chroma are half as high as those of luma
                if y & 1:
                    continue
                cell, row = 5 + 5 * (y >> 1), 4 + (s.left_row[y] >> 1)
            s.total_coeff[plane, cell] = missing if unavailable else mbs[left].total_coeff[plane, row]


@inlined
def _flags_8x8(s):
    """Return whether the 8x8 blocks of the current macroblock have a coded_block_flag."""
    return s.chroma == 3 and s.cabac != 0 and s.transform8x8 != 0


@inlined
def _is_unavailable(s, mb):
    """Return whether x264 before build 151 treats an existing neighbour as not available."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    return s.old_8x8_flags != 0 and _flags_8x8(s) and mbs[mb].transform8x8 == 0


@inlined
def _has_counts(s, mb):
    # With arithmetic coding and 4:4:4, the neighbour of an 8x8 block is an 8x8 block or none (9.3.3.1.1.9).
    mbs = macroblocks_at(s.macroblocks, s.count)
    if mbs[mb].cbp == 0:
        return False
    return not _flags_8x8(s) or mbs[mb].transform8x8 != 0 or mbs[mb].kind == I_PCM


@compiled
def store_total_coeff(s):
    """Store the counts along the edges of the current macroblock for later neighbours."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    m = mbs[s.mb]
    bottom, right = 21, 9
    for plane in range(3 if s.chroma else 1):
        if plane == 1 and s.chroma < 3:
            bottom, right = 11 if s.chroma == 1 else 21, 7
        for i in range(4):
            m.total_coeff[plane, i] = s.total_coeff[plane, bottom + i]
            m.total_coeff[plane, 4 + i] = s.total_coeff[plane, right + 5 * i]


@compiled
def gather_motion(s):
    """Fill the borders of `s.ref` and `s.mvd` (6.4.11.7, 9.3.3.1.1.6, 9.3.3.1.1.7) and clear their inside."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    for motion_list in range(2):
        for cell in range(9):
            s.ref[motion_list, cell] = 0
        for cell in range(25):
            s.mvd[motion_list, cell, 0] = 0
            s.mvd[motion_list, cell, 1] = 0
    if s.top >= 0 and _has_motion(mbs[s.top].kind):
        above = mbs[s.top]
        for motion_list in range(2):
            for x in range(2):
                s.ref[motion_list, 1 + x] = _refers_beyond_first(s, above, above.ref[motion_list, 2 + x])
            for x in range(4):
                s.mvd[motion_list, 1 + x, 0] = above.mvd_bottom[motion_list, x, 0]
                s.mvd[motion_list, 1 + x, 1] = _vertical(s, above, above.mvd_bottom[motion_list, x, 1])
    for y in range(4):
        left = s.left[y]
        if left < 0 or not _has_motion(mbs[left].kind):
            continue
        neighbour = mbs[left]
        row = s.left_row[y]
        for motion_list in range(2):
            if y & 1 == 0:
                block = (row >> 1) * 2 + 1
                s.ref[motion_list, 3 + 3 * (y >> 1)] = _refers_beyond_first(
                    s, neighbour, neighbour.ref[motion_list, block]
                )
            s.mvd[motion_list, 5 + 5 * y, 0] = neighbour.mvd_right[motion_list, row, 0]
            s.mvd[motion_list, 5 + 5 * y, 1] = _vertical(s, neighbour, neighbour.mvd_right[motion_list, row, 1])


@inlined
def _has_motion(kind):
    return kind > I_PCM and kind != B_DIRECT and kind != P_SKIP and kind != B_SKIP


@inlined
def _refers_beyond_first(s, neighbour, ref):
    # refIdxZeroFlagN (9.3.3.1.1.6): a field macroblock's 0 and 1 are the fields of a frame macroblock's 0
    return ref > 1 if s.mbaff and not s.field and neighbour.field else ref > 0


@inlined
def _vertical(s, neighbour, mvd):
    # compIdx = 1 of 9.3.3.1.1.7: field vectors count half as many lines
    value = np.int64(mvd)
    if s.mbaff and s.field != neighbour.field:
        value = value >> 1 if s.field else value << 1
    return value


@compiled
def store_motion(s):
    """Store the reference indices and vector differences along the edges for later neighbours."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    m = mbs[s.mb]
    for motion_list in range(2):
        for block in range(4):
            m.ref[motion_list, block] = s.ref[motion_list, 4 + 3 * (block >> 1) + (block & 1)]
        for i in range(4):
            for component in range(2):
                m.mvd_right[motion_list, i, component] = min(abs(s.mvd[motion_list, 9 + 5 * i, component]), 255)
                m.mvd_bottom[motion_list, i, component] = min(abs(s.mvd[motion_list, 21 + i, component]), 255)


@compiled
def gather_intra_modes(s):
    """Fill the borders of `s.intra_mode` with the prediction modes left and above (8.3.1.1, 8.3.2.1).

    An 8x8 block next to 4x4 blocks inherits the mode of the upper one, n = 1, except in a frame macroblock next to a
    field pair, where `left_row` of the third 8x8 block is the lower one, n = 3.
    """
    for x in range(4):
        s.intra_mode[1 + x] = _intra_mode(s, s.top, 12 + x)
    for y in range(4):
        s.intra_mode[5 + 5 * y] = _intra_mode(s, s.left[y], s.left_row[y] * 4 + 3)


@inlined
def _intra_mode(s, mb, block):
    # -1 makes the prediction DC whatever the other neighbour's mode (dcPredModePredictedFlag)
    mbs = macroblocks_at(s.macroblocks, s.count)
    if mb < 0:
        return -1
    kind = mbs[mb].kind
    if kind in (I_4X4, I_8X8):
        return np.int64(mbs[mb].intra_mode[block])
    return -1 if s.constrained_intra and kind > I_PCM else 2
