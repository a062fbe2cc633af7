"""Macroblock layer (Rec. ITU-T H.264, 7.3.5, 7.3.5.1)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import position, start_engine
from codecmeta.entropy.slice_bits import read_bits, read_se, read_ue
from codecmeta.h264 import cabac_syntax, faults
from codecmeta.h264.motion_syntax import keep_motion, read_motion, read_sub_types
from codecmeta.h264.neighbours import gather_intra_modes, store_motion
from codecmeta.h264.records import macroblocks_at, samples_at
from codecmeta.h264.residual_data import LUMA_SAMPLES, chroma_samples, read_residual
from codecmeta.h264.slice_header import B, I
from codecmeta.h264.transform import block_index
from codecmeta.record.macroblock_types import (
    B_8X8,
    B_8X16,
    B_16X8,
    B_16X16,
    B_DIRECT,
    I_4X4,
    I_8X8,
    I_16X16,
    I_PCM,
    P_8X8,
    P_16X16,
)
from codecmeta.simd.numba_compile import compiled


@compiled
def read_macroblock(s, t):
    """Read macroblock_layer (7.3.5) of macroblock `s.mb`, whose neighbours are located."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    m = mbs[s.mb]
    _read_type(s, t)
    s.cbp = 0
    s.transform8x8 = 0
    s.chroma_mode = 0
    m.kind = s.kind
    m.dc = 0
    m.coded[0] = m.coded[1] = m.coded[2] = 0
    if s.fault:
        return
    if s.kind == I_PCM:
        _read_pcm(s)
        return
    if s.intra:
        _read_intra(s, t)
        m.kind = s.kind
    else:
        _read_inter(s, t)
    m.chroma_mode = s.chroma_mode
    m.transform8x8 = s.transform8x8
    m.cbp = s.cbp
    if s.cbp == 0 and s.kind != I_16X16:
        s.qp_changed = 0
    else:
        _read_qp_delta(s, t)
        if not s.fault:
            read_residual(s, t)
    m.qp = s.qp


@compiled
def _read_type(s, t):
    """Read mb_type: set kind, and the partitions or Intra_16x16 parameters that it implies."""
    value = cabac_syntax.mb_type(s, t) if s.cabac else read_ue(s)
    intra = value
    if s.slice_type != I:
        intra = value - (23 if s.slice_type == B else 5)
    s.intra = np.int64(intra >= 0)
    if s.intra:
        if intra > 25:
            s.fault = faults.MB_TYPE
        s.intra16_mode = intra
        s.kind = I_PCM if intra == 25 else I_16X16 if intra else I_4X4
        return
    for part in range(4):
        s.part_lists[part] = 1
    s.first_only = 0
    if s.slice_type != B:
        s.kind = P_16X16 + min(value, 3)
        s.first_only = np.int64(value == 4)
    elif value == 0:
        s.kind = B_DIRECT
    elif value < 4:
        s.kind = B_16X16
        s.part_lists[0] = value
    elif value < 22:
        s.kind = B_8X16 if value & 1 else B_16X8
        s.part_lists[0] = t.b_partitions[(value - 4) >> 1, 0]
        s.part_lists[1] = t.b_partitions[(value - 4) >> 1, 1]
    else:
        s.kind = B_8X8


