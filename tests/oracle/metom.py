"""MeToM from its formulas, one token at a time, in float64."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tests.oracle.budget import allocate


def cosine(a: NDArray, b: NDArray) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 1e-12 else 0.0


def regions(mask: NDArray, connectivity: int) -> list[set[int]]:
    """Find connected regions of one frame's mask by flood fill, as sets of raster positions."""
    rows, cols = mask.shape
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    if connectivity == 8:
        steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    todo = {(i, j) for i in range(rows) for j in range(cols) if mask[i, j]}
    found = []
    while todo:
        front = [min(todo)]
        todo.remove(front[0])
        region = set()
        while front:
            i, j = front.pop()
            region.add(i * cols + j)
            for di, dj in steps:
                if (i + di, j + dj) in todo:
                    todo.remove((i + di, j + dj))
                    front.append((i + di, j + dj))
        found.append(region)
    return found


def cut(region: set[int], largest: int | None) -> list[set[int]]:
    """Cut a region into the fewest runs of its raster order that do not exceed ``largest``, as even as possible."""
    patches = sorted(region)
    parts = 1 if largest is None else math.ceil(len(patches) / largest)
    runs: list[set[int]] = [set() for _ in range(parts)]
    for place, patch in enumerate(patches):
        runs[place * parts // len(patches)].add(patch)
    return runs


def rpm(density: NDArray, tau: float, connectivity: int = 4, largest: int | None = None) -> list[set[int]]:
    """Members of every token that leaves, by first patch, over the flat patches of the video."""
    frames, rows, cols = density.shape
    tokens: list[set[int]] = []
    for t in range(frames):
        frame = density[t]
        offset = t * rows * cols
        mask = np.zeros_like(frame, bool) if frame.max() - frame.min() <= 1e-12 else frame < tau
        tokens += [{offset + p for p in run} for region in regions(mask, connectivity) for run in cut(region, largest)]
        tokens += [{offset + p} for p in range(rows * cols) if not mask.ravel()[p]]
    return sorted(tokens, key=min)


def rpm_target(density: NDArray, target: int, connectivity: int = 4, largest: int | None = None) -> int:
    """Find the token count nearest to ``target`` over all thresholds (ties: more tokens)."""
    counts = {len(rpm(density, tau, connectivity, largest)) for tau in np.unique(density)} | {density.size}
    return min(counts, key=lambda count: (abs(count - target), -count))


def frame_budgets(cost: NDArray, per_frame: int, total: int, m_min: int | None = None) -> NDArray:
    frames = len(cost)
    base = total // (4 * frames) if m_min is None else m_min
    base = min(base, total // frames, per_frame)
    rest, _ = allocate(
        np.sqrt(cost), total - base * frames, np.zeros(frames, np.int64), np.full(frames, per_frame - base)
    )
    return base + rest


def greedy_pairs(
    tokens: NDArray, frame: NDArray, tau: float, window: int | None
) -> tuple[list[tuple[int, int]], float]:
    """Sequential greedy matching, and the smallest gap between a similarity and its neighbours or the threshold."""
    edges = []
    for i, j in combinations(range(len(tokens)), 2):
        distance = abs(int(frame[i]) - int(frame[j]))
        if distance and (window is None or distance <= window):
            edges.append((cosine(tokens[i], tokens[j]), i, j))
    values = np.sort([edge[0] for edge in edges] + [tau])
    gap = float(np.diff(values).min()) if len(values) > 1 else np.inf
    taken: set[int] = set()
    pairs = []
    for value, i, j in sorted(edges, key=lambda edge: (-edge[0], edge[1], edge[2])):
        if value > tau and i not in taken and j not in taken:
            taken |= {i, j}
            pairs.append((i, j))
    return pairs, gap


def btm(
    tokens: NDArray,
    density: NDArray,
    cost: NDArray,
    total: int,
    *,
    m_min: int | None = None,
    tau: float = 0.9,
    window: int | None = None,
    rounds: int = 1,
    fold: str = "mean",
    mu: float = 0.6,
    refill: bool = True,
) -> tuple[NDArray, NDArray, float]:
    """Flat indices of the tokens that leave, their values, and the smallest similarity gap of any decision."""
    frames, per_frame, _ = tokens.shape
    budgets = frame_budgets(cost, per_frame, total, m_min)
    ranked = [sorted(range(per_frame), key=lambda p, t=t: (-density[t, p], p)) for t in range(frames)]
    core = sorted(t * per_frame + p for t in range(frames) for p in ranked[t][: budgets[t]])
    flat = tokens.reshape(frames * per_frame, -1)
    value = {i: flat[i].astype(np.float64) for i in core}
    members = {i: [i] for i in core}
    smallest = np.inf
    for _ in range(rounds):
        order = sorted(value)
        pairs, gap = greedy_pairs(
            np.array([value[i] for i in order]), np.array([i // per_frame for i in order]), tau, window
        )
        smallest = min(smallest, gap)
        if refill:  # no more pairs than tokens to refill them with; the most similar come first
            pairs = pairs[: frames * per_frame - total - (total - len(value))]
        for a, b in pairs:
            i, j = order[a], order[b]
            value[i] = (value[i] + value.pop(j)) / 2
            members[i] += members.pop(j)
    if refill:
        lost = np.array([sum(1 for i in core if i // per_frame == t and i not in value) for t in range(frames)])
        granted, _ = allocate(lost, int(lost.sum()), np.zeros(frames, np.int64), per_frame - budgets)
        for t in range(frames):
            for p in ranked[t][budgets[t] : budgets[t] + granted[t]]:
                i = t * per_frame + p
                core.append(i)
                value[i], members[i] = flat[i].astype(np.float64), [i]
    folded: dict[int, list[NDArray]] = {i: [] for i in value}
    core_set = set(core)
    for t in range(frames):
        own = sorted(c for c in core if c // per_frame == t)
        targets = [next(i for i in value if c in members[i]) for c in own]
        if not targets:
            continue
        for p in range(per_frame):
            i = t * per_frame + p
            if i in core_set:
                continue
            similar = [cosine(flat[i], value[target]) for target in targets]
            best = int(np.argmax(similar))
            others = [s for s, target in zip(similar, targets, strict=True) if target != targets[best]]
            smallest = min(smallest, similar[best] - max(others, default=-np.inf))
            folded[targets[best]].append(flat[i].astype(np.float64))
    out = {}
    for i, h in value.items():
        n, total_folded = len(folded[i]), sum(folded[i], np.zeros_like(h))
        if n == 0:
            out[i] = h
        elif fold == "mean":
            out[i] = (h + total_folded) / (1 + n)
        elif fold == "size":
            out[i] = (len(members[i]) * h + total_folded) / (len(members[i]) + n)
        else:
            out[i] = mu * h + (1 - mu) * total_folded / n
    keep = np.array(sorted(out))
    return keep, np.array([out[i] for i in keep]), smallest


def matm(scores: NDArray, hidden: NDArray, merge_percent: float, average: str) -> tuple[NDArray, NDArray, float]:
    """Kept indices, their values, and the smallest gap of any decision."""
    importance = scores.mean(axis=0)
    count = len(importance)
    merged = min(int(np.floor(merge_percent / 100 * count + 0.5 + 1e-9)), count - 1)
    ranked = sorted(range(count), key=lambda i: (-importance[i], i))
    keep = sorted(ranked[: count - merged])
    gap = importance[ranked[count - merged - 1]] - importance[ranked[count - merged]] if merged else np.inf
    value = {i: hidden[i].astype(np.float64) for i in keep}
    joined: dict[int, list[NDArray]] = {i: [] for i in keep}
    for j in sorted(set(range(count)) - set(keep)):
        similar = [cosine(hidden[j], hidden[i]) for i in keep]
        order = np.sort(similar)
        gap = min(gap, order[-1] - order[-2] if len(order) > 1 else np.inf)
        joined[keep[int(np.argmax(similar))]].append(hidden[j].astype(np.float64))
    for i in keep:
        if average == "mean":
            value[i] = np.mean([value[i], *joined[i]], axis=0)
        else:
            for h in joined[i]:
                value[i] = (value[i] + h) / 2
    return np.array(keep), np.array([value[i] for i in keep]), gap
