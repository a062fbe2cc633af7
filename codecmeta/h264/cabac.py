"""Arithmetic decoding and residual blocks with it (Rec. ITU-T H.264, 9.3.1.2, 9.3.3.1.3, 9.3.3.2)."""

from __future__ import annotations

import numpy as np

from codecmeta.h264 import faults
from codecmeta.h264.bits import leading_zeros, load_be64
from codecmeta.h264.compiled import compiled, inlined
from codecmeta.h264.tables import (
    CHROMA_DC_420,
    CHROMA_DC_422,
    DIRECT_INCREMENT,
    FIELD_8X8,
    FRAME_8X8,
)

# codIRange and codIOffset are kept in the top 9 bits of 64, the offset with `ahead` more bits of the slice data below.
# Renormalising is then a shift by the leading zeros, and data are loaded 32 bits at a time. A decision takes at most 7
# bits; `refill` keeps at least 16.

TOP = np.uint64(55)
"""Place of the lowest bit of codIRange and codIOffset."""


@inlined
def decide(context, index, width, offset, ahead, t):  # type: ignore[no-untyped-def]
    """DecodeDecision (9.3.3.2.1) without branches: returns the bin, codIRange, codIOffset and bits ahead."""
    state = np.int64(context[index])
    lps = t.lps[np.int64(width >> np.uint64(61)) & 3, state]
    width -= lps
    is_lps = np.uint64(0) - np.uint64(offset >= width)
    offset -= width & is_lps
    width += (lps - width) & is_lps
    state ^= np.int64(is_lps)
    context[index] = t.transition[state & 255]
    shift = leading_zeros(width)
    return state & 1, width << shift, offset << shift, ahead - np.int64(shift)


@inlined
def decide_bypass(width, offset):  # type: ignore[no-untyped-def]
    """DecodeBypass (9.3.3.2.3) without branches: returns -1 for a bin of 1, else 0, and codIOffset."""
    half = width >> np.uint64(1)
    one = np.uint64(0) - np.uint64(offset >= half)
    return np.int64(one), (offset - (half & one)) << np.uint64(1)


@inlined
def refill(data, offset, ahead, byte, end):  # type: ignore[no-untyped-def]
    """Append the next 32 bits when fewer than 16 are left; beyond the data these are 0."""
    if ahead < 16:
        word = load_be64(data + min(byte, end + 8)) >> np.uint64(32)
        offset |= word << np.uint64(23 - ahead)
        ahead += 32
        byte += 4
    return offset, ahead, byte


@compiled
def start_engine(s, byte):  # type: ignore[no-untyped-def]
    """Initialise the arithmetic decoding engine at a byte (9.3.1.2)."""
    s.range = np.uint64(510) << TOP
    s.offset = load_be64(s.data + min(byte, s.end + 8)) & np.uint64(0xFFFFFFFFFF000000)
    s.ahead = 31
    s.byte = byte + 5
    if s.offset >= s.range:
        s.fault = faults.ARITHMETIC_START


@compiled
def start_contexts(s, t, table, slice_qp):  # type: ignore[no-untyped-def]
    """Initialise the context variables (9.3.1.1) from one of the four sets of (m, n)."""
    qp = min(max(slice_qp, 0), 51)
    for i in range(1024):
        m = np.int64(t.context_init[table, i, 0])
        n = np.int64(t.context_init[table, i, 1])
        p = min(max(((m * qp) >> 4) + n, 1), 126)
        s.context[i] = (p - 64) * 2 + 1 if p > 63 else (63 - p) * 2


@inlined
def position(s):  # type: ignore[no-untyped-def]
    """Bits of the RBSP that the engine has read, as 9.3.1.2 counts them."""
    return s.byte * 8 - s.ahead


@inlined
def decision(s, t, index):  # type: ignore[no-untyped-def]
    """Decode one bin with a context."""
    value, s.range, offset, ahead = decide(s.context, index, s.range, s.offset, s.ahead, t)
    s.offset, s.ahead, s.byte = refill(s.data, offset, ahead, s.byte, s.end)
    return value


