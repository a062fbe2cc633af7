"""Greedy one-to-one matching of similar tokens of different frames.

Taking pairs from the most similar downwards equals matching locally dominant pairs, those that are each other's best
(Preis 1999; any strict order of the pairs). That needs each token's best few partners only, so the similarity matrix
is formed in tiles and never held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.ops.transfer import concatenated, on_device, on_host

TILE = 2**21
"""Similarities that a processor computes at a time: 8 MB in float32, 16 MB as sorting keys."""

LARGE_TILE = 2**24
"""The same for an accelerator, which prefers few large tiles."""

FIRST_PARTNERS = 16
"""Partners listed per token in the first pass; doubled in each further one, which only the tokens that ran out see."""

MOST_LISTED = 2**22
"""Entries of all lists together."""

RESOLUTION = 2**20
"""Similarities are compared in steps of 2^-20: equal tokens tie, however a GEMM rounds their products."""

INDEX_BITS = 24


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Matched tokens, ``first[i] < second[i]``, strongest pairs of a round first found.

    Attributes:
        first: int64 (n,), the lower index.
        second: int64 (n,), the higher index.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]


def match_across_frames(
    directions: Tensor | Callable[[], Tensor],
    frame: NDArray[np.int64],
    *,
    threshold: float,
    window: int | None = None,
    keys: NDArray[np.float64] | None = None,
) -> Pairs:
    """Pair tokens of different frames, each at most once, from the most similar pair downwards.

    Equal similarities go by (lower index, higher index).

    Args:
        directions: float32 (M, D), unit rows; a zero row is never matched. A function is called where they are needed.
        frame: (M,), the frame of each token, ascending.
        threshold: pairs have a cosine strictly above it, at least 0, so that zero rows never match.
        window: largest distance in frames of a pair; None for any.
        keys: `partner_keys` of all tokens on the host, with `partners_listed` of them, where they are there already.

    Returns:
        The pairs; one synchronisation unless many tokens compete for the same partners.
    """
    partner = np.full(len(frame), -1)
    firsts: list[NDArray[np.int64]] = []
    seconds: list[NDArray[np.int64]] = []
    active = np.arange(len(frame))
    turn = 0
    while active.size > 1:
        if keys is not None and turn == 0:
            index, score = _read_keys(keys.astype(np.int64))
        else:
            rows = directions if isinstance(directions, Tensor) else directions()
            index, score = _list_partners(
                rows if active.size == len(frame) else rows[on_device(active, rows.device)],
                frame[active],
                threshold=threshold,
                window=window,
                count=partners_listed(active.size, turn),
            )
        index = np.where(score >= 0, active[index], -1)
        open_rows, first, second = _match_lists(active, index, score, partner)
        firsts.append(first)
        seconds.append(second)
        active = active[open_rows]
        turn += 1
    first, second = concatenated(firsts), concatenated(seconds)
    return Pairs(first=np.minimum(first, second), second=np.maximum(first, second))


def partners_listed(tokens: int, turn: int = 0) -> int:
    """Count the partners listed per token in a pass over so many tokens."""
    return min(FIRST_PARTNERS << turn, max(FIRST_PARTNERS, MOST_LISTED // tokens))


def strongest_pairs(pairs: Pairs, directions: Tensor, count: int) -> Pairs:
    """Select the most similar of the pairs; equal similarities go by (lower index, higher index).

    Args:
        pairs: of rows of ``directions``.
        directions: float32 (M, D), unit rows.
        count: how many.
    """
    first, second = (on_device(index, directions.device) for index in (pairs.first, pairs.second))
    (cosine,) = on_host((directions[first] * directions[second]).sum(dim=1))
    best = np.lexsort((pairs.second, pairs.first, -np.rint(cosine * RESOLUTION)))[:count]
    return Pairs(first=pairs.first[best], second=pairs.second[best])


def _list_partners(
    directions: Tensor, frame: NDArray[np.int64], *, threshold: float, window: int | None, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the best partners of each token, most similar first (ties: lower index), and their scores (-1 for none)."""
    size = len(frame)
    reach = size if window is None else window
    begin = np.searchsorted(frame, frame - reach, side="left")
    end = np.searchsorted(frame, frame + reach, side="right")
    of_frame = on_device(frame, directions.device)
    lists: list[Tensor] = []
    row = 0
    while row < size:
        # On the CPU columns at most double those of the first row, so that a window's tiles stay on the diagonal.
        width = end[row:] - begin[row]
        widest, tile = (2 * width[0], TILE) if directions.device.type == "cpu" else (size, LARGE_TILE)
        area = np.where(width <= widest, width * np.arange(1, width.size + 1), tile + 1)
        stop = row + max(1, int(np.searchsorted(area, tile, side="right")))
        rows, columns = slice(row, stop), slice(int(begin[row]), int(end[stop - 1]))
        key = partner_keys(directions, of_frame, rows, columns, threshold=threshold, window=window, count=count)
        missing = count - key.shape[1]
        lists.append(torch.nn.functional.pad(key, (0, missing), value=-1) if missing else key)
        row = stop
    return _read_keys((lists[0] if len(lists) == 1 else torch.cat(lists)).cpu().numpy())


