"""Syntax elements of the macroblock layer in arithmetic code (Rec. ITU-T H.264, 9.3.2, 9.3.3.1).

Context numbers are those of Table 9-34; neighbours A and B are `s.left[0]` and `s.top`.
"""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import bypass, decision, terminate
from codecmeta.h264 import faults
from codecmeta.h264.neighbours import is_skip, pair_above, pair_left
from codecmeta.h264.records import macroblocks_at
from codecmeta.h264.slice_header import B, I
from codecmeta.record.macroblock_types import B_DIRECT, I_4X4, I_8X8
from codecmeta.simd.numba_compile import compiled


@compiled
def skip_flag(s, t):
    """Read mb_skip_flag (9.3.3.1.1.1)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    index = 24 if s.slice_type == B else 11
    if s.left[0] >= 0 and not is_skip(mbs[s.left[0]].kind):
        index += 1
    if s.top >= 0 and not is_skip(mbs[s.top].kind):
        index += 1
    return decision(s, t, index)


@compiled
def field_flag(s, t):
    """Read mb_field_decoding_flag (9.3.3.1.1.2)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    index = 70
    left, above = pair_left(s), pair_above(s)
    if left >= 0 and mbs[left].field:
        index += 1
    if above >= 0 and mbs[above].field:
        index += 1
    return decision(s, t, index)


@compiled
def mb_type(s, t):
    """Read mb_type (9.3.2.5, 9.3.3.1.1.3) as numbered in Tables 7-11, 7-13 and 7-14."""
    if s.slice_type == I:
        return _intra_type_of_i_slice(s, t)
    if s.slice_type == B:
        return _b_type(s, t)
    if decision(s, t, 14):
        return 5 + _intra_type(s, t, 17)
    if decision(s, t, 15):
        return 2 - decision(s, t, 17)
    return 3 * decision(s, t, 16)


@compiled
def _intra_type_of_i_slice(s, t):
    mbs = macroblocks_at(s.macroblocks, s.count)
    index = 3
    for mb in (s.left[0], s.top):
        if mb >= 0 and mbs[mb].kind != I_4X4 and mbs[mb].kind != I_8X8:
            index += 1
    if not decision(s, t, index):
        return 0
    if terminate(s):
        return 25
    value = 1 + 12 * decision(s, t, 6)
    if decision(s, t, 7):
        value += 4 + 4 * decision(s, t, 8)
    value += 2 * decision(s, t, 9)
    return value + decision(s, t, 10)


@compiled
def _intra_type(s, t, first):
    # the suffix of an intra mb_type in P and B slices
    if not decision(s, t, first):
        return 0
    if terminate(s):
        return 25
    value = 1 + 12 * decision(s, t, first + 1)
    if decision(s, t, first + 2):
        value += 4 + 4 * decision(s, t, first + 2)
    value += 2 * decision(s, t, first + 3)
    return value + decision(s, t, first + 3)


@compiled
def _b_type(s, t):
    mbs = macroblocks_at(s.macroblocks, s.count)
    index = 27
    for mb in (s.left[0], s.top):
        if mb >= 0 and not is_skip(mbs[mb].kind) and mbs[mb].kind != B_DIRECT:
            index += 1
    if not decision(s, t, index):
        return 0
    if not decision(s, t, 30):
        return 1 + decision(s, t, 32)
    value = 8 * decision(s, t, 31)
    for weight in (4, 2, 1):
        value += weight * decision(s, t, 32)
    if value < 8:
        return value + 3
    if value == 13:
        return 23 + _intra_type(s, t, 32)
    if value == 14:
        return 11
    if value == 15:
        return 22
    return 2 * value + decision(s, t, 32) - 4


@compiled
def sub_mb_type(s, t):
    """Read sub_mb_type (9.3.2.5) as numbered in Tables 7-17 and 7-18."""
    if s.slice_type != B:
        if decision(s, t, 21):
            return 0
        if not decision(s, t, 22):
            return 1
        return 3 - decision(s, t, 23)
    if not decision(s, t, 36):
        return 0
    if not decision(s, t, 37):
        return 1 + decision(s, t, 39)
    value = 3
    if decision(s, t, 38):
        if decision(s, t, 39):
            return 11 + decision(s, t, 39)
        value = 7
    value += 2 * decision(s, t, 39)
    return value + decision(s, t, 39)


