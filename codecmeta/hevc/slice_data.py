"""Slice segment data: coding tree units in tile scan, tiles and wavefronts (Rec. ITU-T H.265, 7.3.8.1, 9.3.1)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import position, start_engine, terminate
from codecmeta.entropy.slice_bits import PADDING, find_stop_bit
from codecmeta.hevc import faults
from codecmeta.hevc.coding_tree import read_coding_tree, read_sao
from codecmeta.hevc.coding_unit import take_bits
from codecmeta.hevc.contexts import copy_contexts, start_contexts
from codecmeta.hevc.quantisation import start_qp
from codecmeta.hevc.records import cells_at, numbers_at
from codecmeta.simd.numba_compile import compiled, entry


@entry
def read_segment(state, tables, data, first, byte, dependent):
    """Read slice_segment_data (7.3.8.1), all coding tree units of a slice segment.

    Args:
        state: one record of type `SLICE` with the values of the headers.
        tables: one record of type `TABLES`.
        data: uint8, the RBSP and `PADDING` zero bytes.
        first: CtbAddrInTs of the first coding tree unit.
        byte: first byte of the data.
        dependent: dependent_slice_segment_flag.

    Returns:
        Fault (faults.py), coding tree units read, and the address of the last of them.
    """
    s = state[0]
    t = tables[0]
    s.data = data.ctypes.data
    s.end = data.size - PADDING
    s.stop = find_stop_bit(data, s.end)
    s.fault = faults.NONE
    if not dependent:
        start_qp(s)
        s.chroma_offset[0] = s.chroma_offset[1] = 0
    s.qp_delta_coded = s.chroma_offset_coded = 0
    s.marked = 8 * byte
    start_engine(s, byte)
    layout = numbers_at(s.layout, s.layout_size)
    count = s.width_ctbs * s.height_ctbs
    at = first
    last = False
    while not last and not s.fault:
        if at >= count:
            s.fault = faults.BEYOND_PICTURE
            break
        s.ctb = layout[at]
        begins_tile, begins_row = _enter(s, layout)
        if begins_tile or begins_row or at == first:
            _start(s, t, begins_tile, begins_row, at == first, dependent)
        _read_unit(s, t)
        at += 1
        if s.fault:
            break
        if s.sync and s.ctb % s.width_ctbs == 1:
            copy_contexts(s.context, s.row_context)
        last = terminate(s) != 0
        if position(s) > s.stop + 1:
            s.fault = faults.CUT_SHORT
        elif not last and at < count and _ends_subset(s, layout, at):
            if not terminate(s):
                s.fault = faults.SUBSET_END
            else:
                start_engine(s, (position(s) + 7) >> 3)
    if s.dependent_slices:
        copy_contexts(s.context, s.segment_context)
    if not s.fault:
        cells_at(s.cells, s.cell_count)[s.last_cell].bits += take_bits(s)
        if position(s) - 1 != s.stop:
            s.fault = faults.NOT_AT_END
    return s.fault, at - first, s.ctb


@compiled
def _enter(s, layout):
    """Claim a coding tree unit for the slice; find its neighbours (6.4.1).

    Returns:
        Whether it is the first of a tile, and whether the first of a row of a tile.
    """
    slices = numbers_at(s.ctb_slice, s.width_ctbs * s.height_ctbs)
    slices[s.ctb] = s.number
    row, column = s.ctb // s.width_ctbs, s.ctb % s.width_ctbs
    columns = s.width_ctbs * s.height_ctbs
    first_column = layout[columns + column]
    first_row = layout[columns + 2 * s.width_ctbs + row]
    s.left_available = np.int64(column > first_column and slices[s.ctb - 1] == s.number)
    s.above_available = np.int64(row > first_row and slices[s.ctb - s.width_ctbs] == s.number)
    return column == first_column and row == first_row, column == first_column


@compiled
def _start(s, t, begins_tile, begins_row, begins_segment, dependent):
    """Set context variables and QP at the start of a segment, a tile or, with wavefronts, a row (9.3.1)."""
    if begins_tile:
        start_qp(s)
        start_contexts(s, t)
    elif s.sync and begins_row:
        start_qp(s)
        slices = numbers_at(s.ctb_slice, s.width_ctbs * s.height_ctbs)
        if s.width_ctbs > 1 and slices[s.ctb - s.width_ctbs + 1] == s.number:
            copy_contexts(s.row_context, s.context)
        else:
            start_contexts(s, t)
    elif begins_segment:
        if dependent:
            copy_contexts(s.segment_context, s.context)
        else:
            start_contexts(s, t)


@compiled
def _read_unit(s, t):
    """Read coding_tree_unit (7.3.8.2)."""
    if s.sao_luma or s.sao_chroma:
        read_sao(s, t)
    row, column = s.ctb // s.width_ctbs, s.ctb % s.width_ctbs
    read_coding_tree(s, t, column << s.log2_ctb, row << s.log2_ctb)


@compiled
def _ends_subset(s, layout, following):
    """Return whether the next coding tree unit in tile scan begins another tile or, with wavefronts, another row."""
    if not (s.tiles or s.sync):
        return False
    ctb = np.int64(layout[following])
    row, column = ctb // s.width_ctbs, ctb % s.width_ctbs
    columns = s.width_ctbs * s.height_ctbs
    begins_row = column == layout[columns + column]
    return begins_row and (s.sync or row == layout[columns + 2 * s.width_ctbs + row])
