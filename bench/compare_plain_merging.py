"""Methods that merge, written down plainly: whole matrices, one token after the other, nothing shared between steps.

Continues `bench.compare_plain`. Methods before the language model return flat indices and values of the tokens that
leave; the loops of BTM and InfoMerge return values only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from bench.compare_plain import PLAIN, chosen, peaks
from bench.compare_plain_frames import earlytom, sttm
from bench.compress_loops import loop_btm, loop_infomerge
from compress.budget import allocate
from compress.stage import Signals

PlainInside = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Scores (layers, n), hidden (n, D), count -> indices and values of the tokens that stay."""


def without_places(
    loop: Callable[[Tensor, Signals, float], Tensor], tokens: Tensor, signals: Signals, count: int
) -> tuple[Tensor | None, Tensor]:
    """Run a loop that returns values only."""
    return None, loop(tokens, signals, count / (tokens.shape[0] * tokens.shape[1]))


def clustered(tokens: Tensor, count: int, neighbours: int) -> tuple[Tensor, Tensor]:
    """Return centres in order, and the mean of what is nearest to each."""
    if count == len(tokens):
        return torch.arange(count), tokens
    score, distance = peaks(tokens, min(neighbours, len(tokens)))
    middle = score.topk(count).indices.sort().values
    nearest = distance[:, middle].argmin(dim=1)
    nearest[middle] = torch.arange(count)
    hot = functional.one_hot(nearest, count).float()
    return middle, hot.T @ tokens / hot.sum(dim=0)[:, None]


