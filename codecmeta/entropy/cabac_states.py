"""State transitions of the arithmetic decoding engine as words for compiled code (H.264 9.3.3.2; H.265 9.3.4.3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def engine_words(ranges: Sequence[Sequence[int]], after_lps: Sequence[int]) -> NDArray[np.uint64]:
    """Lay out the state transitions as a word for each state, pStateIdx * 2 + valMPS.

    Args:
        ranges: rangeTabLPS, four entries by pStateIdx.
        after_lps: transIdxLps by pStateIdx.

    Returns:
        uint64 (128,): from bit 55 on downwards by 16 bits, the four entries of rangeTabLPS; in bits 0, 16 and 32, the
        state after an MPS, the state after an LPS, and this one.
    """
    words = np.zeros(128, np.uint64)
    for p_state, (widths, lower) in enumerate(zip(ranges, after_lps, strict=True)):
        for mps in (0, 1):
            state = p_state * 2 + mps
            after = min(p_state + 1, 62) * 2 + mps, lower * 2 + (mps if p_state else 1 - mps), state
            word = sum(width << (55 - 16 * i) for i, width in enumerate(widths))
            words[state] = word | sum(one << (16 * i) for i, one in enumerate(after))
    return words
