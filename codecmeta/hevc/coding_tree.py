"""Coding tree units: sample adaptive offset and the coding quadtree (Rec. ITU-T H.265, 7.3.8.2 to 7.3.8.4)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import bypass, bypass_bins, decision
from codecmeta.hevc.coding_unit import read_coding_unit
from codecmeta.hevc.quantisation import start_group
from codecmeta.hevc.records import bytes_at
from codecmeta.hevc.tables import SAO_MERGE, SAO_TYPE, SPLIT_CU
from codecmeta.simd.numba_compile import compiled, inlined


@compiled
def read_sao(s, t):
    """Skip sao (7.3.8.3)."""
    if s.left_available and decision(s, t, SAO_MERGE):
        return
    if s.above_available and decision(s, t, SAO_MERGE):
        return
    most = (1 << (min(s.depth, 10) - 5)) - 1
    kind = 0
    for plane in range(3 if s.chroma else 1):
        if not (s.sao_chroma if plane else s.sao_luma):
            continue
        if plane < 2:
            kind = 0
            if decision(s, t, SAO_TYPE):
                kind = 1 + bypass(s)
        if kind == 0:
            continue
        nonzero = 0
        for _ in range(4):
            value = 0
            while value < most and bypass(s):
                value += 1
            nonzero += value > 0
        if kind == 1:
            bypass_bins(s, nonzero + 5)
        elif plane < 2:
            bypass_bins(s, 2)


@inlined
def _read_split_flag(s, t, x, y, depth):
    """Read split_cu_flag (9.3.4.2.2)."""
    inside = (1 << s.log2_ctb) - 1
    index = SPLIT_CU
    if x & inside or s.left_available:
        index += np.int64(s.left_depth[(y & inside) >> 3] > depth)
    if y & inside or s.above_available:
        line = bytes_at(s.line, s.line_size)
        index += np.int64(line[x >> 3] > depth)
    return decision(s, t, index)


@compiled
def read_coding_tree(s, t, x, y):
    """Read coding_quadtree (7.3.8.4), node by node in coding order."""
    s.tree[0, 0], s.tree[0, 1], s.tree[0, 2] = x, y, s.log2_ctb
    top = 1
    while top > 0 and not s.fault:
        top -= 1
        x, y, log2 = np.int64(s.tree[top, 0]), np.int64(s.tree[top, 1]), np.int64(s.tree[top, 2])
        size = 1 << log2
        depth = s.log2_ctb - log2
        split = log2 > s.log2_min_cb
        if split and x + size <= s.width and y + size <= s.height:
            split = _read_split_flag(s, t, x, y, depth) != 0
        if s.qp_delta_enabled and log2 >= s.log2_min_qp_delta:
            start_group(s, x, y)
        if s.chroma_offset_enabled and log2 >= s.log2_min_chroma_offset:
            s.chroma_offset_coded = 0
        if not split:
            read_coding_unit(s, t, x, y, log2, depth)
            continue
        half = size >> 1
        for i in range(4):
            left, upper = x + half * ((3 - i) & 1), y + half * ((3 - i) >> 1)
            if left < s.width and upper < s.height:
                s.tree[top, 0], s.tree[top, 1], s.tree[top, 2] = left, upper, log2 - 1
                top += 1
