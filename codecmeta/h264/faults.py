"""What can be wrong in slice data: compiled code stores a number, the reader raises its message."""

from __future__ import annotations

NONE = 0
EXP_GOLOMB = 1
MB_TYPE = 2
SUB_MB_TYPE = 3
REF_IDX = 4
MVD = 5
CODED_BLOCK_PATTERN = 6
MB_QP_DELTA = 7
COEFF_TOKEN = 8
LEVEL = 9
TOTAL_ZEROS = 10
RUN_BEFORE = 11
SKIP_RUN = 12
CUT_SHORT = 13
NOT_AT_END = 14
CODED_TWICE = 15
BEYOND_PICTURE = 16
ARITHMETIC_START = 17
INTRA_MODE = 18
NO_REFERENCE = 19

MESSAGES = {
    EXP_GOLOMB: "an Exp-Golomb code has too many leading zeros",
    MB_TYPE: "mb_type is not one of this slice type",
    SUB_MB_TYPE: "sub_mb_type is not one of this slice type",
    REF_IDX: "ref_idx is beyond the slice's active reference pictures",
    MVD: "a motion vector difference is beyond 2^24",
    CODED_BLOCK_PATTERN: "coded_block_pattern is beyond its table",
    MB_QP_DELTA: "mb_qp_delta is outside its range",
    COEFF_TOKEN: "coeff_token is not a codeword, or names more coefficients than the block holds",
    LEVEL: "a coefficient level is beyond 2^24",
    TOTAL_ZEROS: "total_zeros is not a codeword, or puts a coefficient outside the block",
    RUN_BEFORE: "run_before is not a codeword, or exceeds the zeros that are left",
    SKIP_RUN: "mb_skip_run leads beyond the picture",
    CUT_SHORT: "the slice data end before the macroblock does",
    NOT_AT_END: "the last macroblock does not end at the slice's trailing bits",
    CODED_TWICE: "the macroblock was already coded by another slice of the picture",
    BEYOND_PICTURE: "the slice continues beyond the last macroblock of the picture",
    ARITHMETIC_START: "the arithmetic decoder starts with the forbidden offset 510 or 511",
    INTRA_MODE: "an intra prediction mode is outside its range",
    NO_REFERENCE: "motion is predicted from that of a picture which is not there",
}
"""Message by fault number."""
