"""Reference selection for H.264 blocks by prediction error: FFmpeg exports vectors without their reference index.

Among equally good entries the first is taken; a block below its dead zone needs no better one. Records are those of
block_records.py, a block is (y, x, height, width) in luma samples.
"""

from __future__ import annotations

import numpy as np

from codecmeta.prediction.block_difference import error_of, is_mean
from codecmeta.prediction.block_prediction import find_points
from codecmeta.prediction.padded_reference import MARGIN
from codecmeta.simd.numba_cache import kernel

PAST = 4
"""Largest number of candidate reference pictures shown before the current one."""
FUTURE = 2
"""Largest number of candidate reference pictures shown after it."""

_NO_ERROR_YET = 2**62


@kernel(_nrt=False, forceinline=True)
def weights_of(table, channel):
    """Return the weights of a channel, int64 (3, 5), as a tuple."""
    return table[channel, 0], table[channel, 1], table[channel, 2], table[channel, 3], table[channel, 4]


@kernel(_nrt=False, forceinline=True)
def mean_of(top):
    """Return the weights of a plain mean, as a tuple."""
    return np.int64(32), np.int64(32), np.int64(6), np.int64(0), np.int64(top)


@kernel(_nrt=False, forceinline=True)
def inside(block, size):
    """Return the part of a block inside a plane."""
    y, x, height, width = block
    return y, x, min(height, size[0] - y), min(width, size[1] - x)


@kernel(_nrt=False)
def choose_one(plane, lists, sums, side, block, vector, limit):
    """Find the best entry of one list: its number and error.

    Args:
        plane: luma.
        lists: both reference lists.
        sums: scratch of half samples.
        side: which list.
        block: the block.
        vector: its vector.
        limit: dead zone.
    """
    area, stride = inside(block, plane.size), plane.size[1] + 2 * MARGIN
    chosen = np.int64(-1)
    best = np.int64(_NO_ERROR_YET)
    for entry in range(lists.counts[side]):
        slot = plane.slots[lists.slots[side, entry]]
        a, b = find_points(slot, plane.like, plane.size, block, vector, plane.top, sums)
        weights = weights_of(lists.singles[side, entry], 0)
        error = error_of(plane.like[0], plane.samples, area, (a, b, a, b), stride, weights, best)
        if error < best:
            best = error
            chosen = np.int64(entry)
            if best == 0 or best < limit:
                break
    return chosen, best


@kernel(_nrt=False)
def choose_two(plane, lists, sums, block, vectors, limit):
    """Find the best entries of both lists for a block with a vector in each: numbers, equal weights or not, error.

    A partition of a macroblock that mixes lists carries a zero vector for a list that it does not use, so in the
    presence of a zero vector the other prediction without it is a candidate too, and the number of the other entry is
    -1.

    Args:
        plane: luma.
        lists: both reference lists.
        sums: scratch of half samples.
        block: the block.
        vectors: of both lists.
        limit: dead zone.
    """
    like, size, top, kind, current = plane.like, plane.size, plane.top, plane.like[0], plane.samples
    area, stride = inside(block, size), size[1] + 2 * MARGIN
    (dy0, dx0), (dy1, dx1) = vectors
    _, _, height, width = block
    partition = height < 16 or width < 16
    alone0 = partition and dy1 == 0 and dx1 == 0
    alone1 = partition and dy0 == 0 and dx0 == 0
    best = np.int64(_NO_ERROR_YET)
    chosen0 = np.int64(-1)
    chosen1 = np.int64(-1)
    even = True
    mean = mean_of(top)
    for one in range(lists.counts[1]):
        c, d = find_points(plane.slots[lists.slots[1, one]], like, size, block, vectors[1], top, sums)
        if alone1:
            error = error_of(kind, current, area, (c, d, c, d), stride, weights_of(lists.singles[1, one], 0), best)
            if error < best:
                best, chosen0, chosen1, even = error, np.int64(-1), np.int64(one), False
        for zero in range(lists.counts[0]):
            if best == 0 or best < limit:
                return chosen0, chosen1, even, best
            a, b = find_points(plane.slots[lists.slots[0, zero]], like, size, block, vectors[0], top, sums)
            if one == 0 and alone0:
                weights = weights_of(lists.singles[0, zero], 0)
                error = error_of(kind, current, area, (a, b, a, b), stride, weights, best)
                if error < best:
                    best, chosen0, chosen1, even = error, np.int64(zero), np.int64(-1), False
            weights = weights_of(lists.pairs[zero, one], 0)
            if lists.guessed or is_mean(weights):
                error = error_of(kind, current, area, (a, b, c, d), stride, mean, best)
                if error < best:
                    best, chosen0, chosen1, even = error, np.int64(zero), np.int64(one), True
            if not is_mean(weights):
                error = error_of(kind, current, area, (a, b, c, d), stride, weights, best)
                if error < best:
                    best, chosen0, chosen1, even = error, np.int64(zero), np.int64(one), False
    return chosen0, chosen1, even, best