@inlined
def bypass(s):  # type: ignore[no-untyped-def]
    """Decode one bin without a context."""
    one, offset = decide_bypass(s.range, s.offset)
    s.offset, s.ahead, s.byte = refill(s.data, offset, s.ahead - 1, s.byte, s.end)
    return -one


@compiled
def terminate(s):  # type: ignore[no-untyped-def]
    """DecodeTerminate (9.3.3.2.2.3); after a bin of 1, the last bit read is the last one the encoder flushed."""
    s.range -= np.uint64(2) << TOP
    if s.offset >= s.range:
        return 1
    shift = leading_zeros(s.range)
    s.range <<= shift
    s.offset, s.ahead, s.byte = refill(s.data, s.offset << shift, s.ahead - np.int64(shift), s.byte, s.end)
    return 0


@compiled
def residual_block(s, t, category, count, flag):  # type: ignore[no-untyped-def]
    """residual_block_cabac (7.3.5.3.3).

    Args:
        category: ctxBlockCat (Table 9-42).
        count: number of coefficients of the block, 4 to 64.
        flag: ctxIdxInc of coded_block_flag, -1 where the flag is inferred to be 1.

    Returns:
        Coefficients found; their scan indices are in `s.place`, their levels in `s.level`.
    """
    context = s.context
    data, end = s.data, s.end
    width, offset, ahead, byte = s.range, s.offset, s.ahead, s.byte
    if flag >= 0:
        found, width, offset, ahead = decide(
            context, np.int64(t.coded_block_flag[category]) + flag, width, offset, ahead, t
        )
        offset, ahead, byte = refill(data, offset, ahead, byte, end)
        if not found:
            s.range, s.offset, s.ahead, s.byte = width, offset, ahead, byte
            return 0
    significant = np.int64(t.significant_base[s.field, category])
    last = np.int64(t.last_base[s.field, category])
    row = DIRECT_INCREMENT
    if count == 64:
        row = FIELD_8X8 if s.field else FRAME_8X8
    elif category == 3:
        row = CHROMA_DC_420 if count == 4 else CHROMA_DC_422
    first = np.int64(count == 15)
    n = 0
    index = 0
    while index < count - 1:
        found, width, offset, ahead = decide(context, significant + t.significant[row, index], width, offset, ahead, t)
        if found:
            s.place[n] = first + index
            n += 1
            found, width, offset, ahead = decide(context, last + t.last[row, index], width, offset, ahead, t)
            if found:
                break
        offset, ahead, byte = refill(data, offset, ahead, byte, end)
        index += 1
    else:
        s.place[n] = first + count - 1
        n += 1
    offset, ahead, byte = refill(data, offset, ahead, byte, end)

    base = np.int64(t.level_base[category])
    most_above_one = 3 if category == 3 else 4
    ones = 1
    above_one = 0
    for i in range(n - 1, -1, -1):
        more, width, offset, ahead = decide(context, base + ones, width, offset, ahead, t)
        offset, ahead, byte = refill(data, offset, ahead, byte, end)
        level = 1
        if more:
            index = base + 5 + min(above_one, most_above_one)
            above_one += 1
            ones = 0
            level = 2
            while level < 15:
                more, width, offset, ahead = decide(context, index, width, offset, ahead, t)
                offset, ahead, byte = refill(data, offset, ahead, byte, end)
                if not more:
                    break
                level += 1
            if level == 15:
                # suffix: Exp-Golomb of order 0 (9.3.2.3)
                k = 0
                while k < 24:
                    one, offset = decide_bypass(width, offset)
                    offset, ahead, byte = refill(data, offset, ahead - 1, byte, end)
                    if not one:
                        break
                    level += 1 << k
                    k += 1
                if k == 24:
                    s.fault = faults.LEVEL
                while k > 0:
                    k -= 1
                    one, offset = decide_bypass(width, offset)
                    offset, ahead, byte = refill(data, offset, ahead - 1, byte, end)
                    level -= one << k
        elif ones:
            ones = min(ones + 1, 4)
        negative, offset = decide_bypass(width, offset)
        ahead -= 1
        s.level[i] = (level ^ negative) - negative
    s.range = width
    s.offset, s.ahead, s.byte = refill(data, offset, ahead, byte, end)
    return n
