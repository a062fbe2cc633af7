"""The reference that predicts an H.264 block best: FFmpeg exports vectors without the index of their reference.

Tuples of arguments: ``current`` is (flat samples, row length) of the picture's luma, ``references`` (addresses of the
slots, luma size, largest sample value, scratch of half samples). Reference pictures sit in slots, past ones first. Of
equally good references the first is taken; a block below its dead zone needs no better one.
"""

from __future__ import annotations

import numpy as np

from codecmeta.difference import error_of_mean, error_of_weighted
from codecmeta.interpolation import BLOCK
from codecmeta.kernels import kernel
from codecmeta.prediction import find_points, put_points

PAST = 4
"""Most candidate reference pictures shown before the current one."""
FUTURE = 2
"""Most candidate reference pictures shown after it."""
EVEN = 32
"""Weight of the second prediction, in 1/64, when both count the same."""

PREDICTIONS = PAST + FUTURE + 1
"""Predicted blocks that are kept at a time: one per slot of list 0 and one of list 1."""

_SAMPLES = BLOCK * BLOCK
_AHEAD = (PAST + FUTURE) * _SAMPLES
_NO_ERROR_YET = 2**62


@kernel(_nrt=False)
def choose_one(current, area, references, span, block, vector, limit):  # type: ignore[no-untyped-def]
    """Best single reference of a block: its slot and error."""
    slots, size, top, sums = references
    chosen = np.int64(-1)
    best = np.int64(_NO_ERROR_YET)
    for slot in range(span[0], span[1]):
        points = find_points(slots[slot, 0], current[0], size, block, vector, top, sums)
        error = error_of_mean(current, area, points, best)
        if error < best:
            best = error
            chosen = slot
            if best == 0 or best < limit:
                break
    return chosen, best


@kernel(_nrt=False)
def choose_two(current, area, references, spans, weights, block, vectors, limit, blocks):  # type: ignore[no-untyped-def]
    """Best pair of references of a block with a vector in both lists: slots, weight and error.

    A partition of a macroblock that mixes lists carries a zero vector for a list that it does not use, so
    next to a zero vector the other prediction alone is a candidate too. ``blocks`` is scratch of PREDICTIONS blocks.
    """
    slots, size, top, sums = references
    (first0, last0), (first1, last1) = spans
    (dy0, dx0), (dy1, dx1) = vectors
    _, _, height, width = block
    partition = height < 16 or width < 16
    alone0 = partition and dy1 == 0 and dx1 == 0
    alone1 = partition and dy0 == 0 and dx0 == 0
    best = np.int64(_NO_ERROR_YET)
    slot0 = np.int64(-1)
    slot1 = np.int64(-1)
    weight = np.int64(EVEN)
    row = np.int64(BLOCK)
    ahead = np.int64(_AHEAD)
    for b in range(first1, last1):
        points = find_points(slots[b, 0], current[0], size, block, vectors[1], top, sums)
        put_points(points, height, width, blocks, ahead)
        if alone1:
            error = error_of_mean(current, area, (blocks, ahead, blocks, ahead, row), best)
            if error < best:
                best, slot0, slot1, weight = error, np.int64(-1), b, np.int64(EVEN)
        for a in range(first0, last0):
            if best == 0 or best < limit:
                return slot0, slot1, weight, best
            back = np.int64(a * _SAMPLES)
            if b == first1:
                points = find_points(slots[a, 0], current[0], size, block, vectors[0], top, sums)
                put_points(points, height, width, blocks, back)
                if alone0:
                    error = error_of_mean(current, area, (blocks, back, blocks, back, row), best)
                    if error < best:
                        best, slot0, slot1, weight = error, a, np.int64(-1), np.int64(EVEN)
            error = error_of_mean(current, area, (blocks, back, blocks, ahead, row), best)
            if error < best:
                best, slot0, slot1, weight = error, a, b, np.int64(EVEN)
            if weights[a, b] != EVEN:
                error = error_of_weighted(current, area, blocks, back, ahead, weights[a, b], top, best)
                if error < best:
                    best, slot0, slot1, weight = error, a, b, weights[a, b]
    return slot0, slot1, weight, best
