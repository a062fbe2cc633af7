"""Arithmetic decoding and residual blocks with it (Rec. ITU-T H.264, 9.3.1.2, 9.3.3.1.3, 9.3.3.2)."""

from __future__ import annotations

import numpy as np

from codecmeta.h264 import faults
from codecmeta.h264.bits import leading_zeros, load_be64, settled
from codecmeta.h264.tables import CHROMA_DC_422, COLOUR_CONTEXTS
from codecmeta.simd.numba_compile import compiled, inlined

# codIRange and codIOffset are kept in the top 9 bits of 64, the offset with `ahead` more bits of the slice data below.
# Renormalising is then a shift by the leading zeros, and data are loaded 32 bits at a time. A decision takes at most 7
# bits; `refill` keeps at least 16.

TOP = np.uint64(55)
"""Place of the lowest bit of codIRange and codIOffset."""

WIDTHS = np.uint64(0xFF << 55)
"""Where a context word, shifted by 16 bits for each step of qCodIRangeIdx, holds codIRangeLPS (tables.py)."""

STATE = np.uint64(127)
"""Where a context word, shifted by 0, 16 or 32 bits, holds pStateIdx * 2 + valMPS: after an MPS, after an LPS, now."""


@inlined
def decide(word, width, offset, ahead, t):  # type: ignore[no-untyped-def]
    """DecodeDecision (9.3.3.2.1) without branches, by a context's word.

    Returns:
        The bin, the context's next word, codIRange, codIOffset and bits ahead.
    """
    lps = (word << ((width >> np.uint64(57)) & np.uint64(48))) & WIDTHS
    after_mps = t.engine[word & STATE]
    after_lps = t.engine[(word >> np.uint64(16)) & STATE]
    width -= lps
    is_lps = np.uint64(0) - np.uint64(offset >= width)
    offset -= width & is_lps
    width ^= (width ^ lps) & is_lps
    after = after_mps ^ ((after_mps ^ after_lps) & is_lps)
    shift = leading_zeros(width)
    value = ((word >> np.uint64(32)) ^ is_lps) & np.uint64(1)
    return value, after, width << shift, offset << shift, ahead - np.int64(shift)


@inlined
def decide_bypass(width, offset):  # type: ignore[no-untyped-def]
    """DecodeBypass (9.3.3.2.3) without branches: returns -1 for a bin of 1, else 0, and codIOffset."""
    half = width >> np.uint64(1)
    one = np.uint64(0) - np.uint64(offset >= half)
    return np.int64(one), (offset - (half & one)) << np.uint64(1)


@inlined
def refill(s, offset, ahead, byte):  # type: ignore[no-untyped-def]
    """Append the next 32 bits when fewer than 16 are left; beyond the data these are 0."""
    if ahead < 16:
        word = load_be64(s.data + min(byte, s.end + 8)) >> np.uint64(32)
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
    for i in range(1024 if s.chroma == 3 else COLOUR_CONTEXTS):
        m = np.int64(t.context_init[table, i, 0])
        n = np.int64(t.context_init[table, i, 1])
        p = min(max(((m * qp) >> 4) + n, 1), 126)
        s.context[i] = t.engine[(p - 64) * 2 + 1 if p > 63 else (63 - p) * 2]


@inlined
def position(s):  # type: ignore[no-untyped-def]
    """Bits of the RBSP that the engine has read, as 9.3.1.2 counts them."""
    return s.byte * 8 - s.ahead


@inlined
def decision(s, t, index):  # type: ignore[no-untyped-def]
    """Decode one bin with a context."""
    place = np.uint64(index)
    value, s.context[place], s.range, offset, ahead = decide(s.context[place], s.range, s.offset, s.ahead, t)
    s.offset, s.ahead, s.byte = refill(s, offset, ahead, s.byte)
    return np.int64(value)


@inlined
def bypass(s):  # type: ignore[no-untyped-def]
    """Decode one bin without a context."""
    one, offset = decide_bypass(s.range, s.offset)
    s.offset, s.ahead, s.byte = refill(s, offset, s.ahead - 1, s.byte)
    return -one


@compiled
def terminate(s):  # type: ignore[no-untyped-def]
    """DecodeTerminate (9.3.3.2.2.3); after a bin of 1, the last bit read is the last one the encoder flushed."""
    s.range -= np.uint64(2) << TOP
    if s.offset >= s.range:
        return 1
    shift = leading_zeros(s.range)
    s.range <<= shift
    s.offset, s.ahead, s.byte = refill(s, s.offset << shift, s.ahead - np.int64(shift), s.byte)
    return 0


