"""Residual blocks in variable-length codes (Rec. ITU-T H.264, 7.3.5.3.2, 9.2)."""

from __future__ import annotations

import numpy as np

from codecmeta.h264 import faults
from codecmeta.h264.bits import leading_zeros, peek
from codecmeta.h264.compiled import compiled, inlined
from codecmeta.h264.tables import (
    CHROMA_DC_TOTAL_ZEROS,
    COEFF_TOKEN,
    COEFF_TOKEN_BITS,
    RUN_BEFORE,
    RUN_BEFORE_BITS,
    TOTAL_ZEROS,
    TOTAL_ZEROS_BITS,
)


@inlined
def look_up(t, table, bits, window):  # type: ignore[no-untyped-def]
    """Value and length of the codeword at the top of `window`; length 0 if there is none."""
    entry = np.int64(t.vlc[t.vlc_base[table] + np.int64(window >> np.uint64(64 - bits))])
    if entry < 0:
        entry = np.int64(t.vlc[np.int64((window << np.uint64(bits)) >> np.uint64(56)) - entry])
    return entry >> 5, entry & 31


@inlined
def coeff_token(s, t, table):  # type: ignore[no-untyped-def]
    """coeff_token (9.2.1): TrailingOnes + 4 * TotalCoeff."""
    value, length = look_up(t, COEFF_TOKEN + table, COEFF_TOKEN_BITS, peek(s))
    if length == 0:
        s.fault = faults.COEFF_TOKEN
        return 0
    s.bit += length
    return value


@inlined
def levels(s, total, trailing_ones):  # type: ignore[no-untyped-def]
    """Level information (9.2.2): `total` levels into `s.level`, highest frequency first."""
    window = peek(s)
    for i in range(trailing_ones):
        s.level[i] = 1 - 2 * np.int64((window >> np.uint64(63 - i)) & np.uint64(1))
    s.bit += trailing_ones
    suffix_length = 1 if total > 10 and trailing_ones < 3 else 0
    for i in range(trailing_ones, total):
        window = peek(s)
        prefix = np.int64(leading_zeros(window))
        if prefix > 24:
            s.fault = faults.LEVEL
            return
        size = suffix_length
        if prefix >= 15:
            size = prefix - 3
        elif prefix == 14 and suffix_length == 0:
            size = 4
        code = min(prefix, 15) << suffix_length
        if size > 0:
            code += np.int64((window << np.uint64(prefix + 1)) >> np.uint64(64 - size))
        if prefix >= 15 and suffix_length == 0:
            code += 15
        if prefix >= 16:
            code += (1 << (prefix - 3)) - 4096
        if i == trailing_ones and trailing_ones < 3:
            code += 2
        s.bit += prefix + 1 + size
        magnitude = (code >> 1) + 1
        s.level[i] = -magnitude if code & 1 else magnitude
        if suffix_length == 0:
            suffix_length = 1
        if magnitude > 3 << (suffix_length - 1) and suffix_length < 6:
            suffix_length += 1


@compiled
def residual_block(s, t, table, count):  # type: ignore[no-untyped-def]
    """residual_block_cavlc (7.3.5.3.2).

    Args:
        table: coeff_token table: 0 to 3 for nC of 0, 2, 4, 8 or more; 4 for nC = -1, 5 for nC = -2.
        count: number of coefficients the block can hold, 4 to 16.

    Returns:
        TotalCoeff; scan indices are in `s.place`, levels in `s.level`. 0 after a fault.
    """
    token = coeff_token(s, t, table)
    total = token >> 2
    if total == 0:
        return 0
    if total > count:
        s.fault = faults.COEFF_TOKEN
        return 0
    levels(s, total, token & 3)
    window = peek(s)
    zeros = 0
    if total < count:
        first = TOTAL_ZEROS
        if count == 4:
            first = CHROMA_DC_TOTAL_ZEROS
        elif count == 8:
            first = CHROMA_DC_TOTAL_ZEROS + 4
        zeros, length = look_up(t, first + total, TOTAL_ZEROS_BITS, window)
        if length == 0 or zeros + total > count:
            s.fault = faults.TOTAL_ZEROS
            return 0
        s.bit += length
        window <<= np.uint64(length)
    place = np.int64(count == 15) + total + zeros - 1
    s.place[0] = place
    used = 0
    for i in range(1, total):
        if zeros > 0:
            run, length = look_up(t, RUN_BEFORE + min(zeros, 7), RUN_BEFORE_BITS, window)
            if length == 0 or run > zeros:
                s.fault = faults.RUN_BEFORE
                return 0
            used += length
            window <<= np.uint64(length)
            zeros -= run
            place -= run
        place -= 1
        s.place[i] = place
    s.bit += used
    return total
