"""Transform trees: division of a coding unit into transform units (Rec. ITU-T H.265, 7.3.8.8)."""

from __future__ import annotations

from codecmeta.entropy.cabac import decision
from codecmeta.hevc.tables import CBF_CHROMA, CBF_LUMA, SPLIT_TRANSFORM
from codecmeta.hevc.transform_unit import read_transform_unit
from codecmeta.simd.numba_compile import compiled, inlined


@inlined
def _push(s, top, x, y, log2, depth, part, cb, cr):
    node = s.transform_tree[top]
    node[0], node[1], node[2], node[3], node[4], node[5], node[6] = x, y, log2, depth, part, cb, cr


@compiled
def read_transform_tree(s, t):
    """Read transform_tree (7.3.8.8) of the current coding unit, node by node in coding order."""
    quartered = s.intra != 0 and s.part != 0
    deepest = s.max_depth_intra + (1 if quartered else 0) if s.intra else s.max_depth_inter
    split_first = quartered or (s.max_depth_inter == 0 and not s.intra and s.part != 0)
    _push(s, 0, s.cu_x, s.cu_y, s.cu_log2, 0, 0, 1, 1)
    top = 1
    while top > 0 and not s.fault:
        top -= 1
        node = s.transform_tree[top]
        x, y, log2, depth, part = node[0], node[1], node[2], node[3], node[4]
        parent_cb, parent_cr = node[5], node[6]
        if log2 <= s.log2_max_tb and log2 > s.log2_min_tb and depth < deepest and not (quartered and depth == 0):
            split = decision(s, t, SPLIT_TRANSFORM + 5 - log2) != 0
        else:
            split = log2 > s.log2_max_tb or (split_first and depth == 0)
        cb, cr = 0, 0
        if s.chroma == 3 or (s.chroma and log2 > 2):
            two = s.chroma == 2 and (not split or log2 == 3)
            if parent_cb:
                cb = decision(s, t, CBF_CHROMA + depth)
                if two:
                    cb |= decision(s, t, CBF_CHROMA + depth) << 1
            if parent_cr:
                cr = decision(s, t, CBF_CHROMA + depth)
                if two:
                    cr |= decision(s, t, CBF_CHROMA + depth) << 1
        elif s.chroma:
            cb, cr = parent_cb, parent_cr
        if split:
            half = 1 << (log2 - 1)
            for i in range(4):
                blk = 3 - i
                _push(s, top + i, x + half * (blk & 1), y + half * (blk >> 1), log2 - 1, depth + 1, blk, cb, cr)
            top += 4
            continue
        luma = 1
        if s.intra or depth or cb or cr:
            luma = decision(s, t, CBF_LUMA + (0 if depth else 1))
        read_transform_unit(s, t, x, y, log2, part, luma, cb, cr)
