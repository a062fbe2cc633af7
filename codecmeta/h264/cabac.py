"""Context variables, and residual blocks in arithmetic code (Rec. ITU-T H.264, 9.3.1.1, 9.3.3.1.3)."""

from __future__ import annotations

import numpy as np

from codecmeta.entropy.cabac import decide, decide_bypass, refill
from codecmeta.entropy.slice_bits import settled
from codecmeta.h264 import faults
from codecmeta.h264.tables import CHROMA_DC_422, COLOUR_CONTEXTS
from codecmeta.simd.numba_compile import compiled, inlined


@compiled
def start_contexts(s, t, table, slice_qp):
    """Initialise the context variables (9.3.1.1) from one of the four sets of (m, n)."""
    qp = min(max(slice_qp, 0), 51)
    for i in range(1024 if s.chroma == 3 else COLOUR_CONTEXTS):
        m = np.int64(t.context_init[table, i, 0])
        n = np.int64(t.context_init[table, i, 1])
        p = min(max(((m * qp) >> 4) + n, 1), 126)
        s.context[i] = t.engine[(p - 64) * 2 + 1 if p > 63 else (63 - p) * 2]


@inlined
def _significance_map(s, t, contexts, place, first, stop, width, offset, ahead, byte):
    """Read significant_coeff_flag and last_significant_coeff_flag of a block.

    Step 2 i is significant_coeff_flag of scan index i, step 2 i + 1 its last_significant_coeff_flag, which only follows
    a 1: after each bin comes the next step or, skipping one, the step after it. The choice is made without a branch,
        since
    no processor predicts it; the words of both contexts are loaded before the bin is known.

    Args:
        contexts: context of each step, or None where they are consecutive from `place` on.
        first, stop: first step, and that of the last coefficient, which has no flags.

    Returns:
        Number of coefficients found, with their scan indices in `s.place`; and the engine.
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
def residual_block(s, t, category, count, flag):
    """Read residual_block_cabac (7.3.5.3.3).

    Args:
        category: ctxBlockCat (Table 9-42), `CHROMA_DC_422` for the eight coefficients of 4:2:2.
        count: number of coefficients of the block, 4 to 64.
        flag: ctxIdxInc of coded_block_flag, -1 where the flag is inferred to be 1.

    Returns:
        Number of coefficients found; their scan indices are in `s.place`, their levels in `s.level`.
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