@compiled
def _read_pcm(s):
    """Read pcm_sample_luma and pcm_sample_chroma: the residual is the sample's distance from mid-grey."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    residual = samples_at(s.samples, s.sample_count)
    if s.cabac:
        s.bit = position(s)
    s.bit = (s.bit + 7) & ~7
    m = mbs[s.mb]
    size = chroma_samples(s.chroma)
    if s.bit + 256 * s.depth_luma + 2 * size * s.depth_chroma > s.stop:
        s.fault = faults.CUT_SHORT
        return
    columns = 4 if s.chroma == 3 else 2
    for plane in range(3 if s.chroma else 1):
        across = 16 if plane == 0 else columns * 4
        depth = s.depth_chroma if plane else s.depth_luma
        count = size if plane else LUMA_SAMPLES
        for i in range(count):
            y, x = i // across, i % across
            place = block_index(x >> 2, y >> 2, across >> 2) * 16 + (y & 3) * 4 + (x & 3)
            residual[s.cursor + place] = read_bits(s, depth) - (1 << (depth - 1))
        m.first[plane] = s.cursor
        s.cursor += count
        m.coded[plane] = (1 << (count >> 4)) - 1
        for i in range(8):
            m.total_coeff[plane, i] = 16
    m.cbp = 0x2F
    m.dc = 7
    m.chroma_mode = 0
    m.transform8x8 = 0
    m.qp = -s.qp_offset[0]
    s.qp_changed = 0
    if s.cabac:
        start_engine(s, s.bit >> 3)


@compiled
def _read_intra(s, t):
    """Read prediction modes and coded_block_pattern of an intra macroblock other than I_PCM."""
    if s.kind == I_16X16:
        value = s.intra16_mode - 1
        s.intra16_mode = value & 3
        s.cbp = ((value >> 2) % 3) * 16 + (15 if value >= 12 else 0)
    else:
        if s.transform8x8_mode:
            s.transform8x8 = _transform_flag(s, t)
        if s.transform8x8:
            s.kind = I_8X8
        if s.lossless:
            gather_intra_modes(s)
        for block in range(0, 16, 4 if s.transform8x8 else 1):
            mode = cabac_syntax.intra_pred_mode(s, t) if s.cabac else _read_mode(s)
            if s.lossless:
                _set_intra_mode(s, block, mode)
    if s.chroma == 1 or s.chroma == 2:
        if s.cabac:
            s.chroma_mode = cabac_syntax.intra_chroma_pred_mode(s, t)
        else:
            s.chroma_mode = read_ue(s)
            if s.chroma_mode > 3:
                s.fault = faults.INTRA_MODE
    if s.kind != I_16X16:
        _read_coded_block_pattern(s, t)


@compiled
def _read_mode(s):
    """Read prev_intra_pred_mode_flag and rem_intra_pred_mode in variable-length code; -1 for the predicted mode."""
    return -1 if read_bits(s, 1) else read_bits(s, 3)


@compiled
def _set_intra_mode(s, block, mode):
    """Set Intra4x4PredMode or Intra8x8PredMode (8-41, 8-72) from the coded mode, -1 for the predicted one."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    x = (block & 1) + ((block >> 1) & 2)
    y = ((block >> 1) & 1) + ((block >> 2) & 2)
    cell = 6 + 5 * y + x
    above = s.intra_mode[cell - 5]
    left = s.intra_mode[cell - 1]
    predicted = 2 if above < 0 or left < 0 else min(above, left)
    if mode < 0:
        mode = predicted
    elif mode >= predicted:
        mode += 1
    size = 2 if s.transform8x8 else 1
    for dy in range(size):
        for dx in range(size):
            s.intra_mode[cell + 5 * dy + dx] = mode
            mbs[s.mb].intra_mode[(y + dy) * 4 + x + dx] = mode


@compiled
def _read_inter(s, t):
    """Read partitions, motion and coded_block_pattern of an inter macroblock."""
    small = False
    if s.kind == P_8X8 or s.kind == B_8X8:
        small = read_sub_types(s, t)
    if s.kind == B_DIRECT:
        small = not s.direct8x8
    elif not s.fault:
        read_motion(s, t)
        if s.cabac:
            store_motion(s)
        if s.motion:
            keep_motion(s)
    if s.fault:
        return
    _read_coded_block_pattern(s, t)
    if s.cbp & 15 and s.transform8x8_mode and not small:
        s.transform8x8 = _transform_flag(s, t)


@compiled
def _transform_flag(s, t):
    return cabac_syntax.transform_size_8x8_flag(s, t) if s.cabac else read_bits(s, 1)


@compiled
def _read_coded_block_pattern(s, t):
    """Read coded_block_pattern in variable-length code, by me(v) (9.1.2)."""
    if s.cabac:
        s.cbp = cabac_syntax.coded_block_pattern(s, t)
        return
    code = read_ue(s)
    grey = s.chroma == 0 or s.chroma == 3
    if code > (15 if grey else 47):
        s.fault = faults.CODED_BLOCK_PATTERN
        return
    s.cbp = t.coded_block_pattern[np.int64(grey), 1 - s.intra, code]


@compiled
def _read_qp_delta(s, t):
    """Read mb_qp_delta and derive QPY (7-37); lossless where QP'Y is 0 and the stream allows it."""
    delta = cabac_syntax.mb_qp_delta(s, t) if s.cabac else read_se(s)
    offset = s.qp_offset[0]
    if delta < -(26 + offset // 2) or delta > 25 + offset // 2:
        s.fault = faults.MB_QP_DELTA
        return
    s.qp_changed = np.int64(delta != 0)
    s.qp = (s.qp + delta + 52 + 2 * offset) % (52 + offset) - offset
    s.bypass = np.int64(s.lossless != 0 and s.qp + offset == 0)
