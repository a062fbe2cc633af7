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
    LPS,
    TRANSITION,
)

# codIOffset is kept with `ahead` bits of the slice data appended, so that renormalising shifts the range only
# and data are loaded 32 bits at a time. A decision takes at most 7 bits; `refill` keeps at least 16.


@inlined
def decide(context, index, width, offset, ahead, engine):  # type: ignore[no-untyped-def]
    """DecodeDecision (9.3.3.2.1) without branches: returns the bin, codIRange, codIOffset and bits ahead."""
    state = np.int64(context[index])
    lps = np.int64(engine[LPS + ((width & 0xC0) << 1) + state])
    width -= lps
    threshold = width << ahead
    is_lps = (threshold - 1 - offset) >> 63
    offset -= threshold & is_lps
    width += (lps - width) & is_lps
    state ^= is_lps
    context[index] = engine[TRANSITION + (state & 255)]
    shift = np.int64(leading_zeros(np.uint64(width))) - 55
    return state & 1, width << shift, offset, ahead - shift


@inlined
def refill(data, offset, ahead, byte, end):  # type: ignore[no-untyped-def]
    """Append the next 32 bits when fewer than 16 are left; beyond the data these are 0."""
    if ahead < 16:
        offset = (offset << 32) | np.int64(load_be64(data + min(byte, end + 8)) >> np.uint64(32))
        ahead += 32
        byte += 4
    return offset, ahead, byte


@compiled
def start_engine(s, byte):  # type: ignore[no-untyped-def]
    """Initialise the arithmetic decoding engine at a byte (9.3.1.2)."""
    s.range = 510
    s.offset = np.int64(load_be64(s.data + min(byte, s.end + 8)) >> np.uint64(24))
    s.ahead = 31
    s.byte = byte + 5
    if s.offset >> 31 >= 510:
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
    value, s.range, offset, ahead = decide(s.context, index, s.range, s.offset, s.ahead, t.engine)
    s.offset, s.ahead, s.byte = refill(s.data, offset, ahead, s.byte, s.end)
    return value


@inlined
def bypass(s):  # type: ignore[no-untyped-def]
    """DecodeBypass (9.3.3.2.3)."""
    s.ahead -= 1
    threshold = s.range << s.ahead
    value = np.int64(s.offset >= threshold)
    if value:
        s.offset -= threshold
    s.offset, s.ahead, s.byte = refill(s.data, s.offset, s.ahead, s.byte, s.end)
    return value


@compiled
def terminate(s):  # type: ignore[no-untyped-def]
    """DecodeTerminate (9.3.3.2.2.3); after a bin of 1, the last bit read is the last one the encoder flushed."""
    s.range -= 2
    if s.offset >= s.range << s.ahead:
        return 1
    if s.range < 256:
        s.range <<= 1
        s.ahead -= 1
        s.offset, s.ahead, s.byte = refill(s.data, s.offset, s.ahead, s.byte, s.end)
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
    engine = t.engine
    data, end = s.data, s.end
    width, offset, ahead, byte = s.range, s.offset, s.ahead, s.byte
    if flag >= 0:
        found, width, offset, ahead = decide(
            context, np.int64(t.coded_block_flag[category]) + flag, width, offset, ahead, engine
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
        found, width, offset, ahead = decide(
            context, significant + t.significant[row, index], width, offset, ahead, engine
        )
        if found:
            s.place[n] = first + index
            n += 1
            found, width, offset, ahead = decide(context, last + t.last[row, index], width, offset, ahead, engine)
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
        more, width, offset, ahead = decide(context, base + ones, width, offset, ahead, engine)
        offset, ahead, byte = refill(data, offset, ahead, byte, end)
        level = 1
        if more:
            index = base + 5 + min(above_one, most_above_one)
            above_one += 1
            ones = 0
            level = 2
            while level < 15:
                more, width, offset, ahead = decide(context, index, width, offset, ahead, engine)
                offset, ahead, byte = refill(data, offset, ahead, byte, end)
                if not more:
                    break
                level += 1
            if level == 15:
                # suffix: Exp-Golomb of order 0 (9.3.2.3)
                k = 0
                while k < 24:
                    ahead -= 1
                    threshold = width << ahead
                    if offset < threshold:
                        break
                    offset -= threshold
                    level += 1 << k
                    k += 1
                    offset, ahead, byte = refill(data, offset, ahead, byte, end)
                if k == 24:
                    s.fault = faults.LEVEL
                while k > 0:
                    k -= 1
                    offset, ahead, byte = refill(data, offset, ahead, byte, end)
                    ahead -= 1
                    threshold = width << ahead
                    if offset >= threshold:
                        offset -= threshold
                        level += 1 << k
                offset, ahead, byte = refill(data, offset, ahead, byte, end)
        elif ones:
            ones = min(ones + 1, 4)
        ahead -= 1
        threshold = width << ahead
        negative = (threshold - 1 - offset) >> 63
        offset -= threshold & negative
        s.level[i] = (level ^ negative) - negative
    s.range = width
    s.offset, s.ahead, s.byte = refill(data, offset, ahead, byte, end)
    return n
