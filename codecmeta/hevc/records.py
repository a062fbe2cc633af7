"""Records that compiled code works on: the slice segment being read, and the state stored per 16x16 cell."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.slice_state import READING
from codecmeta.hevc.tables import STORED
from codecmeta.simd.borrowed_array import array_at

CELL = np.dtype([("bits", "u4"), ("kind", "u1"), ("qp", "i1")], align=True)
"""State of a 16x16 cell of the picture, in raster order.

bits: of the slice segment data that it took; those of a larger coding unit are split evenly, the remainder to its first
cells.  kind: as in `codecmeta.h264.records`, see coding_unit.py.  qp: QpY of the coding unit at its upper left.
"""

SLICE = np.dtype(
    [
        *READING,
        # addresses of the picture's arrays (picture.py), and their sizes
        ("cells", "i8"),
        ("cell_count", "i8"),
        ("plane", "i8", (3,)),
        ("plane_size", "i8", (3,)),
        ("marks", "i8", (3,)),
        ("mark_count", "i8"),
        ("ctb_slice", "i8"),
        ("layout", "i8"),
        ("layout_size", "i8"),
        ("line", "i8"),
        ("line_size", "i8"),
        ("coefficients", "i8"),
        ("half", "i8"),
        ("matrix_columns", "i8"),
        ("matrix_pairs", "i8"),
        ("factors", "i8"),
        # from the sequence parameter set
        ("chroma", "i8"),
        ("shift_x", "i8"),
        ("shift_y", "i8"),
        ("width", "i8"),
        ("height", "i8"),
        ("depth", "i8"),
        ("qp_bd_offset", "i8"),
        ("log2_ctb", "i8"),
        ("log2_min_cb", "i8"),
        ("log2_min_tb", "i8"),
        ("log2_max_tb", "i8"),
        ("max_depth_inter", "i8"),
        ("max_depth_intra", "i8"),
        ("width_ctbs", "i8"),
        ("height_ctbs", "i8"),
        ("width_cells", "i8"),
        ("width_marks", "i8"),
        ("amp", "i8"),
        ("pcm", "i8"),
        ("pcm_depth", "i8", (2,)),
        ("pcm_log2_min", "i8"),
        ("pcm_log2_max", "i8"),
        ("rotation", "i8"),
        ("skip_context", "i8"),
        ("implicit_rdpcm", "i8"),
        ("explicit_rdpcm", "i8"),
        ("persistent_rice", "i8"),
        # from the picture parameter set
        ("scaling", "i8"),
        ("sign_hiding", "i8"),
        ("qp_delta_enabled", "i8"),
        ("log2_min_qp_delta", "i8"),
        ("bypass_enabled", "i8"),
        ("tiles", "i8"),
        ("sync", "i8"),
        ("dependent_slices", "i8"),
        ("log2_max_skip", "i8"),
        ("cross_component", "i8"),
        ("offset_count", "i8"),
        ("offset_list", "i8", (2, 6)),
        ("log2_min_chroma_offset", "i8"),
        # from the slice segment header
        ("number", "i8"),
        ("slice_type", "i8"),
        ("init_type", "i8"),
        ("sao_luma", "i8"),
        ("sao_chroma", "i8"),
        ("references", "i8", (2,)),
        ("mvd_l1_zero", "i8"),
        ("merge_candidates", "i8"),
        ("slice_qp", "i8"),
        ("qp_offset", "i8", (2,)),
        ("chroma_offset_enabled", "i8"),
        # the coding tree unit
        ("ctb", "i8"),
        ("left_available", "i8"),
        ("above_available", "i8"),
        ("marked", "i8"),
        # the quantisation group
        ("qp", "i8"),
        ("qp_before", "i8"),
        ("qp_predicted", "i8"),
        ("qp_delta_coded", "i8"),
        ("chroma_offset_coded", "i8"),
        ("chroma_offset", "i8", (2,)),
        # the coding unit
        ("cu_x", "i8"),
        ("cu_y", "i8"),
        ("cu_log2", "i8"),
        ("intra", "i8"),
        ("bypass", "i8"),
        ("part", "i8"),
        ("luma_mode", "i8", (4,)),
        ("chroma_mode", "i8", (4,)),
        ("chroma_derived", "i8", (4,)),
        ("last_cell", "i8"),
        # the transform block
        ("transform_skip", "i8"),
        ("rdpcm", "i8"),
        ("columns", "i8"),
        ("rows", "i8"),
        # neighbours within the coding tree block: rows at the left, columns above
        ("left_depth", "u1", (8,)),
        ("left_skip", "u1", (8,)),
        ("left_qp", "i1", (8,)),
        ("above_qp", "i1", (8,)),
        ("left_mode", "u1", (16,)),
        ("above_mode", "u1", (16,)),
        # nodes still to be read of the coding quadtree and of the transform tree
        ("tree", "i4", (16, 3)),
        ("transform_tree", "i4", (20, 7)),
        # the sub-block being read
        ("place", "u1", (32,)),
        ("level", "i8", (32,)),
        # a transform block that needs more than the inverse transform
        ("block", "i4", (1024,)),
        ("luma_block", "i4", (1024,)),
        ("scratch", "i4", (1024,)),
        # context variables: of this segment, after the second unit of the row above, at the end of the last segment
        ("context", "u8", (STORED,)),
        ("row_context", "u8", (STORED,)),
        ("segment_context", "u8", (STORED,)),
    ],
    align=True,
)
"""State of the slice segment being read. One record serves a reader for all its slices.

number: of its slice, unique within a reader; anything older is not of this picture.  layout: int32, the tile scan, then
for each column of coding tree blocks the first column of its tile and the one after its last, then for each row the
first row of its tile.  line: uint8, CtDepth of the coding blocks above in units of 8 samples, then their cu_skip_flag.
marks: uint8 of each channel, 1 for each 8x8 luma block (and its chroma) that has samples.
chroma: ChromaArrayType; shift_x, shift_y: log2 of SubWidthC and SubHeightC.  scaling: scaling lists are in use.
marked: bits of the segment that are accounted for.  qp: QpY of the current coding unit; qp_before: of the one before.
part: PartMode.  chroma_derived: intra_chroma_pred_mode is 4; it and the modes by quarter of the coding unit.
rdpcm: 0 without, 1 horizontal, 2 vertical.  columns, rows: extent of the coefficients of a block.
context: words of the engine, and StatCoeff.
"""

cells_at = array_at(CELL)
"""(s.cells, s.cell_count) -> records of type `CELL`."""

samples_at = array_at(np.int16)
"""(address, count) -> int16: s.plane, s.coefficients, s.half."""

bytes_at = array_at(np.uint8)
"""(address, count) -> uint8: s.marks, s.line, s.factors."""

numbers_at = array_at(np.int32)
"""(address, count) -> int32: s.ctb_slice, s.layout."""
