"""Kernels behind `compensation`: for each block the reference that predicts it best, and what is left.

Planes are flat arrays. Arguments come in tuples: ``block`` is (y, x, height, width) of a block in samples of the plane
at hand, ``area`` the part of it inside the picture, ``size`` the plane's height and width, ``rule`` (filter code,
rounding, largest sample value, columns to compute), and a prediction is (samples, index, row length). Reference
pictures sit in slots, past ones first.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from codecmeta.difference import squared_error, subtract
from codecmeta.interpolation import BLOCK, average, copy, weigh
from codecmeta.prediction import (
    H264,
    MPEG2,
    MPEG4_QPEL,
    chroma_component,
    chroma_component_of_four,
    predict_chroma,
    predict_luma,
)
from codecmeta.views import borrow, borrow_at

PAST = 4
"""Most candidate reference pictures shown before the current one."""
FUTURE = 2
"""Most candidate reference pictures shown after it."""
EVEN = 32
"""Weight of the second prediction, in 1/64, when both count the same."""

PREDICTIONS = PAST + FUTURE + 2
"""Predicted blocks that are kept at a time: one per slot, a mixed one and the best."""

_SAMPLES = BLOCK * BLOCK
_MIXED = (PAST + FUTURE) * _SAMPLES
_BEST = _MIXED + _SAMPLES
_NO_ERROR_YET = 2**62


@nb.njit(cache=True, nogil=True)
def _index_blocks(vectors, size):  # type: ignore[no-untyped-def]
    """Row of the vector table whose block starts at each 8x8 cell, per list; -1 for none."""
    first = np.full((2, (size[0] + 7) >> 3, (size[1] + 7) >> 3), -1, np.int32)
    for i in range(len(vectors)):
        x, y, w, h = vectors[i, 0], vectors[i, 1], vectors[i, 2], vectors[i, 3]
        if x < 0 or y < 0 or x >= size[1] or y >= size[0] or (x & 7) or (y & 7):
            continue
        if not ((w == 8 or w == 16) and (h == 8 or h == 16)):
            continue
        side = 0 if vectors[i, 6] < 0 else 1
        if first[side, y >> 3, x >> 3] < 0:
            first[side, y >> 3, x >> 3] = i
    return first


@nb.njit(cache=True, nogil=True)
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


@nb.njit(cache=True, nogil=True)
def _choose_one(luma, size, slots, span, block, area, vector, limit, rule, buffer, work):  # type: ignore[no-untyped-def]
    """Best single reference of a block: its slot, error and prediction."""
    chosen = -1
    best = np.int64(_NO_ERROR_YET)
    kept = (luma, np.int64(0), np.int64(BLOCK))
    for slot in range(span[0], span[1]):
        prediction = predict_luma(
            borrow_at(slots[slot], luma), size, block, vector[0], vector[1], rule, buffer, slot * _SAMPLES, work
        )
        error = squared_error(luma, size, area, prediction, best)
        if error < best:
            best = error
            chosen = slot
            kept = prediction
            if best == 0 or best < limit:
                break
    return chosen, best, kept


@nb.njit(cache=True, nogil=True)
def _materialise(luma, slots, slot, size, block, vector, rule, buffer, work):  # type: ignore[no-untyped-def]
    """Luma prediction from a slot, put into the slot's place in ``buffer``."""
    base = slot * _SAMPLES
    samples, start, stride = predict_luma(
        borrow_at(slots[slot], luma), size, block, vector[0], vector[1], rule, buffer, base, work
    )
    if stride != BLOCK:
        copy(samples, start, stride, block[2], rule[3], buffer, base)
    return buffer, base, np.int64(BLOCK)


