"""The blocks of a vector table: their references, predictions and residuals, compiled.

Planes are flat arrays. A block is (y, x, height, width) in samples of the plane at hand, ``rule`` is (filter code,
rounding, largest sample value). Reference pictures sit in slots, past ones first.
"""

from __future__ import annotations

import numpy as np

from codecmeta.difference import subtract
from codecmeta.interpolation import BLOCK, average, weigh
from codecmeta.kernels import kernel
from codecmeta.prediction import (
    H264,
    MPEG2,
    MPEG4_QPEL,
    chroma_component,
    chroma_component_of_four,
    predict_chroma,
    predict_luma,
)
from codecmeta.selection import EVEN, choose_one, choose_two

_SECOND = BLOCK * BLOCK
"""Where the second of two predictions is put."""


@kernel(_nrt=False)
def _index_blocks(vectors, size, first):  # type: ignore[no-untyped-def]
    """Find the row of the vector table whose block starts at each 8x8 cell, per list."""
    for i in range(len(vectors)):
        x, y, w, h = vectors[i, 0], vectors[i, 1], vectors[i, 2], vectors[i, 3]
        if x < 0 or y < 0 or x >= size[1] or y >= size[0] or (x & 7) or (y & 7):
            continue
        if not ((w == 8 or w == 16) and (h == 8 or h == 16)):
            continue
        side = 0 if vectors[i, 6] < 0 else 1
        if first[side, y >> 3, x >> 3] < 0:
            first[side, y >> 3, x >> 3] = i


@kernel(_nrt=False)
def _chroma_vector(vectors, index, first, side, shifts, code):  # type: ignore[no-untyped-def]
    """dy, dx in eighths for the chroma of a block, and whether it speaks for its whole macroblock."""
    dx = np.int64(vectors[index, 4])
    dy = np.int64(vectors[index, 5])
    if code in (H264, MPEG2) or vectors[index, 2] != 8 or vectors[index, 3] != 8:
        return chroma_component(dy, shifts[0], code), chroma_component(dx, shifts[1], code), False
    row = (vectors[index, 1] >> 4) << 1
    col = (vectors[index, 0] >> 4) << 1
    total_x = np.int64(0)
    total_y = np.int64(0)
    for k in range(4):
        i = first[side, min(row + (k >> 1), first.shape[1] - 1), min(col + (k & 1), first.shape[2] - 1)]
        if i < 0:
            i = index
        dx = np.int64(vectors[i, 4])
        dy = np.int64(vectors[i, 5])
        # to half samples, towards zero
        total_x += (dx + 1 if dx < 0 and code == MPEG4_QPEL else dx) >> 1
        total_y += (dy + 1 if dy < 0 and code == MPEG4_QPEL else dy) >> 1
    return chroma_component_of_four(total_y), chroma_component_of_four(total_x), True


@kernel(_nrt=False)
def _predict(slots, channel, size, block, vector, is_luma, rule, blocks, base, memory):  # type: ignore[no-untyped-def]
    """One prediction of a block, from the row of its slot."""
    if is_luma:
        predict_luma(slots[channel], size, block, vector, rule, blocks, base, memory[0], memory[1])
    else:
        predict_chroma(slots[channel], size, block, vector, rule, blocks, base)


@kernel(_nrt=False)
def _predict_and_subtract(  # type: ignore[no-untyped-def]
    current, channel, size, slots, choice, vectors, is_luma, block, limit, rule, memory, out
):
    """Residual of a block of one plane; ``choice`` is the slots of both lists (-1 for none) and the weight."""
    slot0, slot1, weight = choice
    blocks = memory[2]
    second = np.int64(_SECOND if slot0 >= 0 else 0)
    if slot0 >= 0:
        _predict(slots[slot0], channel, size, block, vectors[0], is_luma, rule, blocks, np.int64(0), memory)
    if slot1 >= 0:
        _predict(slots[slot1], channel, size, block, vectors[1], is_luma, rule, blocks, second, memory)
    y, x, height, width = block
    if slot0 >= 0 and slot1 >= 0:
        if weight == EVEN:
            average(blocks, np.int64(0), blocks, second, height, blocks, np.int64(0))
        else:
            weigh(blocks, np.int64(0), blocks, second, weight, height, np.int32(rule[2]), blocks, np.int64(0))
    area = (y, x, min(height, size[0] - y), min(width, size[1] - x))
    subtract(current, area, blocks, np.int64(0), limit, out, size[1])


@kernel(_nrt=False, inline="always")
def _pack(vector):  # type: ignore[no-untyped-def]
    """dx and dy as two little-endian int16."""
    return np.int32((vector[1] & 0xFFFF) | (vector[0] << 16))


