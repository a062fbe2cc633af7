"""Arithmetic decoding engine (H.264 9.3.1.2, 9.3.3.2; H.265 9.3.2.5, 9.3.4.3), the same in both standards.

Compiled functions take the record `s` of the slice being read, with `data` and `end` of its bits (slice_bits.py), the
engine's `range`, `offset`, `ahead` and `byte`, and the words of its `context` variables; and the codec's tables `t`,
whose `engine` is the result of `cabac_states.engine_words`.
"""

from __future__ import annotations

import numpy as np

from codecmeta.entropy import faults
from codecmeta.entropy.slice_bits import leading_zeros, load_be64
from codecmeta.simd.numba_compile import compiled, inlined

# codIRange and codIOffset are kept in the top 9 bits of 64, the offset with `ahead` more bits of the slice data below.
# Renormalising is then a shift by the leading zeros, and data are loaded 32 bits at a time. A decision takes at most 7
# bits; `refill` keeps at least 16.

TOP = np.uint64(55)
"""Place of the lowest bit of codIRange and codIOffset."""

WIDTHS = np.uint64(0xFF << 55)
"""Where a context word, shifted by 16 bits for each step of qCodIRangeIdx, holds codIRangeLPS (`engine_words`)."""

STATE = np.uint64(127)
"""Where a context word, shifted by 0, 16 or 32 bits, holds pStateIdx * 2 + valMPS: after an MPS, after an LPS, now."""


@inlined
def decide(word, width, offset, ahead, t):
    """Run DecodeDecision (9.3.3.2.1) without branches on a context's word.

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
def decide_bypass(width, offset):
    """Run DecodeBypass (9.3.3.2.3) without branches: return -1 for a bin of 1, else 0, and codIOffset."""
    half = width >> np.uint64(1)
    one = np.uint64(0) - np.uint64(offset >= half)
    return np.int64(one), (offset - (half & one)) << np.uint64(1)


@inlined
def decide_bypass_bins(width, offset, count):
    """Decode up to 16 bypass bins at once; return them, the first most significant, and codIOffset."""
    part = width >> np.uint64(count)
    value = offset // part
    return value, (offset - value * part) << np.uint64(count)


@inlined
def refill(s, offset, ahead, byte):
    """Append the next 32 bits when fewer than 16 are left; beyond the data these are 0."""
    if ahead < 16:
        word = load_be64(s.data + min(byte, s.end + 8)) >> np.uint64(32)
        offset |= word << np.uint64(23 - ahead)
        ahead += 32
        byte += 4
    return offset, ahead, byte


@compiled
def start_engine(s, byte):
    """Initialise the arithmetic decoding engine at a byte (9.3.1.2)."""
    s.range = np.uint64(510) << TOP
    s.offset = load_be64(s.data + min(byte, s.end + 8)) & np.uint64(0xFFFFFFFFFF000000)
    s.ahead = 31
    s.byte = byte + 5
    if s.offset >= s.range:
        s.fault = faults.ARITHMETIC_START


@inlined
def position(s):
    """Return the number of bits of the RBSP that the engine has read, as 9.3.1.2 counts them."""
    return s.byte * 8 - s.ahead


@inlined
def decision(s, t, index):
    """Decode one bin with a context."""
    place = np.uint64(index)
    value, s.context[place], s.range, offset, ahead = decide(s.context[place], s.range, s.offset, s.ahead, t)
    s.offset, s.ahead, s.byte = refill(s, offset, ahead, s.byte)
    return np.int64(value)


@inlined
def bypass(s):
    """Decode one bin without a context."""
    one, offset = decide_bypass(s.range, s.offset)
    s.offset, s.ahead, s.byte = refill(s, offset, s.ahead - 1, s.byte)
    return -one


@compiled
def bypass_bins(s, count):
    """Decode up to 16 bins without a context; the first becomes the most significant."""
    value, offset = decide_bypass_bins(s.range, s.offset, count)
    s.offset, s.ahead, s.byte = refill(s, offset, s.ahead - count, s.byte)
    return np.int64(value)


@compiled
def terminate(s):
    """Run DecodeTerminate (9.3.3.2.2.3); after a bin of 1, the last bit read is the last one the encoder flushed."""
    s.range -= np.uint64(2) << TOP
    if s.offset >= s.range:
        return 1
    shift = leading_zeros(s.range)
    s.range <<= shift
    s.offset, s.ahead, s.byte = refill(s, s.offset << shift, s.ahead - np.int64(shift), s.byte)
    return 0