@compiled
def ref_idx(s, t, motion_list, cell):
    """Read ref_idx_l0 or ref_idx_l1 (9.3.3.1.1.6) of the partition at `cell` of `s.ref`."""
    index = np.int64(s.ref[motion_list, cell - 1] > 0) + 2 * np.int64(s.ref[motion_list, cell - 3] > 0)
    value = 0
    while decision(s, t, 54 + index):
        value += 1
        index = (index >> 2) + 4
        if value > 31:
            s.fault = faults.REF_IDX
            return 0
    return value


@compiled
def mvd(s, t, motion_list, cell, component):
    """Read mvd_l0 or mvd_l1 (9.3.3.1.1.7, 9.3.2.3) of the partition at `cell` of `s.mvd`."""
    first = 47 if component else 40
    total = abs(s.mvd[motion_list, cell - 1, component]) + abs(s.mvd[motion_list, cell - 5, component])
    if not decision(s, t, first + (0 if total < 3 else 1 if total <= 32 else 2)):
        return 0
    value = 1
    index = 3
    while value < 9 and decision(s, t, first + index):
        value += 1
        index = min(index + 1, 6)
    if value == 9:
        k = 3
        while bypass(s):
            value += 1 << k
            k += 1
            if k > 24:
                s.fault = faults.MVD
                return 0
        while k > 0:
            k -= 1
            value += bypass(s) << k
    return -value if bypass(s) else value


@compiled
def coded_block_pattern(s, t):
    """Read coded_block_pattern (9.3.2.6, 9.3.3.1.1.4)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    value = 0
    for block in range(4):
        if block & 1:
            left_coded = (value >> (block - 1)) & 1
        else:
            row = block  # 4x4 row of the block's first line
            left_coded = 1
            if s.left[row] >= 0:
                left_coded = (np.int64(mbs[s.left[row]].cbp) >> ((s.left_row[row] & 2) | 1)) & 1
        if block & 2:
            top_coded = (value >> (block - 2)) & 1
        else:
            top_coded = (np.int64(mbs[s.top].cbp) >> (2 + block)) & 1 if s.top >= 0 else 1
        value |= decision(s, t, 73 + (1 - left_coded) + 2 * (1 - top_coded)) << block
    if s.chroma == 1 or s.chroma == 2:
        left_chroma = np.int64(mbs[s.left[0]].cbp) >> 4 if s.left[0] >= 0 else 0
        top_chroma = np.int64(mbs[s.top].cbp) >> 4 if s.top >= 0 else 0
        if decision(s, t, 77 + np.int64(left_chroma > 0) + 2 * np.int64(top_chroma > 0)):
            more = decision(s, t, 81 + np.int64(left_chroma == 2) + 2 * np.int64(top_chroma == 2))
            value |= 16 << more
    return value


@compiled
def mb_qp_delta(s, t):
    """Read mb_qp_delta (9.3.2.7, 9.3.3.1.1.5)."""
    index = 60 + s.qp_changed
    code = 0
    while decision(s, t, index):
        code += 1
        index = 62 if code == 1 else 63
        if code > 255:
            s.fault = faults.MB_QP_DELTA
            return 0
    return (code + 1) >> 1 if code & 1 else -(code >> 1)


@compiled
def intra_chroma_pred_mode(s, t):
    """Read intra_chroma_pred_mode (9.3.3.1.1.8)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    index = 64
    for mb in (s.left[0], s.top):
        if mb >= 0 and mbs[mb].chroma_mode != 0:
            index += 1
    if not decision(s, t, index):
        return 0
    if not decision(s, t, 67):
        return 1
    return 2 + decision(s, t, 67)


@compiled
def intra_pred_mode(s, t):
    """Read prev_intra_pred_mode_flag and rem_intra_pred_mode of one block: -1 for the predicted mode, else 0 to 7."""
    if decision(s, t, 68):
        return -1
    value = decision(s, t, 69)
    value += 2 * decision(s, t, 69)
    return value + 4 * decision(s, t, 69)


@compiled
def transform_size_8x8_flag(s, t):
    """Read transform_size_8x8_flag (9.3.3.1.1.10)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    index = 399
    for mb in (s.left[0], s.top):
        if mb >= 0 and mbs[mb].transform8x8:
            index += 1
    return decision(s, t, index)


@compiled
def dc_flag_increment(s, plane):
    """Return ctxIdxInc of coded_block_flag of an Intra_16x16 or chroma DC block (9.3.3.1.1.9)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    left = top = np.int64(s.intra)
    if s.left[0] >= 0:
        left = (np.int64(mbs[s.left[0]].dc) >> plane) & 1
    if s.top >= 0:
        top = (np.int64(mbs[s.top].dc) >> plane) & 1
    return left + 2 * top
