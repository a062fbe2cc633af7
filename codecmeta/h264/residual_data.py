"""Residual data of a macroblock: which blocks are coded, and their samples (Rec. ITU-T H.264, 7.3.5.3, 8.5)."""

from __future__ import annotations

import numpy as np

from codecmeta.h264 import cabac, cavlc
from codecmeta.h264.cabac_syntax import dc_flag_increment
from codecmeta.h264.neighbours import UNAVAILABLE, gather_total_coeff, store_total_coeff
from codecmeta.h264.records import macroblocks_at, samples_at
from codecmeta.h264.tables import CHROMA_DC_422
from codecmeta.h264.transform import (
    accumulate,
    flat_block,
    inverse_4x4,
    inverse_8x8,
    inverse_chroma_dc,
    inverse_luma_dc,
    saturate,
    scatter_4x4,
    scatter_8x8,
    store_8x8,
)
from codecmeta.record.macroblock_types import I_16X16
from codecmeta.simd.numba_compile import compiled, inlined

LUMA_SAMPLES = 256


@inlined
def chroma_samples(chroma):
    """Return the number of samples of one chroma plane in a macroblock, by ChromaArrayType."""
    return 32 << chroma if chroma else 0


@compiled
def read_residual(s, t):
    """Read residual (7.3.5.3) and transform it; store the samples and which blocks have any."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    gather_total_coeff(s)
    m = mbs[s.mb]
    m.first[0] = s.cursor
    m.coded[0] = _luma(s, t, 0, s.qp + s.qp_offset[0])
    if s.chroma == 3:
        for plane in range(1, 3):
            m.first[plane] = s.cursor
            m.coded[plane] = _luma(s, t, plane, chroma_qp(s, t, plane))
    elif s.chroma and s.cbp & 0x30:
        _chroma(s, t)
    if s.cbp:
        store_total_coeff(s)


@compiled
def chroma_qp(s, t, plane):
    """Return QP'C of the Cb (1) or Cr (2) plane (8.5.8)."""
    range_offset = 6 * (s.depth_chroma - 8)
    index = min(max(s.qp + s.qp_offset[plane], -range_offset), 51)
    return (np.int64(t.chroma_qp[index]) if index >= 0 else index) + range_offset


@inlined
def _block(s, t, category, cell, plane, count):
    """Read a residual block whose neighbours are counted in `s.total_coeff`; store and return its count."""
    left = np.int64(s.total_coeff[plane, cell - 1])
    top = np.int64(s.total_coeff[plane, cell - 5])
    if s.cabac:
        flag = np.int64(left > 0) + 2 * np.int64(top > 0)
        n = cabac.residual_block(s, t, category, count, flag)
    else:
        n = cavlc.residual_block(s, t, _token_table(left, top), count)
    s.total_coeff[plane, cell] = n
    return n


@inlined
def _token_table(left, top):
    """Choose the coeff_token table from the neighbours' counts, by nC (9.2.1)."""
    total = left + top
    if total < UNAVAILABLE:
        total = (total + 1) >> 1
    total &= UNAVAILABLE - 1
    return 0 if total < 2 else 1 if total < 4 else 2 if total < 8 else 3


@compiled
def _luma(s, t, plane, qp):
    """Read residual_luma (7.3.5.3.1) of Y, or of Cb or Cr in 4:4:4; return the mask of blocks with samples."""
    category = (0, 6, 10)[plane]
    scale = (plane if s.chroma == 3 else s.scale_list) + (0 if s.intra else 3)
    if s.kind == I_16X16:
        return _luma_16x16(s, t, plane, category, scale, qp)
    coded = 0
    for block8 in range(4):
        if not (s.cbp >> block8) & 1:
            continue
        x8, y8 = (block8 & 1) * 2, (block8 >> 1) * 2
        if s.transform8x8:
            if _luma_8x8(s, t, plane, 6 + 5 * y8 + x8, scale, qp):
                coded |= 15 << (4 * block8)
            continue
        for block4 in range(4):
            cell = 6 + 5 * (y8 + (block4 >> 1)) + x8 + (block4 & 1)
            n = _block(s, t, category + 2, cell, plane, 16)
            if n:
                coded |= 1 << (4 * block8 + block4)
                if s.bypass:
                    _bypass_4x4(s, t, n, _direction(s, cell))
                else:
                    scatter_4x4(s, t, n, scale, qp)
                    if n == 1 and s.place[0] == 0:
                        flat_block(s, s.coefficient[0])
                        s.coefficient[0] = 0
                    else:
                        inverse_4x4(s)
    return coded


@compiled
def _luma_8x8(s, t, plane, cell, scale, qp):
    """Read an 8x8 block, in variable-length code four interleaved 4x4 blocks; return its count."""
    n = 0
    if s.cabac:
        category = (5, 9, 13)[plane]
        if s.chroma != 3:
            n = cabac.residual_block(s, t, category, 64, -1)
            s.total_coeff[plane, cell] = n
        else:
            n = _block(s, t, category, cell, plane, 64)
        count = s.total_coeff[plane, cell]
        s.total_coeff[plane, cell + 1] = count
        s.total_coeff[plane, cell + 5] = count
        s.total_coeff[plane, cell + 6] = count
        if n:
            _scatter(s, t, n, scale, qp)
    else:
        for part in range(4):
            found = _block(s, t, 0, cell + (part & 1) + 5 * (part >> 1), plane, 16)
            for i in range(found):
                s.place[i] = 4 * s.place[i] + part
            _scatter(s, t, found, scale, qp)
            n += found
    if n:
        if s.bypass:
            at = s.cursor
            store_8x8(s)
            direction = _direction(s, cell)
            if direction >= 0:
                accumulate(s, at, 8, 8, 4, direction)
        else:
            inverse_8x8(s)
    return n


