"""Prediction units, skipped over (Rec. ITU-T H.265, 7.3.8.6, 7.3.8.9)."""

from __future__ import annotations

from codecmeta.entropy.cabac import bypass, decision
from codecmeta.hevc import faults
from codecmeta.hevc.quantisation import exp_golomb
from codecmeta.hevc.slice_header import B
from codecmeta.hevc.tables import (
    INTER_PRED_IDC,
    MERGE_FLAG,
    MERGE_IDX,
    MVD_GREATER0,
    MVD_GREATER1,
    MVP_FLAG,
    REF_IDX,
)
from codecmeta.simd.numba_compile import compiled

PART_2NX2N, PART_2NXN, PART_NX2N, PART_NXN, PART_2NXNU, PART_2NXND, PART_NLX2N, PART_NRX2N = range(8)
"""PartMode (Table 7-10)."""

_L0, _L1, _BI = 1, 2, 3


@compiled
def read_merge_index(s, t):
    """Read merge_idx (9.3.3.2)."""
    if s.merge_candidates > 1 and decision(s, t, MERGE_IDX):
        left = s.merge_candidates - 2
        while left > 0 and bypass(s):
            left -= 1


@compiled
def read_prediction_unit(s, t, width, height, depth):
    """Skip prediction_unit (7.3.8.6) of a coding unit that is not skipped; return merge_flag."""
    if decision(s, t, MERGE_FLAG):
        read_merge_index(s, t)
        return 1
    lists = _L0
    if s.slice_type == B:
        if width + height != 12 and decision(s, t, INTER_PRED_IDC + depth):
            lists = _BI
        else:
            lists = _L0 + decision(s, t, INTER_PRED_IDC + 4)
    for number in range(2):
        if lists & (1 << number):
            _read_reference_index(s, t, s.references[number])
            if not (number == 1 and s.mvd_l1_zero and lists == _BI):
                _read_mvd(s, t)
            decision(s, t, MVP_FLAG)
    return 0


@compiled
def _read_reference_index(s, t, active):
    """Read ref_idx_l0 or ref_idx_l1 (9.3.3.2)."""
    value = 0
    while value < active - 1:
        more = decision(s, t, REF_IDX + value) if value < 2 else bypass(s)
        if not more:
            break
        value += 1


@compiled
def _read_mvd(s, t):
    """Skip mvd_coding (7.3.8.9)."""
    x, y = decision(s, t, MVD_GREATER0), decision(s, t, MVD_GREATER0)
    if x:
        x += decision(s, t, MVD_GREATER1)
    if y:
        y += decision(s, t, MVD_GREATER1)
    for component in (x, y):
        if component:
            if component == 2 and exp_golomb(s, 1) > (1 << 15):
                s.fault = faults.MVD
            bypass(s)


@compiled
def read_prediction_units(s, t, log2, depth):
    """Skip the prediction units of an inter coding unit by its PartMode; return merge_flag of the first."""
    size = 1 << log2
    half, quarter = size >> 1, size >> 2
    part = s.part
    if part == PART_2NX2N:
        return read_prediction_unit(s, t, size, size, depth)
    if part == PART_NXN:
        for _ in range(4):
            read_prediction_unit(s, t, half, half, depth)
        return 0
    first = half
    if part in (PART_2NXNU, PART_NLX2N):
        first = quarter
    elif part in (PART_2NXND, PART_NRX2N):
        first = size - quarter
    # only the sum of the sides matters
    read_prediction_unit(s, t, size, first, depth)
    read_prediction_unit(s, t, size, size - first, depth)
    return 0