def tome_video(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    values = tokens.flatten(0, 1).float()
    keep, size = torch.arange(len(values)), torch.ones(len(values))
    while len(values) > count:
        direction = functional.normalize(values, dim=1)
        similarity = direction[::2] @ direction[1::2].T
        best, partner = similarity.max(dim=1)
        gone = best.sort(descending=True, stable=True).indices[: min(len(values) - count, len(values) // 2)]
        sums, sizes = values * size[:, None], size.clone()
        for source, target in zip((2 * gone).tolist(), (2 * partner[gone] + 1).tolist(), strict=True):
            sums[target] += values[source] * size[source]
            sizes[target] += size[source]
        stays = torch.ones(len(values), dtype=torch.bool)
        stays[2 * gone] = False
        keep, size = keep[stays], sizes[stays]
        values = sums[stays] / size[:, None]
    return keep, values


def unified_sttc(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.saliency is not None
    flat = tokens.flatten(0, 1).float()
    direction = functional.normalize(flat, dim=1)
    order = signals.saliency.flatten().sort(descending=True, stable=True).indices.tolist()
    wanted = count - math.floor(count * 0.3 + 0.5)
    pool: list[int] = []
    taken = torch.zeros(wanted, flat.shape[1])
    for token in order:
        if len(pool) == wanted:
            break
        if bool((taken[: len(pool)] @ direction[token] < 0.7).all()):
            taken[len(pool)] = direction[token]
            pool.append(token)
    held = set(pool)
    pool += [token for token in order if token not in held][: wanted - len(pool)]
    rest = torch.ones(len(flat), dtype=torch.bool)
    rest[pool] = False
    places = rest.nonzero()[:, 0]
    centres, means = clustered(flat[places], count - len(pool), 7)
    keep = torch.cat((torch.tensor(pool), places[centres]))
    values = torch.cat((flat[pool], means))
    order_of = keep.argsort()
    return keep[order_of], values[order_of]


def prunevid(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    total, per_frame, _ = tokens.shape
    means = tokens.float().mean(dim=1)
    score, distance = peaks(means, 7)
    middle = score.topk(max(1, total // 4)).indices.sort().values
    label = distance[:, middle].argmin(dim=1)
    label[middle] = torch.arange(len(middle))
    bounds = _runs(label.tolist())
    groups: list[tuple[list[int], Tensor]] = []
    direction = functional.normalize(tokens.float(), dim=2)
    for start, stop in itertools.pairwise(bounds):
        span, similar = list(range(start, stop)), torch.zeros(per_frame)
        for a, b in itertools.combinations(span, 2):
            similar += (direction[a] * direction[b]).sum(dim=1)
        pairs = len(span) * (len(span) - 1) / 2
        static = similar / pairs > 0.8 if pairs else torch.zeros(per_frame, dtype=torch.bool)
        groups += [(span, static.nonzero()[:, 0]), *(([t], (~static).nonzero()[:, 0]) for t in span)]
    room = np.array([len(where) for _, where in groups])
    shares = allocate(room, count, lower=(room > 0).astype(np.int64), upper=room)
    keep, values = [], []
    for (span, where), share in zip(groups, shares.tolist(), strict=True):
        if share:
            centres, merged = clustered(tokens[span][:, where].float().mean(dim=0), share, 7)
            keep.append(span[0] * per_frame + where[centres])
            values.append(merged)
    order = torch.cat(keep).argsort()
    return torch.cat(keep)[order], torch.cat(values)[order]


def _runs(labels: list[int]) -> list[int]:
    """Begin a segment where the longest run of a label begins; other frames join the longer neighbour."""
    longest: dict[int, tuple[int, int]] = {}
    at = 0
    for label, group in itertools.groupby(labels):
        length = len(list(group))
        if length > 1 and (label not in longest or length > longest[label][1]):
            longest[label] = (at, length)
        at += length
    stays = sorted(longest.values())
    owner = []
    for frame in range(len(labels)):
        before = [i for i, (start, _) in enumerate(stays) if start <= frame]
        after = [i for i, (start, length) in enumerate(stays) if frame < start + length]
        if not stays or not before:
            owner.append(0)
        elif not after:
            owner.append(len(stays) - 1)
        else:
            a, b = before[-1], after[0]
            owner.append(a if stays[a][1] >= stays[b][1] else b)
    return [0, *(t for t in range(1, len(labels)) if owner[t] != owner[t - 1]), len(labels)]


def cover(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.grid is not None
    rows, cols = signals.grid
    direction = functional.normalize(tokens.flatten(0, 1).float(), dim=1)
    place = torch.cartesian_prod(*(torch.arange(float(side)) for side in (len(tokens), rows, cols)))
    time = (place[:, None, 0] - place[:, 0]).abs() / len(tokens)
    space = (place[:, None, 1:] - place[:, 1:]).square().sum(dim=2) / (2 * (2 / 7 * max(rows, cols)) ** 2)
    unlike = 1 - direction @ direction.T
    chance = torch.exp(-unlike.clamp(min=0) / (0.5 * unlike.mean()) - time - space)

    def picked(among: Tensor, most: int) -> Tensor:
        within = chance[among][:, among]
        found = [int(within.topk(2, dim=0).values[1].argmin())]
        for _ in range(most - 1):
            novelty = (1 - within[:, found].double()).clamp(min=1e-6).log().sum(dim=1)
            novelty[found] = -torch.inf
            found.append(int(novelty.argmax()))
        return among[found]

    views = max(count, math.floor(0.15 * len(chance) + 0.5))
    last = picked(torch.arange(len(chance) - rows * cols, len(chance)), math.floor(0.1 * views + 0.5))
    first, groups = torch.arange(0), 0
    while missing := max(0, views - len(last) - len(first)):
        groups += missing
        first = sttm(tokens, signals, groups)[0]
        first = first[~torch.isin(first, last)]
    return chosen(tokens, picked(torch.cat((first[: views - len(last)], last)).sort().values, count))


def rpm(density: NDArray[np.float32], target: int) -> Tensor:
    """Search the threshold by bisection, and return the first patch of every region, flat."""
    levels = np.unique(density)

    def tokens_of(tau: float) -> list[int]:
        first = []
        for t, frame in enumerate(density):
            labels, regions = ndimage.label(frame < tau)
            flat = labels.ravel()
            places = [int(np.flatnonzero(flat == region)[0]) for region in range(1, regions + 1)]
            first += sorted(t * flat.size + place for place in [*places, *np.flatnonzero(flat == 0).tolist()])
        return first

    low, high = 0, len(levels) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(tokens_of(levels[middle])) >= target else (low, middle)
    both = [tokens_of(levels[one]) for one in (low, high)]
    return torch.tensor(min(both, key=lambda found: (abs(len(found) - target), -len(found))))


def tome(patches: Tensor, counts: Sequence[int], keys: int) -> tuple[Tensor, Tensor]:
    """ToMe by frames, blocks and merges; the first ``keys`` channels are the keys."""
    keep, values = [], []
    for t, frame in enumerate(patches):
        place, value, size = torch.arange(len(frame)) + t * len(frame), frame.clone(), torch.ones(len(frame))
        for count in counts:
            direction = functional.normalize(value[:, :keys], dim=1)
            best, partner = (direction[::2] @ direction[1::2].T).max(dim=1)
            gone = best.sort(descending=True, stable=True).indices[:count]
            sums, sizes = value * size[:, None], size.clone()
            for source, target in zip((2 * gone).tolist(), (2 * partner[gone] + 1).tolist(), strict=True):
                sums[target] += value[source] * size[source]
                sizes[target] += size[source]
            first = torch.ones(len(best), dtype=torch.bool)
            first[gone] = False
            stays = torch.cat((2 * first.nonzero()[:, 0], torch.arange(1, len(value), 2)))
            place, size = place[stays], sizes[stays]
            value = sums[stays] / size[:, None]
        keep.append(place)
        values.append(value)
    return torch.cat(keep), torch.cat(values)


def matm(scores: Tensor, hidden: Tensor, count: int) -> tuple[Tensor, Tensor]:
    ranked = scores.mean(dim=0).sort(descending=True, stable=True).indices
    keep = ranked[:count].sort().values
    direction = functional.normalize(hidden.float(), dim=1)
    nearest = (direction @ direction.T)[:, keep].argmax(dim=1)
    nearest[keep] = torch.arange(count)
    hot = functional.one_hot(nearest, count).float()
    return keep, hot.T @ hidden.float() / hot.sum(dim=0)[:, None]


def most_attended(scores: Tensor, hidden: Tensor, count: int) -> tuple[Tensor, Tensor]:
    keep = scores.mean(dim=0).sort(descending=True, stable=True).indices[:count].sort().values
    return chosen(hidden[None], keep)


def independent(scores: Tensor, hidden: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """D2Pruner: pivots by importance, then one token after the other that is unlike all that were taken after them."""
    order = scores.mean(dim=0).sort(descending=True, stable=True).indices
    direction = functional.normalize(hidden.float(), dim=1)[order]
    alike = direction @ direction.T > 0.8
    pivots = math.floor(0.7 * count + 1e-9)
    taken, blocked = list(range(pivots)), torch.zeros(len(order), dtype=torch.bool)
    for place in range(pivots, len(order)):
        if len(taken) == count:
            break
        if not blocked[place]:
            taken.append(place)
            blocked |= alike[place]
    held = set(taken)
    taken += [place for place in range(len(order)) if place not in held][: count - len(taken)]
    return chosen(hidden[None], order[taken].sort().values)


PLAIN_MERGING = {
    **PLAIN,
    "btm": partial(without_places, loop_btm),
    "infomerge": partial(without_places, loop_infomerge),
    "tome-video": tome_video,
    "unified-sttc": unified_sttc,
    "prunevid": prunevid,
    "earlytom": earlytom,
    "cover": cover,
    "sttm": sttm,
}
"""Plain forms of the stage before the language model."""

PLAIN_INSIDE: dict[str, PlainInside] = {
    "matm": matm,
    "flashvid-inner": most_attended,
    "fastv": most_attended,
    "pyramiddrop": most_attended,
    "holitom-inner": matm,
    "d2pruner": independent,
    "prunevid-inner": most_attended,
    "unified-sttc-inner": matm,
}
"""Plain forms of a cut inside it, each from scores: PruneVid's of one part of tokens, Unified STTC's without text."""

PLAIN_UNSEEN = {"tome-video-inner": tome_video, "sttm-inner": sttm}
"""Plain forms of a merge inside it that reads no attention, of the tokens of all frames."""
