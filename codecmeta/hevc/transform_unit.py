"""Transform units: transform blocks of a coding unit, read and transformed (Rec. ITU-T H.265, 7.3.8.10, 7.3.8.12)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import decision
from codecmeta.hevc.quantisation import chroma_qp, read_chroma_offset, read_qp_delta
from codecmeta.hevc.residual_coding import read_levels
from codecmeta.hevc.scaling_lists import FIRST_FACTOR
from codecmeta.hevc.tables import (
    DIAGONAL,
    DST,
    EXPLICIT_RDPCM,
    EXPLICIT_RDPCM_DIR,
    HORIZONTAL,
    RES_SCALE_ABS,
    RES_SCALE_SIGN,
    TRANSFORM_SKIP,
    VERTICAL,
)
from codecmeta.hevc.transform import expand, inverse_transform, mark, store
from codecmeta.simd.numba_compile import compiled, inlined

_HORIZONTAL_MODE, _VERTICAL_MODE = 10, 26


@compiled
def read_transform_unit(s, t, x, y, log2, part, luma, cb, cr):
    """Read transform_unit (7.3.8.10).

    Args:
        x, y: position of the unit in luma samples.
        log2: of its size.
        part: blkIdx.
        luma: cbf_luma.
        cb, cr: cbf_cb and cbf_cr, in bit 1 that of the lower block of 4:2:2; those of the parent for 4x4 units.
    """
    if not (luma or cb or cr):
        return
    if s.qp_delta_enabled and not s.qp_delta_coded:
        read_qp_delta(s, t)
    if s.chroma_offset_enabled and (cb or cr) and not s.bypass and not s.chroma_offset_coded:
        read_chroma_offset(s, t)
    half = 1 << (s.cu_log2 - 1)
    quarter = np.int64(x >= s.cu_x + half) + 2 * np.int64(y >= s.cu_y + half)
    if luma:
        _read_block(s, t, 0, x, y, log2, s.luma_mode[quarter], 0)
    if not (cb or cr or s.cross_component):
        return
    if log2 > 2 or s.chroma == 3:
        across = x >> s.shift_x
        down = y >> s.shift_y
        log2 -= s.shift_x
    elif part == 3:
        across = (x & ~7) >> s.shift_x
        down = (y & ~7) >> s.shift_y
        quarter = 0
    else:
        return
    crossed = s.cross_component and luma and (not s.intra or s.chroma_derived[quarter])
    for plane in range(1, 3):
        coded = cb if plane == 1 else cr
        res_scale = _read_res_scale(s, t, plane - 1) if crossed else 0
        if coded & 1:
            _read_block(s, t, plane, across, down, log2, s.chroma_mode[quarter], res_scale)
        elif res_scale:
            _predict_only(s, plane, across, down, log2, res_scale)
        if coded & 2:
            _read_block(s, t, plane, across, down + (1 << log2), log2, s.chroma_mode[quarter], 0)


@compiled
def _read_res_scale(s, t, c):
    """Read ResScaleVal from cross_comp_pred (7.3.8.12, 7-84)."""
    value = 0
    while value < 4 and decision(s, t, RES_SCALE_ABS + 4 * c + value):
        value += 1
    if value == 0:
        return 0
    magnitude = 1 << (value - 1)
    return -magnitude if decision(s, t, RES_SCALE_SIGN + c) else magnitude


@inlined
def _scan(s, plane, log2, mode):
    """Return scanIdx (7.4.9.11)."""
    if s.intra and (log2 == 2 or (log2 == 3 and (plane == 0 or s.chroma == 3))):
        if 6 <= mode <= 14:
            return VERTICAL
        if 22 <= mode <= 30:
            return HORIZONTAL
    return DIAGONAL


@compiled
def _read_block(s, t, plane, x, y, log2, mode, res_scale):
    """Read residual_coding (7.3.8.11) of a coded block, and compute its residual samples.

    Args:
        x, y: position in samples of the plane.
        mode: intra prediction mode of the block.
        res_scale: ResScaleVal of cross-component prediction.
    """
    chroma = np.int64(plane > 0)
    s.transform_skip = 0
    s.rdpcm = 0
    if log2 <= s.log2_max_skip and not s.bypass:
        s.transform_skip = decision(s, t, TRANSFORM_SKIP + chroma)
    hiding = s.sign_hiding != 0
    if s.bypass or s.transform_skip:
        if not s.intra:
            if s.explicit_rdpcm and decision(s, t, EXPLICIT_RDPCM + chroma):
                s.rdpcm = 1 + decision(s, t, EXPLICIT_RDPCM_DIR + chroma)
                hiding = False
        elif s.implicit_rdpcm and mode in (_HORIZONTAL_MODE, _VERTICAL_MODE):
            s.rdpcm = 1 if mode == _HORIZONTAL_MODE else 2
            hiding = False
    if s.bypass:
        hiding = False
    scan = _scan(s, plane, log2, mode)
    if s.bypass:
        read_levels(s, t, chroma, log2, scan, hiding, 1, -1, 1, 0, 0)
    else:
        qp = chroma_qp(s, t, plane) if plane else s.qp + s.qp_bd_offset
        weights = -1
        if s.scaling and not (s.transform_skip and log2 > 2):
            weights = FIRST_FACTOR[log2 - 2] + (((0 if s.intra else 3) + plane) << (2 * log2))
        shift = s.depth + log2 - 5
        scale = np.int64(t.level_scale[qp % 6]) << (qp // 6)
        read_levels(s, t, chroma, log2, scan, hiding, 16, weights, scale, np.int64(1) << (shift - 1), shift)
    if s.fault:
        return
    mark(s, plane, x, y, log2)
    matrix = DST if s.intra and plane == 0 and log2 == 2 else log2 - 1
    if not (s.bypass or s.transform_skip or s.cross_component):
        inverse_transform(s, plane, x, y, log2, matrix)
        return
    expand(s, t, log2, matrix)
    if plane == 0 and s.cross_component:
        for i in range(1 << (2 * log2)):
            s.luma_block[i] = s.block[i]
    if res_scale:
        _add_luma(s, log2, res_scale)
    store(s, plane, x, y, log2)


@compiled
def _predict_only(s, plane, x, y, log2, res_scale):
    """Store a chroma block without coefficients that is predicted from the luma residual."""
    s.block[: 1 << (2 * log2)] = 0
    _add_luma(s, log2, res_scale)
    mark(s, plane, x, y, log2)
    store(s, plane, x, y, log2)


@inlined
def _add_luma(s, log2, res_scale):
    """Apply cross-component prediction (8.6.6)."""
    for i in range(1 << (2 * log2)):
        s.block[i] += (res_scale * s.luma_block[i]) >> 3
