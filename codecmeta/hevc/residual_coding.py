"""Residual coding: levels of a transform block, scaled as they are read (H.265, 7.3.8.11, 9.3.3.11, 9.3.4.2)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import decide, decide_bypass, decide_bypass_bins, refill
from codecmeta.hevc import faults
from codecmeta.hevc.records import bytes_at, samples_at
from codecmeta.hevc.scaling_lists import FACTORS
from codecmeta.hevc.tables import (
    CODED_SUB_BLOCK,
    GREATER1,
    GREATER2,
    LAST_X,
    LAST_Y,
    SIGNIFICANT,
    SKIP_CONTEXT_SET,
    STATISTICS,
    VERTICAL,
)
from codecmeta.hevc.transform import coefficient_place
from codecmeta.simd.numba_compile import compiled, inlined


@inlined
def _last_prefix(s, t, first, chroma, log2, width, offset, ahead, byte):
    """Read last_sig_coeff_x_prefix or last_sig_coeff_y_prefix (9.3.4.2.3)."""
    base = np.uint64(first) + np.uint64(t.last_offset[chroma, log2])
    shift = np.uint64(t.last_shift[chroma, log2])
    most = np.uint64(2 * log2 - 1)
    value = np.uint64(0)
    while value < most:
        place = base + (value >> shift)
        more, s.context[place], width, offset, ahead = decide(s.context[place], width, offset, ahead, t)
        offset, ahead, byte = refill(s, offset, ahead, byte)
        if not more:
            break
        value += np.uint64(1)
    return np.int64(value), width, offset, ahead, byte


@inlined
def _last_suffix(s, prefix, width, offset, ahead, byte):
    """Return the position from a prefix and its suffix (7-74, 7-75)."""
    if prefix > 3:
        count = (prefix >> 1) - 1
        value, offset = decide_bypass_bins(width, offset, count)
        offset, ahead, byte = refill(s, offset, ahead - count, byte)
        prefix = (np.int64(2 + (prefix & 1)) << count) + np.int64(value)
    return prefix, offset, ahead, byte


@inlined
def _remaining(s, rice, width, offset, ahead, byte):
    """Read coeff_abs_level_remaining (9.3.3.11)."""
    prefix = 0
    while prefix <= 32:
        one, offset = decide_bypass(width, offset)
        offset, ahead, byte = refill(s, offset, ahead - 1, byte)
        if not one:
            break
        prefix += 1
    count = rice
    value = np.int64(prefix)
    if prefix > 3:
        count = prefix - 3 + rice
        value = (np.int64(1) << (prefix - 3)) + 2
    if prefix > 32 or count > 32:
        s.fault = faults.LEVEL
        count = 0
    value <<= rice
    while count > 0:
        part = min(count, 16)
        bins, offset = decide_bypass_bins(width, offset, part)
        offset, ahead, byte = refill(s, offset, ahead - part, byte)
        count -= part
        value += np.int64(bins) << count
    return value, offset, ahead, byte


@compiled
def read_levels(s, t, chroma, log2, scan, hiding, flat, weights, scale, rounding, shift):
    """Read residual_coding from last_sig_coeff_x_prefix on.

    Args:
        chroma: cIdx > 0.
        log2: of the block size.
        scan: scanIdx.
        hiding: signs may be hidden.
        flat: m of (8-309) where `weights` is negative.
        weights: index of the block's first scaling factor.
        scale, rounding, shift: a level times m times `scale`, plus `rounding`, shifted right is the coefficient.
    """
    context = s.context
    coefficients = samples_at(s.coefficients, 1024)
    factors = bytes_at(s.factors, FACTORS)
    width, offset, ahead, byte = s.range, s.offset, s.ahead, s.byte
    last_x, width, offset, ahead, byte = _last_prefix(s, t, LAST_X, chroma, log2, width, offset, ahead, byte)
    last_y, width, offset, ahead, byte = _last_prefix(s, t, LAST_Y, chroma, log2, width, offset, ahead, byte)
    last_x, offset, ahead, byte = _last_suffix(s, last_x, width, offset, ahead, byte)
    last_y, offset, ahead, byte = _last_suffix(s, last_y, width, offset, ahead, byte)
    if scan == VERTICAL:
        last_x, last_y = last_y, last_x
    log2_side = log2 - 2
    last_block = np.int64(t.scan_place[log2_side, scan, ((last_y >> 2) << log2_side) + (last_x >> 2)])
    position = np.int64(t.scan_place[2, scan, ((last_y & 3) << 2) + (last_x & 3)])

    plain_skip = s.skip_context != 0 and (s.transform_skip != 0 or s.bypass != 0)
    sets = SKIP_CONTEXT_SET + chroma if plain_skip else (scan * 3 + min(log2_side, 2)) * 4 + 2 * chroma
    statistic = STATISTICS + (0 if chroma else 2) + np.int64(s.transform_skip != 0 or s.bypass != 0)
    most_right, most_down = np.int64(0), np.int64(0)
    coded = np.uint64(0)
    ones = 1
    edge = (1 << log2_side) - 1
    block = last_block
    while block >= 0:
        x_block, y_block = np.int64(t.scan_x[log2_side, scan, block]), np.int64(t.scan_y[log2_side, scan, block])
        bit = np.uint64(y_block * 8 + x_block)
        right = np.int64((coded >> (bit + np.uint64(1))) & np.uint64(1)) if x_block < edge else 0
        below = np.int64((coded >> (bit + np.uint64(8))) & np.uint64(1)) if y_block < edge else 0
        inferred = False
        n = np.uint64(0)
        step = np.int64(15)
        if block == last_block:
            s.place[0] = position
            n = np.uint64(1)
            step = position - 1
        elif block > 0:
            place = np.uint64(CODED_SUB_BLOCK + 2 * chroma + (right | below))
            found, context[place], width, offset, ahead = decide(context[place], width, offset, ahead, t)
            offset, ahead, byte = refill(s, offset, ahead, byte)
            if not found:
                block -= 1
                continue
            inferred = True
        coded |= np.uint64(1) << bit

        contexts = t.significant[sets + (0 if plain_skip else np.int64(block > 0)), right + 2 * below]
        while step > 0:
            place = np.uint64(SIGNIFICANT) + np.uint64(contexts[step])
            found, context[place], width, offset, ahead = decide(context[place], width, offset, ahead, t)
            offset, ahead, byte = refill(s, offset, ahead, byte)
            s.place[n] = step
            n += found
            step -= 1
        if step == 0:
            found = np.uint64(1)
            if n > 0 or not inferred:
                place = np.uint64(SIGNIFICANT) + np.uint64(contexts[0])
                found, context[place], width, offset, ahead = decide(context[place], width, offset, ahead, t)
                offset, ahead, byte = refill(s, offset, ahead, byte)
            s.place[n] = 0
            n += found
        count = np.int64(n)
        if count == 0:
            block -= 1
            continue

        # coeff_abs_level_greater1_flag, coeff_abs_level_greater2_flag (9.3.4.2.6, 9.3.4.2.7)
        level_set = (0 if block == 0 or chroma else 2) + (1 if ones == 0 else 0)
        base = np.uint64(GREATER1 + 16 * chroma + 4 * level_set)
        ones = 1
        flagged = min(count, 8)
        first_greater = np.int64(16)
        for i in range(flagged):
            place = base + np.uint64(ones)
            found, context[place], width, offset, ahead = decide(context[place], width, offset, ahead, t)
            offset, ahead, byte = refill(s, offset, ahead, byte)
            s.level[i] = 1 + np.int64(found)
            if found:
                ones = 0
                first_greater = min(first_greater, i)
            elif ones > 0:
                ones = min(ones + 1, 3)
        if first_greater < 16:
            place = np.uint64(GREATER2 + 4 * chroma + level_set)
            found, context[place], width, offset, ahead = decide(context[place], width, offset, ahead, t)
            offset, ahead, byte = refill(s, offset, ahead, byte)
            s.level[first_greater] += np.int64(found)

        hidden = hiding != 0 and np.int64(s.place[0]) - np.int64(s.place[count - 1]) > 3
        signs_coded = count - np.int64(hidden)
        bins, offset = decide_bypass_bins(width, offset, signs_coded)
        offset, ahead, byte = refill(s, offset, ahead - signs_coded, byte)
        signs = np.int64(bins) << (16 - signs_coded)

        total = np.int64(0)
        if first_greater < 16 or count > 8:
            rice = np.int64(context[statistic]) >> 2 if s.persistent_rice else 0
            first = True
            for i in range(count):
                level = s.level[i] if i < 8 else 1
                threshold = (3 if i == first_greater else 2) if i < 8 else 1
                if level == threshold:
                    more, offset, ahead, byte = _remaining(s, rice, width, offset, ahead, byte)
                    level += more
                    if s.persistent_rice and first:
                        kept = np.int64(context[statistic])
                        if more >= 3 << (kept >> 2):
                            context[statistic] = kept + 1
                        elif 2 * more < 1 << (kept >> 2) and kept > 0:
                            context[statistic] = kept - 1
                    first = False
                    if level > 3 << rice:
                        rice = rice + 1 if s.persistent_rice else min(rice + 1, 4)
                s.level[i] = level
                total += level
        else:
            total = count
        if hidden and total & 1:
            signs |= 1 << (15 - signs_coded)

        for i in range(count):
            level = s.level[i]
            if (signs >> (15 - i)) & 1:
                level = -level
            if level > 32767 or level < -32768:
                s.fault = faults.LEVEL
            place = np.int64(s.place[i])
            x = x_block * 4 + np.int64(t.scan_x[2, scan, place])
            y = y_block * 4 + np.int64(t.scan_y[2, scan, place])
            factor = flat
            if weights >= 0:
                factor = np.int64(factors[weights + (y << log2) + x])
            value = (level * factor * scale + rounding) >> shift
            coefficients[coefficient_place(x, y, log2)] = min(max(value, -32768), 32767)
            most_right = max(most_right, x)
            most_down = max(most_down, y)
        block -= 1
    s.range, s.offset, s.ahead, s.byte = width, offset, ahead, byte
    s.columns, s.rows = most_right + 1, most_down + 1