def partner_keys(
    directions: Tensor,
    frame: Tensor,
    rows: slice,
    columns: slice,
    *,
    threshold: float,
    window: int | None,
    count: int,
) -> Tensor:
    """List the best partners of tokens as sorting keys, int64 (rows, at most ``count``), descending; -1 for none.

    Args:
        directions: float32 (M, D), unit rows, all finite.
        frame: int64 (M,), on their device.
        rows: tokens whose partners are listed.
        columns: tokens among which they are.
        threshold: see `match_across_frames`.
        window: likewise.
        count: how many.
    """
    cosine = directions[rows] @ directions[columns].T
    here, there = frame[rows, None], frame[columns]
    excluded = (cosine <= threshold).logical_or_(here == there)
    if window is not None:
        excluded |= (here - there).abs_() > window
    step = cosine.clamp_(-1, 1).add_(1).mul_(RESOLUTION).round_().long()
    last = 2**INDEX_BITS - 1
    tie = torch.arange(last - columns.start, last - columns.stop, -1, device=step.device)
    key = step.mul_(2**INDEX_BITS).add_(tie).masked_fill_(excluded, -1)
    return key.topk(min(count, key.shape[1]), dim=1).values


def _read_keys(key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the partner and the similarity in steps that `partner_keys` hold; 0 and -1 for none."""
    found, last = key >= 0, 2**INDEX_BITS - 1
    return np.where(found, last - (key & last), 0), np.where(found, key >> INDEX_BITS, -1)


def _match_lists(
    active: NDArray[np.int64], index: NDArray[np.int64], score: NDArray[np.int64], partner: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Match mutual bests until none is left, writing ``partner``.

    Returns:
        Rows that a further pass has to see (their list ran out, or waits for such a token), and the pairs.
    """
    firsts: list[NDArray[np.int64]] = []
    seconds: list[NDArray[np.int64]] = []
    best = np.full(len(partner), -1)
    rows = np.arange(len(active))
    fresh = True
    while rows.size:
        free = (index[rows] >= 0) & (partner[index[rows]] < 0)
        choice = free.argmax(axis=1)
        has = free[np.arange(rows.size), choice]
        best[active[rows]] = np.where(has, index[rows, choice], -1)
        mine, theirs = active[rows[has]], best[active[rows[has]]]
        mutual = (best[theirs] == mine) & (mine < theirs)
        if fresh and has.any() and not mutual.any():
            # Rounding can make cos(i, j) and cos(j, i) differ by a step, so that preferences run in a circle.
            mutual[score[rows[has], choice[has]].argmax()] = True
        fresh = False
        if not mutual.any():
            break
        first, second = mine[mutual], theirs[mutual]
        partner[first], partner[second] = second, first
        firsts.append(first)
        seconds.append(second)
        rows = rows[partner[active[rows]] < 0]
    ran_out = index[rows, -1] >= 0
    waiting = best[active[rows]] >= 0
    return rows[ran_out | waiting], concatenated(firsts), concatenated(seconds)
