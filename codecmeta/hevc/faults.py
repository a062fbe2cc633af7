"""Faults of slice segment data: compiled code stores a number, the reader raises its message."""

from __future__ import annotations

from codecmeta.entropy import faults

NONE = faults.NONE
CUT_SHORT = 16
NOT_AT_END = 17
BEYOND_PICTURE = 18
SUBSET_END = 19
LEVEL = 20
QP_DELTA = 21
MVD = 22

MESSAGES = {
    **faults.MESSAGES,
    CUT_SHORT: "the slice segment data end before the coding tree unit does",
    NOT_AT_END: "the last coding tree unit does not end at the segment's trailing bits",
    BEYOND_PICTURE: "the slice segment continues beyond the last coding tree unit of the picture",
    SUBSET_END: "end_of_subset_one_bit is 0 at the end of a tile or of a row of coding tree units",
    LEVEL: "a transform coefficient level is beyond 16 bits, or the prefix of coeff_abs_level_remaining is too long",
    QP_DELTA: "cu_qp_delta_abs is outside its range",
    MVD: "a motion vector difference is beyond 2^15",
}
"""Message by fault number."""
