"""Records that compiled code works on: the slice being read, and the state stored per macroblock."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.slice_state import READING
from codecmeta.simd.borrowed_array import array_at

MACROBLOCK = np.dtype(
    [
        ("slice", "i4"),
        ("bits", "i4"),
        ("kind", "u1"),
        ("field", "u1"),
        ("qp", "i1"),
        ("cbp", "u1"),
        ("transform8x8", "u1"),
        ("chroma_mode", "u1"),
        ("dc", "u1"),
        ("coded", "u2", (3,)),
        ("first", "i4", (3,)),
        ("total_coeff", "u1", (3, 8)),
        ("ref", "u1", (2, 4)),
        ("mvd_right", "u1", (2, 4, 2)),
        ("mvd_bottom", "u1", (2, 4, 2)),
        ("intra_mode", "i1", (16,)),
    ],
    align=True,
)
"""Macroblock state, at its macroblock address.

slice: number of the slice it belongs to, unique within a reader; anything older is not of this picture.
bits: bits of the slice data it took.  kind: see `codecmeta.record.macroblock_types`.  field: it is a field macroblock.
cbp: CodedBlockPatternLuma + 16 * CodedBlockPatternChroma.  dc: coded_block_flag of the Y, Cb, Cr DC blocks.
coded: bit b of plane p is set if its 4x4 block b (transform.block_index) has samples; they follow each other from
`first` on.
total_coeff: by plane, of the 4x4 blocks along the bottom and the right edge, four each (fewer for subsampled chroma);
only valid where cbp is not 0.  ref: min(ref_idx, 2) by list and 8x8 block.  mvd_right, mvd_bottom: |mvd|, at most
255, of the 4x4 blocks along the right and bottom edge, by list and component.  intra_mode: Intra4x4PredMode of
every 4x4 block in raster order, kept for streams with lossless macroblocks only.
"""

MOTION = np.dtype(
    [
        ("lists", "u1", (4,)),
        ("shape", "u1", (4,)),
        ("ref", "i1", (2, 4)),
        ("mvd", "i2", (2, 16, 2)),
    ],
    align=True,
)
"""Motion syntax of one macroblock that is predicted from other pictures and neither skipped nor wholly direct.

lists: reference lists that each macroblock or sub-macroblock partition uses, bits 0 and 1; 0 for direct prediction.
shape: of each sub-macroblock: 0, 1, 2, 3 for 8x8, 8x4, 4x8, 4x4.  ref: ref_idx by list and 8x8 block.  mvd: by list and
4x4 block in raster order, modulo 2^16.
"""

SLICE = np.dtype(
    [
        *READING,
        # addresses of the picture's macroblocks, motion (0 where it is not kept) and samples (`macroblocks_at`, ...)
        ("macroblocks", "i8"),
        ("motion", "i8"),
        ("samples", "i8"),
        ("sample_count", "i8"),
        ("cursor", "i8"),
        ("covered", "i8"),
        # from the headers
        ("number", "i8"),
        ("first_number", "i8"),
        ("slice_type", "i8"),
        ("cabac", "i8"),
        ("mbaff", "i8"),
        ("field_picture", "i8"),
        ("chroma", "i8"),
        ("width", "i8"),
        ("count", "i8"),
        ("references", "i8", (2,)),
        ("transform8x8_mode", "i8"),
        ("direct8x8", "i8"),
        ("constrained_intra", "i8"),
        ("lossless", "i8"),
        ("depth_luma", "i8"),
        ("depth_chroma", "i8"),
        ("qp_offset", "i8", (3,)),
        ("scale_list", "i8"),
        ("old_8x8_flags", "i8"),
        # the macroblock being read
        ("mb", "i8"),
        ("column", "i8"),
        ("field", "i8"),
        ("kind", "i8"),
        ("intra", "i8"),
        ("intra16_mode", "i8"),
        ("cbp", "i8"),
        ("transform8x8", "i8"),
        ("chroma_mode", "i8"),
        ("qp", "i8"),
        ("qp_changed", "i8"),
        ("bypass", "i8"),
        ("top", "i8"),
        ("left", "i8", (4,)),
        ("left_row", "i8", (4,)),
        ("first_only", "i8"),
        ("part_lists", "i8", (4,)),
        ("part_shape", "i8", (4,)),
        ("ref_idx", "i8", (2, 4)),
        # neighbours' values around the macroblock's own, rows of 5 (4x4 blocks) or 3 (8x8 blocks)
        ("total_coeff", "u1", (3, 25)),
        ("mvd", "i4", (2, 25, 2)),
        ("ref", "u1", (2, 9)),
        ("intra_mode", "i8", (25,)),
        # the block being read
        ("place", "u1", (64,)),
        ("level", "i4", (64,)),
        ("coefficient", "i4", (64,)),
        ("dc", "i4", (16,)),
        # tables of this slice
        ("context", "u8", (1024,)),
        ("scale4", "i4", (6, 6, 16)),
        ("scale8", "i4", (6, 6, 64)),
    ],
    align=True,
)
"""State of the slice being read. One record serves a reader for all its slices.

number: see MACROBLOCK.slice; first_number: number of the picture's first slice.  chroma: ChromaArrayType.
cursor: index of the next sample.  covered: number of macroblocks read so far.
width: PicWidthInMbs; count: PicSizeInMbs.  qp_offset: QpBdOffsetY, then chroma_qp_index_offset of Cb and Cr.
top, left: addresses of the neighbours above and left of each 4x4 row, -1 if not available; left_row: the 4x4 row there.
first_only: all ref_idx are 0, as mb_type P_8x8ref0 implies.
part_lists, part_shape: of each (sub-)macroblock partition, as in tables.TABLES["b_sub"].
ref_idx: by list and 8x8 block.
place, level: scan index and transform coefficient level of the block's coefficients.
scale_list: first of the scaling lists (0, 1, 2) for a colour plane that is coded on its own.
old_8x8_flags: coded_block_flag of 8x8 blocks has the contexts of x264 before build 151, see `gather_total_coeff`.
"""

macroblocks_at = array_at(MACROBLOCK)
"""(s.macroblocks, s.count) -> the picture's macroblocks by address: records of type `MACROBLOCK`."""

motion_at = array_at(MOTION)
"""(s.motion, s.count) -> their motion syntax: records of type `MOTION`."""

samples_at = array_at(np.int16)
"""(s.samples, s.sample_count) -> its residual samples: int16, see transform.py."""
