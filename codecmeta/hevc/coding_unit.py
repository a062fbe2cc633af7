"""Coding units, and their state stored in 16x16 cells (Rec. ITU-T H.265, 7.3.8.5).

`kind` of a cell uses the names of H.264's macroblock types, so that readers need not know the codec: I_4x4 is an intra
unit divided in four, I_8x8 one of 8x8, I_16x16 a larger one; P_16x16, P_16x8, P_8x16 and P_8x8 are the shapes of inter
units (P_8x8 any that is smaller than the cell), P_Skip a skipped one; likewise for B slices, where a merged 2Nx2N unit
is B_Direct_16x16. A cell of several units is skipped only if all are, and intra if any is.
"""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import bypass, decision, position, terminate
from codecmeta.hevc.intra_modes import keep_mode, read_intra_modes
from codecmeta.hevc.pcm import read_pcm
from codecmeta.hevc.prediction_unit import (
    PART_2NX2N,
    PART_2NXN,
    PART_2NXND,
    PART_2NXNU,
    PART_NLX2N,
    PART_NRX2N,
    PART_NX2N,
    PART_NXN,
    read_merge_index,
    read_prediction_units,
)
from codecmeta.hevc.quantisation import keep_qp
from codecmeta.hevc.records import bytes_at, cells_at
from codecmeta.hevc.slice_header import B, I
from codecmeta.hevc.tables import CU_SKIP, PART_MODE, PRED_MODE, ROOT_CBF, TRANSQUANT_BYPASS
from codecmeta.hevc.transform_tree import read_transform_tree
from codecmeta.record.macroblock_types import (
    B_16X16,
    B_DIRECT,
    B_SKIP,
    I_4X4,
    I_8X8,
    I_16X16,
    I_PCM,
    P_8X8,
    P_8X16,
    P_16X8,
    P_16X16,
    P_SKIP,
)
from codecmeta.simd.numba_compile import compiled, inlined


@compiled
def read_coding_unit(s, t, x, y, log2, depth):
    """Read coding_unit (7.3.8.5).

    Args:
        x, y: position in luma samples.
        log2: of its size.
        depth: cqtDepth.
    """
    s.cu_x, s.cu_y, s.cu_log2 = x, y, log2
    s.bypass = decision(s, t, TRANSQUANT_BYPASS) if s.bypass_enabled else 0
    s.part = PART_2NX2N
    s.intra = 0
    skip = 0 if s.slice_type == I else _read_skip_flag(s, t, x, y)
    pcm, merged = False, 0
    if skip:
        read_merge_index(s, t)
    else:
        s.intra = 1 if s.slice_type == I else decision(s, t, PRED_MODE)
        if not s.intra or log2 == s.log2_min_cb:
            s.part = _read_part_mode(s, t, log2)
        if not s.intra:
            merged = read_prediction_units(s, t, log2, depth)
        elif s.part == PART_2NX2N and s.pcm and s.pcm_log2_min <= log2 <= s.pcm_log2_max and terminate(s):
            pcm = True
            read_pcm(s)
        else:
            read_intra_modes(s, t)
        coded = not pcm
        if not s.intra and not (s.part == PART_2NX2N and merged):
            coded = decision(s, t, ROOT_CBF) != 0
        if coded:
            read_transform_tree(s, t)
    if not s.intra or pcm:
        keep_mode(s, x, y, 1 << log2, 1)
    _keep_depth(s, x, y, log2, depth, skip)
    keep_qp(s, x, y, log2)
    _keep_cells(s, x, y, log2, _kind(s, skip, pcm, merged))


@inlined
def _read_skip_flag(s, t, x, y):
    """Read cu_skip_flag (9.3.4.2.2)."""
    inside = (1 << s.log2_ctb) - 1
    index = CU_SKIP
    if x & inside or s.left_available:
        index += np.int64(s.left_skip[(y & inside) >> 3])
    if y & inside or s.above_available:
        line = bytes_at(s.line, s.line_size)
        index += np.int64(line[(s.line_size >> 1) + (x >> 3)])
    return decision(s, t, index)


@inlined
def _keep_depth(s, x, y, log2, depth, skip):
    """Store CtDepth and cu_skip_flag for the units to the right and below."""
    line = bytes_at(s.line, s.line_size)
    row, column, flags = (y & ((1 << s.log2_ctb) - 1)) >> 3, x >> 3, (s.line_size >> 1) + (x >> 3)
    for i in range(1 << (log2 - 3)):
        s.left_depth[row + i] = depth
        s.left_skip[row + i] = skip
        line[column + i] = depth
        line[flags + i] = skip


@compiled
def _read_part_mode(s, t, log2):
    """Read part_mode (9.3.3.7)."""
    if decision(s, t, PART_MODE):
        return PART_2NX2N
    if s.intra:
        return PART_NXN
    if log2 == s.log2_min_cb:
        if decision(s, t, PART_MODE + 1):
            return PART_2NXN
        if log2 == 3 or decision(s, t, PART_MODE + 2):
            return PART_NX2N
        return PART_NXN
    horizontal = decision(s, t, PART_MODE + 1)
    if not s.amp or decision(s, t, PART_MODE + 3):
        return PART_2NXN if horizontal else PART_NX2N
    second = bypass(s)
    if horizontal:
        return PART_2NXND if second else PART_2NXNU
    return PART_NRX2N if second else PART_NLX2N


@inlined
def _kind(s, skip, pcm, merged):
    if s.intra:
        return I_PCM if pcm else I_4X4 if s.part else I_8X8 if s.cu_log2 == 3 else I_16X16
    in_b = s.slice_type == B
    if skip:
        return B_SKIP if in_b else P_SKIP
    if in_b and s.part == PART_2NX2N and merged:
        return B_DIRECT
    shape = P_16X16
    if s.cu_log2 == 3 or s.part == PART_NXN:
        shape = P_8X8
    elif s.part == PART_2NXN or s.part == PART_2NXNU or s.part == PART_2NXND:
        shape = P_16X8
    elif s.part == PART_NX2N or s.part == PART_NLX2N or s.part == PART_NRX2N:
        shape = P_8X16
    return shape + (B_16X16 - P_16X16 if in_b else 0)


@inlined
def _weight(kind):
    """Return the precedence of skipped, inter and intra units in naming a cell."""
    return 0 if kind in (P_SKIP, B_SKIP) else 2 if kind <= I_PCM else 1


@inlined
def take_bits(s):
    """Return the bits read since the last call."""
    here = position(s)
    bits = here - s.marked
    s.marked = here
    return bits


@compiled
def _keep_cells(s, x, y, log2, kind):
    """Store the unit's kind, QP and bits in its cells."""
    cells = cells_at(s.cells, s.cell_count)
    bits = take_bits(s)
    first = (y >> 4) * s.width_cells + (x >> 4)
    s.last_cell = first
    if log2 == 3:
        cell = cells[first]
        if x & 8 or y & 8:
            cell.bits += bits
            if _weight(kind) > _weight(np.int64(cell.kind)):
                cell.kind = kind
        else:
            cell.bits, cell.kind, cell.qp = bits, kind, s.qp
        return
    side = 1 << (log2 - 4)
    share, more = bits >> (2 * (log2 - 4)), bits & (side * side - 1)
    for row in range(side):
        for column in range(side):
            cell = cells[first + row * s.width_cells + column]
            cell.bits = share + (1 if row * side + column < more else 0)
            cell.kind = kind
            cell.qp = s.qp