@inlined
def _significance_map(s, t, contexts, place, first, stop, width, offset, ahead, byte):  # type: ignore[no-untyped-def]
    """significant_coeff_flag and last_significant_coeff_flag of a block.

    Step 2 i is significant_coeff_flag of scan index i, step 2 i + 1 its last_significant_coeff_flag, which only follows
    a 1: after each bin comes the next step or, skipping one, that after it. Which of them is no branch, since no
    processor predicts it; the words of both contexts are at hand before the bin is known.

    Args:
        contexts: context of each step, or None where they follow each other from `place` on.
        first, stop: first step, and that of the last coefficient, which has no flags.

    Returns:
        Coefficients found, their scan indices in `s.place`; and the engine.
    """
    n = np.uint64(0)
    step = first
    word = s.context[place if contexts is None else contexts[step]]
    while step < stop:
        here = place + (step - first) if contexts is None else contexts[step]
        found, s.context[here], width, offset, ahead = decide(word, width, offset, ahead, t)
        offset, ahead, byte = refill(s, offset, ahead, byte)
        s.place[n] = step >> np.uint64(1)
        n += found & ~step
        if found & step:
            break
        if contexts is None:
            near, far = s.context[here + np.uint64(1)], s.context[here + np.uint64(2)]
        else:
            near, far = s.context[contexts[step + np.uint64(1)]], s.context[contexts[step + np.uint64(2)]]
        near, far = settled(near), settled(far)
        again = (found | step) & np.uint64(1)
        word = near if again else far
        step += np.uint64(2) - again
    else:
        s.place[n] = stop >> np.uint64(1)
        n += np.uint64(1)
    return n, width, offset, ahead, byte


@compiled
def residual_block(s, t, category, count, flag):  # type: ignore[no-untyped-def]
    """residual_block_cabac (7.3.5.3.3).

    Args:
        category: ctxBlockCat (Table 9-42), `CHROMA_DC_422` for the eight coefficients of 4:2:2.
        count: number of coefficients of the block, 4 to 64.
        flag: ctxIdxInc of coded_block_flag, -1 where the flag is inferred to be 1.

    Returns:
        Coefficients found; their scan indices are in `s.place`, their levels in `s.level`.
    """
    context = s.context
    width, offset, ahead, byte = s.range, s.offset, s.ahead, s.byte
    if flag >= 0:
        place = np.uint64(t.coded_block_flag[category]) + np.uint64(flag)
        found, context[place], width, offset, ahead = decide(context[place], width, offset, ahead, t)
        offset, ahead, byte = refill(s, offset, ahead, byte)
        if not found:
            s.range, s.offset, s.ahead, s.byte = width, offset, ahead, byte
            return 0

    contexts = t.map_context[s.field, category]
    first = np.uint64(2 * (count == 15))
    stop = first + np.uint64(2 * count - 2)
    if count == 64 or category == CHROMA_DC_422:
        n, width, offset, ahead, byte = _significance_map(
            s, t, contexts, first, first, stop, width, offset, ahead, byte
        )
    else:
        place = np.uint64(contexts[first])
        n, width, offset, ahead, byte = _significance_map(s, t, None, place, first, stop, width, offset, ahead, byte)

    base = np.uint64(t.level_base[category])
    most_above_one = np.uint64(3 if category == 3 or category == CHROMA_DC_422 else 4)
    ones = np.uint64(1)
    above_one = np.uint64(0)
    total = np.int64(n)
    while n > 0:
        n -= np.uint64(1)
        place = base + ones
        more, context[place], width, offset, ahead = decide(context[place], width, offset, ahead, t)
        offset, ahead, byte = refill(s, offset, ahead, byte)
        level = 1
        if more:
            place = base + np.uint64(5) + min(above_one, most_above_one)
            above_one += np.uint64(1)
            ones = np.uint64(0)
            level = 2
            word = context[place]
            while level < 15:
                more, word, width, offset, ahead = decide(word, width, offset, ahead, t)
                offset, ahead, byte = refill(s, offset, ahead, byte)
                if not more:
                    break
                level += 1
            context[place] = word
            if level == 15:
                # suffix: Exp-Golomb of order 0 (9.3.2.3)
                k = 0
                while k < 24:
                    one, offset = decide_bypass(width, offset)
                    offset, ahead, byte = refill(s, offset, ahead - 1, byte)
                    if not one:
                        break
                    level += 1 << k
                    k += 1
                if k == 24:
                    s.fault = faults.LEVEL
                while k > 0:
                    k -= 1
                    one, offset = decide_bypass(width, offset)
                    offset, ahead, byte = refill(s, offset, ahead - 1, byte)
                    level -= one << k
        elif ones:
            ones = min(ones + np.uint64(1), np.uint64(4))
        negative, offset = decide_bypass(width, offset)
        ahead -= 1
        s.level[n] = (level ^ negative) - negative
    s.range = width
    s.offset, s.ahead, s.byte = refill(s, offset, ahead, byte)
    return total
