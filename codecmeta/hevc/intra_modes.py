"""Intra prediction modes, which select scans and implicit RDPCM (Rec. ITU-T H.265, 7.3.8.5, 8.4.2, 8.4.3)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import bypass, bypass_bins, decision
from codecmeta.hevc.tables import INTRA_CHROMA, PREV_INTRA_LUMA
from codecmeta.simd.numba_compile import compiled

_PLANAR, _DC, _HORIZONTAL, _VERTICAL = 0, 1, 10, 26
_DIAGONAL = 34


@compiled
def keep_mode(s, x, y, size, mode):
    """Store the luma mode of a block for those to its right and below; DC for all that is not intra."""
    inside = (1 << s.log2_ctb) - 1
    row, column = (y & inside) >> 2, (x & inside) >> 2
    for i in range(size >> 2):
        s.left_mode[row + i] = mode
        s.above_mode[column + i] = mode


@compiled
def read_intra_modes(s, t):
    """Read the luma and chroma modes of the current coding unit, with their syntax."""
    parts = 4 if s.part else 1
    size = 1 << (s.cu_log2 - (1 if s.part else 0))
    predicted = 0
    for i in range(parts):
        predicted |= decision(s, t, PREV_INTRA_LUMA) << i
    for i in range(parts):
        x, y = s.cu_x + size * (i & 1), s.cu_y + size * (i >> 1)
        mode = _read_luma_mode(s, x, y, (predicted >> i) & 1)
        s.luma_mode[i] = mode
        keep_mode(s, x, y, size, mode)
    if parts == 1:
        for i in range(1, 4):
            s.luma_mode[i] = s.luma_mode[0]
    if s.chroma == 0:
        return
    chroma_parts = parts if s.chroma == 3 else 1
    for i in range(chroma_parts):
        _read_chroma_mode(s, t, i)
    for i in range(chroma_parts, 4):
        s.chroma_mode[i], s.chroma_derived[i] = s.chroma_mode[0], s.chroma_derived[0]


@compiled
def _read_luma_mode(s, x, y, predicted):
    """Read mpm_idx or rem_intra_luma_pred_mode, and derive the mode (8.4.2)."""
    inside = (1 << s.log2_ctb) - 1
    a = np.int64(s.left_mode[(y & inside) >> 2]) if x & inside or s.left_available else _DC
    b = np.int64(s.above_mode[(x & inside) >> 2]) if y & inside else _DC
    if a != b:
        c = _PLANAR if a != _PLANAR and b != _PLANAR else _DC if a != _DC and b != _DC else _VERTICAL
    elif a < 2:
        a, b, c = _PLANAR, _DC, _VERTICAL
    else:
        b, c = 2 + ((a + 29) & 31), 2 + ((a - 1) & 31)
    if predicted:
        if not bypass(s):
            return a
        return c if bypass(s) else b
    mode = bypass_bins(s, 5)
    low, high = min(a, b), max(a, b)
    least, middle, most = min(low, c), max(low, min(high, c)), max(high, c)
    for candidate in (least, middle, most):
        if mode >= candidate:
            mode += 1
    return mode


@compiled
def _read_chroma_mode(s, t, i):
    """Read intra_chroma_pred_mode, and derive the mode (8.4.3)."""
    luma = s.luma_mode[i]
    mode = luma
    s.chroma_derived[i] = 1
    if decision(s, t, INTRA_CHROMA):
        s.chroma_derived[i] = 0
        mode = (_PLANAR, _VERTICAL, _HORIZONTAL, _DC)[bypass_bins(s, 2)]
        if mode == luma:
            mode = _DIAGONAL
    if s.chroma == 2:
        mode = np.int64(t.chroma_422[mode])
    s.chroma_mode[i] = mode
