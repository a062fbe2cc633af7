"""Faults of slice data: compiled code stores a number, the reader raises its message."""

from __future__ import annotations

from codecmeta.entropy import faults

NONE = faults.NONE
MB_TYPE = 16
SUB_MB_TYPE = 17
REF_IDX = 18
MVD = 19
CODED_BLOCK_PATTERN = 20
MB_QP_DELTA = 21
COEFF_TOKEN = 22
LEVEL = 23
TOTAL_ZEROS = 24
RUN_BEFORE = 25
SKIP_RUN = 26
CUT_SHORT = 27
NOT_AT_END = 28
CODED_TWICE = 29
BEYOND_PICTURE = 30
INTRA_MODE = 31
NO_REFERENCE = 32

MESSAGES = {
    **faults.MESSAGES,
    MB_TYPE: "mb_type is not allowed in this slice type",
    SUB_MB_TYPE: "sub_mb_type is not allowed in this slice type",
    REF_IDX: "ref_idx is beyond the slice's active reference pictures",
    MVD: "a motion vector difference is beyond 2^24",
    CODED_BLOCK_PATTERN: "coded_block_pattern is beyond its table",
    MB_QP_DELTA: "mb_qp_delta is outside its range",
    COEFF_TOKEN: "coeff_token is not a codeword, or gives more coefficients than the block holds",
    LEVEL: "a coefficient level is beyond 2^24",
    TOTAL_ZEROS: "total_zeros is not a codeword, or places a coefficient outside the block",
    RUN_BEFORE: "run_before is not a codeword, or exceeds the zeros that are left",
    SKIP_RUN: "mb_skip_run leads beyond the picture",
    CUT_SHORT: "the slice data end before the macroblock does",
    NOT_AT_END: "the last macroblock does not end at the slice's trailing bits",
    CODED_TWICE: "the macroblock was already coded by another slice of the picture",
    BEYOND_PICTURE: "the slice continues beyond the last macroblock of the picture",
    INTRA_MODE: "an intra prediction mode is outside its range",
    NO_REFERENCE: "motion is predicted from that of a missing picture",
}
"""Message by fault number."""