@kernel(_nrt=False)
def compensate(  # type: ignore[no-untyped-def]
    current,
    sizes,
    slots,
    counts,
    weights,
    vectors,
    first,
    qp,
    limits,
    rule,
    shifts,
    memory,
    out,
    reference,
    displacement,
):
    """Subtract the best prediction from every block that has a vector.

    Args:
        current: (flat samples, row length) of Y, Cb, Cr.
        sizes: height and width of luma and of chroma, (0, 0) without.
        slots: uintp (slots, 3, 5), `ReferenceSamples.addresses` of the references.
        counts: how many slots hold past and future references.
        weights: int64 (slots, slots), implicit weight of list 1 for each pair.
        vectors: int16 (n, 7).
        first: int32 (2, h8, w8), -1 everywhere, to be used as scratch.
        qp: int8 (rows, columns) per macroblock, (0, 0) for no dead zone.
        limits: float64 (2, 256), dead zones of luma and chroma for each QP from -128 on.
        rule: filter code, rounding, largest sample value.
        shifts: log2 of the vertical and horizontal chroma subsampling.
        memory: scratch of half samples, of a block's lines (int32), and of `selection.PREDICTIONS` blocks.
        out: flat int16 Y, Cb, Cr to write, zero on entry.
        reference: int8 (2, h8, w8), -1 on entry, to write.
        displacement: int32 (2, h8, w8) to write, dx and dy packed.
    """
    size, chroma_size = sizes
    height, width = size
    past, future = counts
    code = rule[0]
    _index_blocks(vectors, size, first)
    is_like_luma = code == H264 and shifts[0] == 0 and shifts[1] == 0
    references = (slots, size, rule[2], memory[0])
    # list 0 looks back and list 1 ahead, unless there is nothing on that side
    spans = (
        (np.int64(0), past) if past else (np.int64(0), future),
        (past, past + future) if future else (np.int64(0), past),
    )
    for index in range(len(vectors)):
        x, y = np.int64(vectors[index, 0]), np.int64(vectors[index, 1])
        side = 0 if vectors[index, 6] < 0 else 1
        if x < 0 or y < 0 or x >= width or y >= height or first[side, y >> 3, x >> 3] != index:
            continue
        i0 = np.int64(first[0, y >> 3, x >> 3])
        i1 = np.int64(first[1, y >> 3, x >> 3])
        if i0 >= 0 and i1 >= 0:
            if side == 1:
                continue
            if vectors[i0, 2] != vectors[i1, 2] or vectors[i0, 3] != vectors[i1, 3]:
                i1 = np.int64(-1)
        h, w = np.int64(vectors[index, 3]), np.int64(vectors[index, 2])
        block = (y, x, h, w)
        area = (y, x, min(h, height - y), min(w, width - x))
        limit = chroma_limit = 0.0
        if qp.size:
            step = np.int64(qp[y >> 4, x >> 4]) + 128
            limit, chroma_limit = limits[0, step], limits[1, step]
        vector0 = (np.int64(vectors[i0, 5]), np.int64(vectors[i0, 4])) if i0 >= 0 else (np.int64(0), np.int64(0))
        vector1 = (np.int64(vectors[i1, 5]), np.int64(vectors[i1, 4])) if i1 >= 0 else (np.int64(0), np.int64(0))
        slot0 = spans[0][0] if i0 >= 0 else np.int64(-1)
        slot1 = spans[1][0] if i1 >= 0 else np.int64(-1)
        weight = np.int64(EVEN)
        error = np.int64(1)
        if code == H264:
            if i0 >= 0 and i1 >= 0:
                slot0, slot1, weight, error = choose_two(
                    current[0], area, references, spans, weights, block, (vector0, vector1), limit, memory[2]
                )
            elif i0 >= 0:
                slot0, error = choose_one(current[0], area, references, spans[0], block, vector0, limit)
            else:
                slot1, error = choose_one(current[0], area, references, spans[1], block, vector1, limit)
        choice = (slot0, slot1, weight)
        if error > 0 and error >= limit:
            _predict_and_subtract(
                current[0],
                np.int64(0),
                size,
                slots,
                choice,
                (vector0, vector1),
                np.bool_(True),
                block,
                limit,
                rule,
                memory,
                out[0],
            )
        packed0 = _pack(vector0) if slot0 >= 0 else np.int32(0)
        packed1 = _pack(vector1) if slot1 >= 0 else np.int32(0)
        for row in range(y >> 3, (y + area[2] + 7) >> 3):
            for col in range(x >> 3, (x + area[3] + 7) >> 3):
                reference[0, row, col] = slot0
                reference[1, row, col] = slot1
                displacement[0, row, col] = packed0
                displacement[1, row, col] = packed1
        if chroma_size[0] == 0:
            continue
        chroma0 = chroma1 = (np.int64(0), np.int64(0))
        whole = False
        if slot0 >= 0:
            dy, dx, whole = _chroma_vector(vectors, i0, first, np.int64(0), shifts, code)
            chroma0 = (dy, dx)
        if slot1 >= 0:
            dy, dx, whole = _chroma_vector(vectors, i1, first, np.int64(1), shifts, code)
            chroma1 = (dy, dx)
        if whole:
            if (x & 8) or (y & 8):
                continue
            h = w = np.int64(16)
        if is_like_luma:
            chroma0, chroma1 = (vector0, vector1)
        part = (y >> shifts[0], x >> shifts[1], h >> shifts[0], w >> shifts[1])
        for channel in range(1, 3):
            _predict_and_subtract(
                current[channel],
                channel,
                chroma_size,
                slots,
                choice,
                (chroma0, chroma1),
                is_like_luma,
                part,
                chroma_limit,
                rule,
                memory,
                out[channel],
            )