@compiled
def _scatter(s, t, n, scale, qp):
    if s.bypass:
        for i in range(n):
            s.coefficient[t.scan8[s.field, s.place[i]]] = s.level[i]
    else:
        scatter_8x8(s, t, n, scale, qp)


@compiled
def _luma_16x16(s, t, plane, category, scale, qp):
    """Read an Intra_16x16 plane (8.5.2); return the mask of blocks with samples."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    for i in range(16):
        s.dc[i] = 0
    n = 0
    if s.cabac:
        n = cabac.residual_block(s, t, category, 16, dc_flag_increment(s, plane))
        mbs[s.mb].dc |= np.int64(n > 0) << plane
    else:
        table = _token_table(np.int64(s.total_coeff[plane, 5]), np.int64(s.total_coeff[plane, 1]))
        n = cavlc.residual_block(s, t, table, 16)
    for i in range(n):
        s.dc[t.scan4[s.field, s.place[i]]] = s.level[i]
    if n and not s.bypass:
        inverse_luma_dc(s, scale, qp)
    coded = 0
    at = s.cursor
    predicted = s.bypass != 0 and s.intra16_mode < 2
    for block in range(16):
        x = (block & 1) + ((block >> 1) & 2)
        y = ((block >> 1) & 1) + ((block >> 2) & 2)
        n = _block(s, t, category + 1, 6 + 5 * y + x, plane, 15) if s.cbp & 15 else 0
        dc = s.dc[x + 4 * y]
        if n or dc or predicted:
            _with_dc(s, t, n, dc, scale, qp)
            coded |= 1 << block
    if predicted:
        accumulate(s, at, 16, 16, 4, s.intra16_mode)
    return coded


@compiled
def _with_dc(s, t, n, dc, scale, qp):
    """Transform a 4x4 block of `n` AC levels and a DC that is already scaled."""
    if s.bypass:
        s.place[n] = 0
        s.level[n] = dc
        _bypass_4x4(s, t, n + 1, -1)
    elif n == 0:
        flat_block(s, dc)
    else:
        scatter_4x4(s, t, n, scale, qp)
        s.coefficient[0] = dc
        inverse_4x4(s)


@compiled
def _chroma(s, t):
    """Read the Cb and Cr blocks of 4:2:0 and 4:2:2 (8.5.4)."""
    mbs = macroblocks_at(s.macroblocks, s.count)
    blocks = 4 * s.chroma
    m = mbs[s.mb]
    for i in range(16):
        s.dc[i] = 0
    for plane in range(1, 3):
        n = 0
        if not s.cabac:
            n = cavlc.residual_block(s, t, 3 + s.chroma, blocks)
        else:
            n = cabac.residual_block(s, t, 3 if blocks == 4 else CHROMA_DC_422, blocks, dc_flag_increment(s, plane))
            m.dc |= np.int64(n > 0) << plane
        first = 8 * (plane - 1)
        for i in range(n):
            s.dc[first + _chroma_dc_cell(s, s.place[i])] = s.level[i]
        if n and not s.bypass:
            inverse_chroma_dc(s, first, plane + (0 if s.intra else 3), chroma_qp(s, t, plane))
    for plane in range(1, 3):
        at = s.cursor
        m.first[plane] = at
        scale = plane + (0 if s.intra else 3)
        qp = chroma_qp(s, t, plane)
        coded = 0
        predicted = s.bypass != 0 and s.intra != 0 and (s.chroma_mode == 1 or s.chroma_mode == 2)
        for block in range(blocks):
            n = 0
            if s.cbp & 0x20:
                n = _block(s, t, 4, 6 + 5 * (block >> 1) + (block & 1), plane, 15)
            dc = s.dc[8 * (plane - 1) + block]
            if n or dc or predicted:
                _with_dc(s, t, n, dc, scale, qp)
                coded |= 1 << block
        if predicted:
            accumulate(s, at, 8, 2 * blocks, 2, 2 - s.chroma_mode)
        m.coded[plane] = coded


@inlined
def _chroma_dc_cell(s, index):
    # (8-329) and the raster order of (8-328a): index in the DC matrix, rows of two, of chroma DC coefficient `index`
    if s.chroma == 1:
        return np.int64(index)
    return (0, 2, 1, 4, 6, 3, 5, 7)[index]


@inlined
def _direction(s, cell):
    # horPredFlag of 8.5.15 from Intra4x4PredMode or Intra8x8PredMode (0 vertical, 1 horizontal), -1 for all others
    mode = s.intra_mode[cell]
    return mode if s.intra and (mode == 0 or mode == 1) else -1


@compiled
def _bypass_4x4(s, t, n, direction):
    residual = samples_at(s.samples, s.sample_count)
    at = s.cursor
    s.cursor += 16
    for i in range(16):
        residual[at + i] = 0
    for i in range(n):
        residual[at + t.scan4[s.field, s.place[i]]] = saturate(np.int64(s.level[i]))
    if direction >= 0:
        accumulate(s, at, 4, 4, 1, direction)
