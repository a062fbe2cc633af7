"""Quantisation parameters (Rec. ITU-T H.265, 8.6.1, 9.3.3.10)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import bypass, decision
from codecmeta.hevc import faults
from codecmeta.hevc.tables import CHROMA_QP_FLAG, CHROMA_QP_IDX, CU_QP_DELTA
from codecmeta.simd.numba_compile import compiled, inlined


@compiled
def exp_golomb(s, order):
    """Read EGk of bypass bins (9.3.3.5); a prefix of more than 16 ones gives 2^17 or more."""
    value = np.int64(0)
    while order < 18 and bypass(s):
        value += np.int64(1) << order
        order += 1
    while order > 0:
        order -= 1
        value += bypass(s) << order
    return value


@inlined
def start_qp(s):
    """Set QpY before the first quantisation group of a slice, a tile or, with wavefronts, a row."""
    s.qp = s.qp_before = s.slice_qp


@compiled
def start_group(s, x, y):
    """Begin a quantisation group: predict QpY from the left, from above and from the previous unit."""
    inside = (1 << s.log2_ctb) - 1
    before = s.qp_before
    left = np.int64(s.left_qp[(y & inside) >> 3]) if x & inside else before
    above = np.int64(s.above_qp[(x & inside) >> 3]) if y & inside else before
    s.qp_predicted = (left + above + 1) >> 1
    s.qp = s.qp_predicted
    s.qp_delta_coded = 0


@inlined
def keep_qp(s, x, y, log2):
    """Store QpY of a coding unit for the groups to its right and below."""
    inside = (1 << s.log2_ctb) - 1
    row, column = (y & inside) >> 3, (x & inside) >> 3
    s.qp_before = s.qp
    for i in range(1 << (log2 - 3)):
        s.left_qp[row + i] = s.qp
        s.above_qp[column + i] = s.qp


@compiled
def read_qp_delta(s, t):
    """Read cu_qp_delta_abs, cu_qp_delta_sign_flag (8-283)."""
    value = np.int64(0)
    while value < 5 and decision(s, t, CU_QP_DELTA + min(value, 1)):
        value += 1
    if value == 5:
        value += exp_golomb(s, 0)
    if value and bypass(s):
        value = -value
    s.qp_delta_coded = 1
    half = s.qp_bd_offset >> 1
    if value < -(26 + half) or value > 25 + half:
        s.fault = faults.QP_DELTA
        value = np.int64(0)
    span = 52 + s.qp_bd_offset
    s.qp = (s.qp_predicted + value + 52 + 2 * s.qp_bd_offset) % span - s.qp_bd_offset


@compiled
def read_chroma_offset(s, t):
    """Read cu_chroma_qp_offset_flag, cu_chroma_qp_offset_idx (7.4.9.14)."""
    s.chroma_offset_coded = 1
    if decision(s, t, CHROMA_QP_FLAG):
        index = 0
        while index < s.offset_count - 1 and decision(s, t, CHROMA_QP_IDX):
            index += 1
        s.chroma_offset[0], s.chroma_offset[1] = s.offset_list[0, index], s.offset_list[1, index]
    else:
        s.chroma_offset[0] = s.chroma_offset[1] = 0


@compiled
def chroma_qp(s, t, plane):
    """Return Qp'Cb or Qp'Cr (8-287 to 8-290)."""
    index = s.qp + s.qp_offset[plane - 1] + s.chroma_offset[plane - 1]
    index = min(max(index, -s.qp_bd_offset), 57)
    if s.chroma != 1:
        index = min(index, 51)
    elif index >= 0:
        index = np.int64(t.chroma_qp[index])
    return index + s.qp_bd_offset
