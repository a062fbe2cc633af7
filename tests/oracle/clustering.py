"""PruneVid and Unified STTC from their descriptions, in float64, with loops over frames, positions and tokens."""

from __future__ import annotations

import math
from itertools import combinations, groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from tests.oracle import budget as allocation
from tests.oracle.infomerge import peaks
from tests.oracle.metom import cosine

Answer = dict[int, NDArray]


def cluster(tokens: NDArray, count: int, neighbours: int) -> dict[int, list[int]]:
    """Return the members of each centre; members that are as near to several join the lowest."""
    scored = peaks(tokens, list(range(len(tokens))), neighbours)
    score = {i: density + (math.log(far) if far > 0 else -math.inf) for i, (density, far) in scored.items()}
    centres = sorted(sorted(score, key=lambda i: (-score[i], i))[:count])
    members: dict[int, list[int]] = {i: [i] for i in centres}
    for i in range(len(tokens)):
        if i not in members:
            members[min(centres, key=lambda c: (((tokens[i] - tokens[c]) ** 2).sum(), c))].append(i)
    return members


def refine(labels: list[int], *, longest: bool = True) -> list[int]:
    """Return where segments begin, and the end: each cluster's longest run of two or more, or all, and what joins."""
    runs, at = [], 0
    for label, group in groupby(labels):
        length = len(list(group))
        runs.append((label, at, length))
        at += length
    best: dict[int, tuple[int, int]] = {}
    for label, start, length in runs:
        key = label if longest else start
        if length > 1 and (key not in best or length > best[key][1]):
            best[key] = (start, length)
    owner = []
    stays = sorted(best.values())
    for frame in range(len(labels)):
        before = [i for i, (start, _) in enumerate(stays) if start <= frame]
        after = [i for i, (start, length) in enumerate(stays) if frame < start + length]
        if not stays:
            owner.append(0)
        elif not before or not after:
            owner.append(0 if not before else len(stays) - 1)
        else:
            a, b = before[-1], after[0]
            owner.append(a if a == b or stays[a][1] >= stays[b][1] else b)
    return [0, *(t for t in range(1, len(labels)) if owner[t] != owner[t - 1]), len(labels)]


def prunevid(
    tokens: NDArray, *, tau: float = 0.8, count: int | None = None, ratio: float = 0.5, segment_ratio: float = 0.25
) -> tuple[Answer, list[int]]:
    """Return the clusters and where segments begin, by a total count or by the ratio of the thresholds."""
    frames, per_frame, _ = tokens.shape
    groups_of_frames = cluster(tokens.mean(axis=1), max(1, int(segment_ratio * frames + 1e-9)), 7)
    labels = [next(c for c, members in groups_of_frames.items() if t in members) for t in range(frames)]
    bounds = refine(labels)
    groups: list[tuple[list[int], list[int]]] = []
    for start, stop in pairwise(bounds):
        span = range(start, stop)
        pairs = list(combinations(span, 2))
        static = [
            n
            for n in range(per_frame)
            if pairs and np.mean([cosine(tokens[a, n], tokens[b, n]) for a, b in pairs]) > tau
        ]
        moving = [n for n in range(per_frame) if n not in static]
        groups += [(list(span), static), *(([t], moving) for t in span)]
    sizes = np.array([len(where) for _, where in groups])
    if count is None:
        shares = [n if n <= 14 else int(n * ratio + 1e-9) for n in sizes]
    else:
        lower = (sizes > 0).astype(np.int64) if (sizes > 0).sum() <= count else np.zeros_like(sizes)
        shares = allocation.allocate(sizes, count, lower, sizes)[0].tolist()
    answer: Answer = {}
    for (span, where), share in zip(groups, shares, strict=True):
        if not share:
            continue
        mean = tokens[span][:, where].mean(axis=0)
        clusters = {i: [i] for i in range(len(where))} if share == len(where) else cluster(mean, share, 7)
        answer |= {span[0] * per_frame + where[c]: mean[members].mean(axis=0) for c, members in clusters.items()}
    return answer, bounds


def unified_sttc(
    tokens: NDArray,
    saliency: NDArray,
    count: int,
    *,
    tau: float = 0.7,
    share: float = 0.3,
    neighbours: int = 7,
    rejected_only: bool = False,
    fill: bool = True,
) -> Answer:
    flat = tokens.reshape(-1, tokens.shape[2])
    order = sorted(range(len(flat)), key=lambda i: (-saliency.ravel()[i], i))
    wanted = count - math.floor(count * share + 0.5 + 1e-9)
    pool: list[int] = []
    rejected: list[int] = []
    for i in order:
        if len(pool) == wanted:
            break
        if all(cosine(flat[i], flat[j]) < tau for j in pool):
            pool.append(i)
        else:
            rejected.append(i)
    if fill:
        pool += [i for i in order if i not in pool][: wanted - len(pool)]
    rest = [i for i in order if i not in pool and (not rejected_only or i in rejected)]
    if len(rest) < count - len(pool):
        rest += [i for i in order if i not in pool and i not in rest][: count - len(pool) - len(rest)]
    rest.sort()
    answer = {i: flat[i] for i in pool}
    if count > len(pool):
        for centre, members in cluster(flat[rest], count - len(pool), neighbours).items():
            answer[rest[centre]] = flat[[rest[i] for i in members]].mean(axis=0)
    return answer