@nb.njit(cache=True, nogil=True)
def _choose_two(  # type: ignore[no-untyped-def]
    luma, size, slots, span0, span1, weights, block, area, vector0, vector1, limit, rule, buffer, work
):
    """Best pair of references of a block with a vector in both lists: slots, weight, error and prediction.

    A partition of a macroblock that mixes lists carries a zero vector for a list that it does not use, so
    next to a zero vector the other prediction alone is a candidate too.
    """
    height = block[2]
    code, _, top, columns = rule
    mixes = code == H264 and (block[2] < 16 or block[3] < 16)
    alone0 = mixes and vector1[0] == 0 and vector1[1] == 0
    alone1 = mixes and vector0[0] == 0 and vector0[1] == 0
    mixed = (buffer, np.int64(_MIXED), np.int64(BLOCK))
    kept = (buffer, np.int64(_BEST), np.int64(BLOCK))
    best = np.int64(_NO_ERROR_YET)
    slot0 = -1
    slot1 = -1
    weight = np.int64(EVEN)
    for b in range(span1[0], span1[1]):
        if span0[0] <= b < span0[1]:
            # both lists look at the same pictures: keep list 1 apart from the predictions of list 0
            ahead = np.int64(PAST * _SAMPLES)
            samples, start, stride = predict_luma(
                borrow_at(slots[b], luma), size, block, vector1[0], vector1[1], rule, buffer, ahead, work
            )
            if stride != BLOCK:
                copy(samples, start, stride, block[2], rule[3], buffer, ahead)
        else:
            ahead = b * _SAMPLES
            _materialise(luma, slots, b, size, block, vector1, rule, buffer, work)
        if alone1:
            error = squared_error(luma, size, area, (buffer, np.int64(ahead), np.int64(BLOCK)), best)
            if error < best:
                best, slot0, slot1, weight = error, -1, b, np.int64(EVEN)
                copy(buffer, ahead, np.int64(BLOCK), height, columns, buffer, np.int64(_BEST))
        for a in range(span0[0], span0[1]):
            if best == 0 or best < limit:
                return slot0, slot1, weight, best, kept
            back = a * _SAMPLES
            if b == span1[0]:
                prediction = _materialise(luma, slots, a, size, block, vector0, rule, buffer, work)
                if alone0:
                    error = squared_error(luma, size, area, prediction, best)
                    if error < best:
                        best, slot0, slot1, weight = error, a, -1, np.int64(EVEN)
                        copy(buffer, back, np.int64(BLOCK), height, columns, buffer, np.int64(_BEST))
            for even in (True, False):
                if even:
                    average(buffer, back, buffer, ahead, height, buffer, np.int64(_MIXED))
                elif code == H264 and weights[a, b] != EVEN:
                    weigh(buffer, back, buffer, ahead, weights[a, b], height, top, buffer, np.int64(_MIXED))
                else:
                    continue
                error = squared_error(luma, size, area, mixed, best)
                if error < best:
                    best, slot0, slot1 = error, a, b
                    weight = np.int64(EVEN) if even else weights[a, b]
                    copy(buffer, np.int64(_MIXED), np.int64(BLOCK), height, columns, buffer, np.int64(_BEST))
    return slot0, slot1, weight, best, kept


@nb.njit(cache=True, nogil=True)
def _predict_part(plane, size, block, vector, rule, is_like_luma, buffer, base, work):  # type: ignore[no-untyped-def]
    if is_like_luma:
        return predict_luma(plane, size, block, vector[0] >> 1, vector[1] >> 1, rule, buffer, base, work)
    return predict_chroma(plane, size, block, vector[0], vector[1], rule, buffer, base, work)


@nb.njit(cache=True, nogil=True)
def _subtract_chroma(  # type: ignore[no-untyped-def]
    plane, size, back, ahead, block, pair, chroma0, chroma1, weight, is_like_luma, limit, rule, buffer, out, work
):
    """Residual of one chroma plane of a block; ``back`` and ``ahead`` are its references, vectors in eighths."""
    slot0, slot1 = pair
    y, x, height, width = block
    columns = rule[3]
    if slot0 >= 0:
        prediction = _predict_part(back, size, block, chroma0, rule, is_like_luma, buffer, np.int64(0), work)
    else:
        prediction = _predict_part(ahead, size, block, chroma1, rule, is_like_luma, buffer, np.int64(0), work)
    if slot0 >= 0 and slot1 >= 0:
        samples, start, stride = prediction
        if stride != BLOCK:
            copy(samples, start, stride, height, columns, buffer, np.int64(0))
        samples, start, stride = _predict_part(
            ahead, size, block, chroma1, rule, is_like_luma, buffer, np.int64(_SAMPLES), work
        )
        if stride != BLOCK:
            copy(samples, start, stride, height, columns, buffer, np.int64(_SAMPLES))
        if weight == EVEN:
            average(buffer, np.int64(0), buffer, np.int64(_SAMPLES), height, buffer, np.int64(0))
        else:
            weigh(buffer, np.int64(0), buffer, np.int64(_SAMPLES), weight, height, rule[2], buffer, np.int64(0))
        prediction = (buffer, np.int64(0), np.int64(BLOCK))
    area = (y, x, min(height, size[0] - y), min(width, size[1] - x))
    subtract(plane, size, area, prediction, limit, columns, out, work[2])


@nb.njit(cache=True, nogil=True, inline="always")
def _pack(vector):  # type: ignore[no-untyped-def]
    """dx and dy as two little-endian int16."""
    return np.int32((vector[0] << 16) | (vector[1] & 0xFFFF))


