"""Partitions, reference indices and motion vector differences (Rec. ITU-T H.264, 7.3.5.1, 7.3.5.2).

The residual does not need vectors; their differences are read because contexts depend on them, and kept where vectors
are requested.
"""

from __future__ import annotations

from codecmeta.entropy.slice_bits import read_se, read_te, read_ue
from codecmeta.h264 import cabac_syntax, faults
from codecmeta.h264.neighbours import gather_motion
from codecmeta.h264.records import motion_at
from codecmeta.h264.slice_header import B
from codecmeta.record.macroblock_types import B_8X8, B_8X16, B_16X8, P_8X8, P_8X16, P_16X8
from codecmeta.simd.numba_compile import compiled, inlined


@compiled
def read_sub_types(s, t):
    """Read sub_mb_type of the four 8x8 blocks; return whether any is split too finely for an 8x8 transform."""
    small = False
    largest = 12 if s.slice_type == B else 3
    for part in range(4):
        value = cabac_syntax.sub_mb_type(s, t) if s.cabac else read_ue(s)
        if value > largest:
            s.fault = faults.SUB_MB_TYPE
            return False
        if s.slice_type == B:
            s.part_lists[part] = t.b_sub[value, 0]
            s.part_shape[part] = t.b_sub[value, 1]
        else:
            s.part_shape[part] = value
        if s.part_lists[part]:
            small |= s.part_shape[part] != 0
        else:
            small |= s.direct8x8 == 0
    return small


@compiled
def read_motion(s, t):
    """Read ref_idx and mvd of all partitions (mb_pred and sub_mb_pred)."""
    parts, across, down = 1, 4, 4
    if s.kind == P_16X8 or s.kind == B_16X8:
        parts, down = 2, 2
    elif s.kind == P_8X16 or s.kind == B_8X16:
        parts, across = 2, 2
    elif s.kind == P_8X8 or s.kind == B_8X8:
        parts, across, down = 4, 2, 2
    if s.cabac:
        gather_motion(s)
    for motion_list in range(2):
        for block in range(4):
            s.ref_idx[motion_list, block] = 0
        largest = s.references[motion_list] - 1
        if s.mbaff and s.field:
            largest = 2 * s.references[motion_list] - 1
        if s.first_only:
            largest = 0
        for part in range(parts):
            if largest > 0 and (s.part_lists[part] >> motion_list) & 1:
                x, y = _corner(part, across, down)
                _read_ref(s, t, motion_list, largest, x >> 1, y >> 1, across >> 1, down >> 1)
                if s.fault:
                    return
    for motion_list in range(2):
        for part in range(parts):
            if (s.part_lists[part] >> motion_list) & 1:
                x, y = _corner(part, across, down)
                if parts < 4:
                    _read_mvd(s, t, motion_list, x, y, across, down)
                else:
                    _read_sub_mvd(s, t, motion_list, x, y, s.part_shape[part])
                if s.fault:
                    return


@inlined
def _corner(part, across, down):
    """Return the upper left 4x4 block of a partition."""
    if across == 2 and down == 2:
        return (part & 1) * 2, (part >> 1) * 2
    return (part * 2, 0) if across == 2 else (0, part * 2)


@compiled
def _read_ref(s, t, motion_list, largest, x, y, across, down):
    if not s.cabac:
        value = read_te(s, largest)
    else:
        value = cabac_syntax.ref_idx(s, t, motion_list, 4 + 3 * y + x)
        for dy in range(down):
            for dx in range(across):
                s.ref[motion_list, 4 + 3 * (y + dy) + x + dx] = min(value, 2)
    if value > largest:
        s.fault = faults.REF_IDX
    for dy in range(down):
        for dx in range(across):
            s.ref_idx[motion_list, 2 * (y + dy) + x + dx] = value


@compiled
def keep_motion(s):
    """Store the motion syntax for motion_vectors.py."""
    motion = motion_at(s.motion, s.count)
    m = motion[s.mb]
    for block in range(4):
        m.lists[block] = s.part_lists[block]
        m.shape[block] = s.part_shape[block]
    for motion_list in range(2):
        for block in range(4):
            m.ref[motion_list, block] = s.ref_idx[motion_list, block]
        for block in range(16):
            cell = 6 + 5 * (block >> 2) + (block & 3)
            m.mvd[motion_list, block, 0] = s.mvd[motion_list, cell, 0]
            m.mvd[motion_list, block, 1] = s.mvd[motion_list, cell, 1]


@compiled
def _read_sub_mvd(s, t, motion_list, x, y, shape):
    """Read the one, two or four vector differences of an 8x8 block."""
    across = 2 if shape < 2 else 1
    down = 1 if shape & 1 else 2
    for dy in range(0, 2, down):
        for dx in range(0, 2, across):
            _read_mvd(s, t, motion_list, x + dx, y + dy, across, down)


@compiled
def _read_mvd(s, t, motion_list, x, y, across, down):
    cell = 6 + 5 * y + x
    if s.cabac:
        horizontal = cabac_syntax.mvd(s, t, motion_list, cell, 0)
        vertical = cabac_syntax.mvd(s, t, motion_list, cell, 1)
    else:
        horizontal, vertical = read_se(s), read_se(s)
    for dy in range(down):
        for dx in range(across):
            s.mvd[motion_list, cell + 5 * dy + dx, 0] = horizontal
            s.mvd[motion_list, cell + 5 * dy + dx, 1] = vertical
