"""Quarter samples of MPEG-4 part 2, whose filter is mirrored at the edges of a block, compiled.

Samples are read from a flat array that begins with the block's integer sample G; ``stride`` is the length of a row.
Results are written to ``out``, a flat block of `BLOCK` samples per row. `ReferenceSamples` guarantees that all samples
that the filter reads exist.
"""

from __future__ import annotations

import numpy as np

from codecmeta.simd.block_rows import BLOCK
from codecmeta.simd.numba_cache import kernel


@kernel(_nrt=False, inline="always")
def _eight_tap(samples, start, step, position, last, bias):
    """Return the half sample after ``position`` on a line of last + 1 samples that is mirrored at both ends."""
    total = 0
    for tap in range(4):
        before = position - tap
        after = position + 1 + tap
        if before < 0:
            before = -1 - before
        if after > last:
            after = 2 * last + 1 - after
        weight = (20, -6, 3, -1)[tap]
        total += weight * (np.int64(samples[start + before * step]) + np.int64(samples[start + after * step]))
    return min(max((total + bias) >> 5, 0), 255)


@kernel(_nrt=False)
def mpeg4_quarter(source, stride, fractions, size, rounding, out, lines):
    """Write a quarter-sample prediction of MPEG-4 part 2, 8 bit (ISO/IEC 14496-2, 7.6.2.2).

    The eight taps (-1, 3, -6, 20, 20, -6, 3, -1) / 32 use only the block's own (height + 1) x (width + 1) samples
    mirrored at its edges; a quarter sample is the mean of a half and a whole sample, first along rows, then
    along columns. ``lines`` is int32 scratch of height + 1 rows.
    """
    (fy, fx), (height, width) = fractions, size
    bias = 16 - rounding
    mean_bias = 1 - rounding
    for row in range(height + (1 if fy else 0)):
        first = row * stride
        for col in range(width):
            value = np.int64(source[first + col + (1 if fx == 3 else 0)])
            if fx:
                half = _eight_tap(source, first, 1, col, width, bias)
                value = half if fx == 2 else (half + value + mean_bias) >> 1
            lines[row * BLOCK + col] = value
    for row in range(height):
        for col in range(width):
            value = np.int64(lines[(row + (1 if fy == 3 else 0)) * BLOCK + col])
            if fy:
                half = _eight_tap(lines, col, BLOCK, row, height, bias)
                value = half if fy == 2 else (half + value + mean_bias) >> 1
            out[row * BLOCK + col] = value
