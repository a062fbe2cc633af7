"""Residual blocks in variable-length codes (Rec. ITU-T H.264, 7.3.5.3.2, 9.2)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.slice_bits import leading_zeros, peek, peek_at
from codecmeta.h264 import faults
from codecmeta.h264.tables import (
    CHROMA_DC_TOTAL_ZEROS,
    COEFF_TOKEN,
    COEFF_TOKEN_BITS,
    RUN_BEFORE,
    RUN_BEFORE_BITS,
    TOTAL_ZEROS,
    TOTAL_ZEROS_BITS,
)
from codecmeta.simd.numba_compile import compiled, inlined

LONGEST_RUNS = 30
"""Limit on the bits of total_zeros and run_before of a block together."""

LONGEST_PREFIX = 24
"""Most zeros before the 1 of level_prefix; more would make a level beyond 2^24."""


@inlined
def look_up(t, base, bits, window):
    """Return value and length of the codeword at the top of `window`, in the table at `base`; length 0 for none."""
    entry = np.int64(t.vlc[base + (window >> np.uint64(64 - bits))])
    if entry < 0:
        entry = np.int64(t.vlc[np.uint64(-entry) + ((window << np.uint64(bits)) >> np.uint64(56))])
    return entry >> 5, np.uint64(entry & 31)


@inlined
def residual_block(s, t, table, count):
    """Read residual_block_cavlc (7.3.5.3.2).

    Args:
        table: coeff_token table: 0 to 3 for nC of 0, 2, 4, 8 or more; 4 for nC = -1, 5 for nC = -2.
        count: number of coefficients the block can hold, 4 to 16.

    Returns:
        TotalCoeff; scan indices are in `s.place`, levels in `s.level`. 0 after a fault.
    """
    token, length = look_up(t, t.vlc_base[COEFF_TOKEN + table], COEFF_TOKEN_BITS, peek(s))
    s.bit += np.int64(length)
    if token == 0 and length > 0:
        return 0
    if length == 0 or token >> 2 > count:
        s.fault = faults.COEFF_TOKEN
        return 0
    return _coefficients(s, t, token >> 2, token & 3, count)


@compiled
def _coefficients(s, t, total, trailing_ones, count):
    """Read level and run information (9.2.2, 9.2.3): `total` levels, highest frequency first; return 0 after a fault.

    The data are at the top of `window`, of which `left` bits are valid.
    """
    bit, window, left = s.bit, peek(s), 57
    i = np.uint64(0)
    ones = np.uint64(trailing_ones)
    while i < ones:
        s.level[i] = 1 - 2 * np.int64(window >> np.uint64(63))
        window <<= np.uint64(1)
        i += np.uint64(1)
    bit += trailing_ones
    left -= trailing_ones
    suffix_length = 1 if total > 10 and trailing_ones < 3 else 0
    beyond = 2 if trailing_ones < 3 else 0
    while i < np.uint64(total):
        if left < 28:
            window, left = peek_at(s, bit), 57
        prefix = np.int64(leading_zeros(window))
        if prefix < 14:
            size = suffix_length
            code = prefix << suffix_length
        else:
            window, left = peek_at(s, bit), 57
            prefix = np.int64(leading_zeros(window))
            if prefix > LONGEST_PREFIX:
                s.fault = faults.LEVEL
                return 0
            size = suffix_length
            if prefix >= 15:
                size = prefix - 3
            elif suffix_length == 0:
                size = 4
            code = min(prefix, 15) << suffix_length
            if prefix >= 15 and suffix_length == 0:
                code += 15
            if prefix >= 16:
                code += (1 << (prefix - 3)) - 4096
        window <<= np.uint64(prefix + 1)
        code += beyond + np.int64((window >> np.uint64(1)) >> np.uint64(63 - size))
        beyond = 0
        window <<= np.uint64(size)
        bit += prefix + 1 + size
        left -= prefix + 1 + size
        sign = -(code & 1)
        magnitude = (code >> 1) + 1
        s.level[i] = (magnitude ^ sign) - sign
        i += np.uint64(1)
        if suffix_length == 0:
            suffix_length = 1
        if magnitude > 3 << (suffix_length - 1) and suffix_length < 6:
            suffix_length += 1
    if left < LONGEST_RUNS:
        window = peek_at(s, bit)
    zeros = 0
    if total < count:
        first = TOTAL_ZEROS
        if count == 4:
            first = CHROMA_DC_TOTAL_ZEROS
        elif count == 8:
            first = CHROMA_DC_TOTAL_ZEROS + 4
        zeros, length = look_up(t, t.vlc_base[first + total], TOTAL_ZEROS_BITS, window)
        if length == 0 or zeros + total > count:
            s.fault = faults.TOTAL_ZEROS
            return 0
        bit += np.int64(length)
        window <<= length
    place = np.int64(count == 15) + total + zeros - 1
    s.place[0] = place
    i = np.uint64(1)
    while i < np.uint64(total):
        if zeros > 0:
            run, length = look_up(t, t.vlc_base[RUN_BEFORE + min(zeros, 7)], RUN_BEFORE_BITS, window)
            if length == 0 or run > zeros:
                s.fault = faults.RUN_BEFORE
                return 0
            bit += np.int64(length)
            window <<= length
            zeros -= run
            place -= run
        place -= 1
        s.place[i] = place
        i += np.uint64(1)
    s.bit = bit
    return total