@nb.njit(cache=True, nogil=True)
def compensate(  # type: ignore[no-untyped-def]
    current,
    sizes,
    slots,
    counts,
    weights,
    vectors,
    limits,
    rule,
    shifts,
    memory,
    out,
    reference,
    displacement,
    inter,
):
    """Subtract the best prediction from every block that has a vector.

    Args:
        current: flat Y, Cb, Cr of the picture.
        sizes: height and width of luma and of chroma.
        slots: uintp (3, PAST + FUTURE), addresses of the references' planes, of the sizes and type of ``current``.
        counts: how many slots hold past and future references.
        weights: int64 (slots, slots), implicit weight of list 1 for each pair.
        vectors: int16 (n, 7).
        limits: float64 (2, rows, columns) per macroblock, dead zones of luma and chroma; (2, 0, 0) for none.
        rule: filter code, rounding, largest sample value, columns to compute (BLOCK).
        shifts: log2 of the vertical and horizontal chroma subsampling.
        memory: `scratch` and the array of predictions.
        out: flat int16 Y, Cb, Cr to write, zero on entry.
        reference: int8 (2, h4, w4) to write.
        displacement: int32 (2, h4, w4) to write, dx and dy packed.
        inter: bool (h4, w4) to write.
    """
    luma, cb, cr = borrow(current[0]), borrow(current[1]), borrow(current[2])
    residuals = (borrow(out[0]), borrow(out[1]), borrow(out[2]))
    luma_slots = slots[0]
    size, chroma_size = sizes
    height, width = size
    past, future = counts
    code = rule[0]
    first = _index_blocks(vectors, size)
    work = (borrow(memory[0]), borrow(memory[1]), borrow(memory[2]))
    buffer = borrow(memory[3])
    is_like_luma = code == H264 and shifts[0] == 0 and shifts[1] == 0
    # list 0 looks back and list 1 ahead, unless there is nothing on that side
    span0 = (0, past) if past else (0, future)
    span1 = (past, past + future) if future else (0, past)
    for index in range(len(vectors)):
        x, y = np.int64(vectors[index, 0]), np.int64(vectors[index, 1])
        side = 0 if vectors[index, 6] < 0 else 1
        if x < 0 or y < 0 or x >= width or y >= height or first[side, y >> 3, x >> 3] != index:
            continue
        i0 = first[0, y >> 3, x >> 3]
        i1 = first[1, y >> 3, x >> 3]
        if i0 >= 0 and i1 >= 0:
            if side == 1:
                continue
            if vectors[i0, 2] != vectors[i1, 2] or vectors[i0, 3] != vectors[i1, 3]:
                i1 = np.int32(-1)
        h, w = np.int64(vectors[index, 3]), np.int64(vectors[index, 2])
        block = (y, x, h, w)
        area = (y, x, min(h, height - y), min(w, width - x))
        limit = chroma_limit = 0.0
        if limits.shape[1]:
            limit, chroma_limit = limits[0, y >> 4, x >> 4], limits[1, y >> 4, x >> 4]
        slot0 = slot1 = -1
        weight = np.int64(EVEN)
        vector0 = (np.int64(vectors[i0, 5]), np.int64(vectors[i0, 4]))
        vector1 = (np.int64(vectors[i1, 5]), np.int64(vectors[i1, 4]))
        if i0 >= 0 and i1 >= 0:
            slot0, slot1, weight, error, prediction = _choose_two(
                luma,
                size,
                luma_slots,
                span0,
                span1,
                weights,
                block,
                area,
                vector0,
                vector1,
                limit,
                rule,
                buffer,
                work,
            )
        else:
            span = span0 if i0 >= 0 else span1
            vector = vector0 if i0 >= 0 else vector1
            slot, error, prediction = _choose_one(
                luma, size, luma_slots, span, block, area, vector, limit, rule, buffer, work
            )
            if i0 >= 0:
                slot0 = slot
            else:
                slot1 = slot
        if error > 0 and error >= limit:
            subtract(luma, size, area, prediction, limit, rule[3], residuals[0], work[2])
        packed0 = _pack(vector0) if slot0 >= 0 else np.int32(0)
        packed1 = _pack(vector1) if slot1 >= 0 else np.int32(0)
        for row in range(y >> 2, (y + area[2] + 3) >> 2):
            for col in range(x >> 2, (x + area[3] + 3) >> 2):
                inter[row, col] = True
                reference[0, row, col] = slot0
                reference[1, row, col] = slot1
                displacement[0, row, col] = packed0
                displacement[1, row, col] = packed1
        if cb.size == 0:
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
        part = (y >> shifts[0], x >> shifts[1], h >> shifts[0], w >> shifts[1])
        for channel in range(2):
            _subtract_chroma(
                cb if channel == 0 else cr,
                chroma_size,
                borrow_at(slots[1 + channel, max(slot0, 0)], cb),
                borrow_at(slots[1 + channel, max(slot1, 0)], cb),
                part,
                (slot0, slot1),
                chroma0,
                chroma1,
                weight,
                is_like_luma,
                chroma_limit,
                rule,
                buffer,
                residuals[1] if channel == 0 else residuals[2],
                work,
            )
