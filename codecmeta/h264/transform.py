"""Scaling and inverse transforms of transform coefficients (Rec. ITU-T H.264, 8.5.6 to 8.5.15).

Only 4x4 blocks that have residual samples are stored, 16 samples each in raster order, consecutively in decoding order
(6.4.3): `s.cursor` is the index of the next. An 8x8 block becomes four of them. Samples beyond int16, which no
conforming stream of any bit depth needs, saturate.
"""

from __future__ import annotations

import numpy as np

from codecmeta.h264 import inverse_transform
from codecmeta.h264.records import samples_at
from codecmeta.simd.numba_compile import compiled, inlined


@inlined
def saturate(value):
    """Clip to int16."""
    return np.int16(min(max(value, -32768), 32767))


@inlined
def scatter_4x4(s, t, n, scale, qp):
    """Scale `n` levels into `s.coefficient` (8.5.6, 8.5.12.1: 8-336, 8-337)."""
    scan = t.scan4[s.field]
    factors = s.scale4[scale, qp % 6]
    shift = qp // 6 + 2
    for i in range(n):
        place = np.int64(scan[s.place[i]])
        s.coefficient[place] = (np.int64(s.level[i]) * (np.int64(factors[place]) << shift) + 32) >> 6


@compiled
def scatter_8x8(s, t, n, scale, qp):
    """Scale `n` levels into `s.coefficient` (8.5.7, 8.5.13: 8-356, 8-357)."""
    scan = t.scan8[s.field]
    factors = s.scale8[scale, qp % 6]
    shift = qp // 6
    for i in range(n):
        place = np.int64(scan[s.place[i]])
        s.coefficient[place] = (np.int64(s.level[i]) * (np.int64(factors[place]) << shift) + 32) >> 6


@inlined
def flat_block(s, dc):
    """Store the inverse 4x4 transform of a block whose only coefficient is DC."""
    residual = samples_at(s.samples, s.sample_count)
    value = saturate((dc + 32) >> 6)
    block = residual[s.cursor : s.cursor + 16]
    for i in range(16):
        block[i] = value
    s.cursor += 16


@compiled
def inverse_4x4(s):
    """Transform `s.coefficient` (8.5.12.2), round, store, and clear it."""
    inverse_transform.inverse_4x4(s.coefficient, samples_at(s.samples, s.sample_count), s.cursor)
    s.cursor += 16


@compiled
def inverse_8x8(s):
    """Transform `s.coefficient` (8.5.13), round, store as four 4x4 blocks, and clear it."""
    inverse_transform.inverse_8x8(s.coefficient, samples_at(s.samples, s.sample_count), s.cursor)
    s.cursor += 64


@compiled
def store_8x8(s):
    """Store `s.coefficient` untransformed as four 4x4 blocks, and clear it."""
    residual = samples_at(s.samples, s.sample_count)
    d = s.coefficient
    for y in range(8):
        at = s.cursor + (y >> 2) * 32 + (y & 3) * 4
        line = residual[at : at + 20]
        for x in range(4):
            line[x] = saturate(d[y * 8 + x])
            line[x + 16] = saturate(d[y * 8 + 4 + x])
    for i in range(64):
        d[i] = 0
    s.cursor += 64


@compiled
def inverse_luma_dc(s, scale, qp):
    """Transform and scale the 4x4 DC matrix of an Intra_16x16 macroblock in `s.dc`, raster order (8.5.10)."""
    _hadamard_4(s.dc, 4, 1)
    _hadamard_4(s.dc, 1, 4)
    factor = np.int64(s.scale4[scale, qp % 6, 0]) << (qp // 6)
    for i in range(16):
        s.dc[i] = (s.dc[i] * factor + 32) >> 6


@inlined
def _hadamard_4(c, line, step):
    # (8-328): the four vectors that start at multiples of `line`, elements `step` apart
    for i in range(4):
        at = i * line
        a, b = c[at] + c[at + step], c[at] - c[at + step]
        e, f = c[at + 2 * step] + c[at + 3 * step], c[at + 2 * step] - c[at + 3 * step]
        c[at], c[at + step], c[at + 2 * step], c[at + 3 * step] = a + e, a - e, b - f, b + f


@compiled
def inverse_chroma_dc(s, first, scale, qp):
    """Transform and scale the chroma DC matrix at `first` of `s.dc`, rows of two (8.5.11.1, 8.5.11.2)."""
    c = s.dc[first : first + 8]
    if s.chroma == 1:
        a, b = c[0] + c[1], c[0] - c[1]
        e, f = c[2] + c[3], c[2] - c[3]
        factor = np.int64(s.scale4[scale, qp % 6, 0]) << (qp // 6)
        c[0] = ((a + e) * factor) >> 5
        c[1] = ((b + f) * factor) >> 5
        c[2] = ((a - e) * factor) >> 5
        c[3] = ((b - f) * factor) >> 5
        return
    for row in range(4):
        c[2 * row], c[2 * row + 1] = c[2 * row] + c[2 * row + 1], c[2 * row] - c[2 * row + 1]
    for column in range(2):
        a, b = c[column] + c[2 + column], c[column] - c[2 + column]
        e, f = c[4 + column] + c[6 + column], c[4 + column] - c[6 + column]
        c[column], c[2 + column], c[4 + column], c[6 + column] = a + e, a - e, b - f, b + f
    # QP'c,dc = QP'c + 3 (8-330)
    factor = np.int64(s.scale4[scale, (qp + 3) % 6, 0]) << ((qp + 3) // 6)
    for i in range(8):
        c[i] = (c[i] * factor + 32) >> 6


@compiled
def accumulate(s, base, across, down, columns, horizontal):
    """Apply bypass with horizontal or vertical intra prediction (8.5.15): each sample accumulates those before it.

    Args:
        base: index of the first sample of the area's first block; all its blocks are stored.
        across, down: size of the area in samples.
        columns: 4x4 blocks per row of the macroblock's plane.
    """
    residual = samples_at(s.samples, s.sample_count)
    for y in range(down):
        for x in range(across):
            if (x if horizontal else y) == 0:
                continue
            before = _sample(base, x - 1, y, columns) if horizontal else _sample(base, x, y - 1, columns)
            here = _sample(base, x, y, columns)
            residual[here] = saturate(np.int64(residual[here]) + residual[before])


@inlined
def _sample(base, x, y, columns):
    return base + block_index(x >> 2, y >> 2, columns) * 16 + (y & 3) * 4 + (x & 3)


@inlined
def block_index(x, y, columns):
    """Return the index of the block at (x, y) of a plane: luma4x4BlkIdx (6.4.3) or, in two columns, raster."""
    if columns == 4:
        return (x & 1) + 2 * (y & 1) + 2 * (x & 2) + 4 * (y & 2)
    return x + columns * y


@inlined
def block_place(index, columns):
    """Return the (x, y) whose `block_index` is `index`."""
    if columns == 4:
        return (index & 1) + ((index >> 1) & 2), ((index >> 1) & 1) + ((index >> 2) & 2)
    return index & (columns - 1), index // columns
