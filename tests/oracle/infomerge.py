"""InfoMerge from the paper's formulas, in float64, with loops over frames, positions and tokens.

`gap` in each answer is the smallest distance between two scores between which a decision fell; a comparison with
float32 is fair where it exceeds rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.oracle import budget as allocation
from tests.oracle.metom import cosine


class Gap:
    """The smallest gap of any decision so far."""

    def __init__(self) -> None:
        self.value = math.inf

    def between(self, scores: list[float], taken: int) -> None:
        """Note the gap at which the best ``taken`` of ``scores`` were cut off."""
        ranked = sorted(scores, reverse=True)
        if 0 < taken < len(ranked):
            self.value = min(self.value, ranked[taken - 1] - ranked[taken])


def segments(features: NDArray, c: int, tau_seg: float) -> tuple[list[int], list[float]]:
    """Where segments begin (and the end), and the transitions (eqs. 22-23)."""
    t = [cosine(features[i], features[i + 1]) for i in range(len(features) - 1)]
    smallest = sorted(range(len(t)), key=lambda i: (t[i], i))[: c - 1]
    cuts = sorted(set(smallest) | {i for i, value in enumerate(t) if value < tau_seg})
    return [0, *(i + 1 for i in cuts), len(features)], t


def tfd(tokens: NDArray) -> NDArray:
    """Eqs. (1)-(2) for one segment (P, N, D)."""
    length, count, _ = tokens.shape
    result = np.zeros(count)
    if length == 1:
        return result
    for p in range(count):
        f = [[1.0 if a == b else cosine(tokens[a, p], tokens[b, p]) for b in range(length)] for a in range(length)]
        total = sum(abs(f[a + 1][b] - f[a][b]) for a in range(length - 1) for b in range(length))
        result[p] = total / ((length - 1) * length)
    return result


def adjacent_difference(tokens: NDArray, window: int = 4) -> NDArray:
    """Mean over windows of the mean of 1 - cos of consecutive frames (Table 5), for one segment (P, N, D)."""
    length, count, _ = tokens.shape
    result = np.zeros(count)
    for p in range(count):
        means = []
        for start in range(0, length, window):
            frames = range(start, min(start + window, length))
            changes = [1 - cosine(tokens[a, p], tokens[a + 1, p]) for a in frames[:-1]]
            if changes:
                means.append(sum(changes) / len(changes))
        result[p] = sum(means) / len(means) if means else 0.0
    return result


def entropy(matrix: NDArray, normalise: bool = True) -> float:
    """Eqs. (6)-(7), from singular values."""
    sigma = np.linalg.svd(matrix, compute_uv=False)
    if not (sigma**2).sum() > 0:
        return 0.0
    pi = sigma**2 / (sigma**2).sum()
    pi = pi[pi > 0]
    value = float(-(pi * np.log(pi)).sum())
    rank = min(matrix.shape)
    if not normalise:
        return value
    return value / math.log(rank) if rank > 1 else 0.0


def z(values: NDArray, ddof: int) -> NDArray:
    if len(values) < 2 or np.std(values, ddof=ddof) < 1e-12:
        return np.zeros(len(values))
    return (values - np.mean(values)) / np.std(values, ddof=ddof)


def half_up(value: float) -> int:
    return math.floor(value + 0.5 + 1e-9)


def totals(frames: int, count: int, r: float, d: float, mode: str) -> tuple[int, float]:
    """T_s and B_DTM (section 'budgets')."""
    if mode == "fastvid":
        granted = math.floor(r * count + 1e-9)
        merged = math.floor(granted * d + 1e-9)
        return granted - merged, frames * merged
    salient = math.floor((1 - d) * r * count + 1e-9)
    return salient, d * r * frames * count if mode == "paper" else half_up(r * frames * count) - frames * salient


def ats(saliency: NDArray, static: list[set[int]], bounds: list[int], count: int, lam: float, gap: Gap) -> list[set]:
    """Eqs. (10)-(11)."""
    picked: list[set[int]] = []
    for k in range(len(bounds) - 1):
        history: set[int] = set()
        for frame in range(bounds[k], bounds[k + 1]):
            row = saliency[frame]
            penalty = [lam * row.std() if p in history else 0.0 for p in range(len(row))]
            score = [row[p] - penalty[p] if math.isfinite(penalty[p]) else -1e30 for p in range(len(row))]
            order = sorted(range(len(row)), key=lambda p: (-score[p], p in history, p))
            gap.between(score, count)
            picked.append(set(order[:count]))
            history |= picked[-1] & static[k]
    return picked


def peaks(tokens: NDArray, candidates: list[int], neighbours: int) -> dict[int, tuple[float, float]]:
    """Density and separation of each candidate (eqs. 31-32)."""
    width = tokens.shape[1]
    d = {(i, j): math.sqrt(((tokens[i] - tokens[j]) ** 2).sum() / width) for i in candidates for j in candidates}
    k = min(neighbours, len(candidates))
    log_rho = {i: -float(np.mean(sorted(d[i, j] ** 2 for j in candidates)[:k])) for i in candidates}
    result = {}
    for i in candidates:
        denser = [j for j in candidates if log_rho[j] > log_rho[i] or (log_rho[j] == log_rho[i] and j < i)]
        delta = min(d[i, j] for j in denser) if denser else max(d[i, j] for j in candidates)
        result[i] = (log_rho[i], delta)
    return result


@dataclass
class Answer:
    keep: NDArray
    values: NDArray
    kinds: list[str]
    budgets: NDArray
    bounds: list[int]
    static: list[set[int]]
    u: NDArray
    e: NDArray
    gap: float
    tfd: list[NDArray] = field(default_factory=list)


def infomerge(
    tokens: NDArray,
    saliency: NDArray,
    features: NDArray,
    *,
    r: float,
    tau: float,
    rho: float,
    lam: float,
    alpha: float,
    beta: float,
    c: int = 8,
    tau_seg: float = 0.9,
    d: float = 0.4,
    p_step: int = 4,
    k_nn: int = 4,
    mu: float = 0.6,
    mode: str = "exact",
    ddof: int = 1,
    normalise: bool = True,
    substitute: bool = True,
    dtm_sees_means: bool = True,
    hard_mask: bool = True,
    from_end: bool = True,
    per_anchor_frame: bool = True,
    include_self: bool = False,
) -> Answer:
    frames, count, _ = tokens.shape
    gap = Gap()
    bounds, _ = segments(features, c, tau_seg)
    spans = [range(a, b) for a, b in pairwise(bounds)]
    lengths = np.array([len(span) for span in spans])

    differences, static = [], []
    for span in spans:
        difference = tfd(tokens[span.start : span.stop])
        size = math.floor(rho * count + 1e-9) if len(span) > 1 else 0
        order = sorted(range(count), key=lambda p: (difference[p], p))
        gap.between((-difference).tolist(), size)
        static.append(set(order[:size]))
        differences.append(difference)

    means = [tokens[span.start : span.stop].mean(axis=(0, 1)) for span in spans]
    overall = np.average(means, axis=0, weights=lengths)
    u = np.array([1 - cosine(mean, overall) for mean in means])
    e = np.array([entropy(tokens[span.start : span.stop].reshape(-1, tokens.shape[2]), normalise) for span in spans])
    m = alpha * z(u, ddof) + beta * z(e, ddof)
    w = lengths / (1 + np.exp(-tau * m))

    salient_count, context = totals(frames, count, r, d, mode)
    most = lengths * (count - salient_count)
    if mode == "paper":
        budgets = np.array([max(1, round(context * x / w.sum())) for x in w])
        budgets = np.minimum(budgets, most)
    else:
        lower = np.full(len(spans), 1 if context >= len(spans) else 0)
        budgets, fraction_gap = allocation.allocate(w, int(context), lower, most)
        gap.value = min(gap.value, fraction_gap)

    salient = ats(saliency, static, bounds, salient_count, lam, gap)

    replaced: set[tuple[int, int]] = set()
    mean_at: dict[tuple[int, int], NDArray] = {}
    if substitute:
        for k, span in enumerate(spans):
            for frame in span:
                for p in salient[frame] & static[k]:
                    mean_at[k, p] = tokens[span.start : span.stop, p].mean(axis=0)
                    replaced |= {(later, p) for later in span if later >= frame}

    def seen(k: int, frame: int, p: int) -> NDArray:
        return mean_at[k, p] if dtm_sees_means and (frame, p) in replaced else tokens[frame, p]

    out: dict[tuple[int, int], tuple[NDArray, str]] = {}
    for k, span in enumerate(spans):
        for frame in span:
            for p in salient[frame]:
                if (frame, p) in replaced:
                    out[frame, p] = (mean_at[k, p], "substituted")
                else:
                    out[frame, p] = (tokens[frame, p], "salient")

        length, budget = len(span), int(budgets[k])
        if budget == 0:
            continue
        needed = math.ceil(budget / (count - salient_count))
        step = p_step if needed <= math.ceil(length / p_step) else max(1, length // needed)
        anchor_frames = [
            span.start + local for local in range(length) if ((length - 1 - local) if from_end else local) % step == 0
        ]
        used: set[int] = set()
        chosen: dict[int, list[int]] = {}
        for i, frame in enumerate(anchor_frames):
            quota = budget // len(anchor_frames) + (i >= len(anchor_frames) - budget % len(anchor_frames))
            if quota == 0:
                continue
            candidates = [p for p in range(count) if p not in salient[frame]]
            features_here = np.array([seen(k, frame, p) for p in range(count)])
            scored = peaks(features_here, candidates, k_nn)
            score = {p: rho_p + (math.log(delta) if delta > 0 else -math.inf) for p, (rho_p, delta) in scored.items()}
            order = sorted(candidates, key=lambda p: (hard_mask and p in used, -score[p], p))
            finite = [max(score[p], -1e6) - 1e7 * (hard_mask and p in used) for p in candidates]
            gap.between(finite, quota)
            rho_sorted = sorted(value[0] for value in scored.values())
            # Mutual neighbours can be equally dense, to the bit; then the position decides on either side.
            gap.value = min([gap.value, *(float(x) for x in np.diff(rho_sorted) if x > 0)])
            chosen[frame] = sorted(order[:quota])
            used |= set(chosen[frame]) & static[k]

        groups = [[(frame, p) for p in ps] for frame, ps in chosen.items()]
        if not per_anchor_frame:
            groups = [[anchor for group in groups for anchor in group]]
        for group in groups:
            members: dict[tuple[int, int], list[NDArray]] = {anchor: [] for anchor in group}
            for frame in span:
                for p in range(count):
                    if p in salient[frame] or (not include_self and (frame, p) in members):
                        continue
                    b = seen(k, frame, p)
                    similar = [cosine(b, seen(k, *anchor)) for anchor in group]
                    best = int(np.argmax(similar))
                    others = [s for i, s in enumerate(similar) if i != best]
                    gap.value = min(gap.value, similar[best] - max(others, default=-math.inf))
                    members[group[best]].append(b)
            for anchor, joined in members.items():
                a = seen(k, *anchor)
                merged = mu * a + (1 - mu) * np.mean(joined, axis=0) if joined else a
                out[anchor] = (merged, "context")

    order = sorted(out)
    return Answer(
        keep=np.array([frame * count + p for frame, p in order]),
        values=np.array([out[i][0] for i in order]),
        kinds=[out[i][1] for i in order],
        budgets=budgets,
        bounds=bounds,
        static=static,
        u=u,
        e=e,
        gap=gap.value,
        tfd=differences,
    )


def fastvid(tokens: NDArray, saliency: NDArray, features: NDArray, *, r: float) -> tuple[NDArray, NDArray, float]:
    """FastVID by itself (LLaVA-Video variant), written from its description and not from InfoMerge's formulas.

    No static positions, no penalty, no weights: segments get d R P tokens each, without its random jitter and with
    the densest token's separation taken in its own row. For r N d an integer.
    """
    count = tokens.shape[1]
    gap = Gap()
    granted = int(r * count + 1e-9)
    context = int(granted * 0.4 + 1e-9)
    bounds, _ = segments(features, 8, 0.9)
    out = {}
    for start, stop in pairwise(bounds):
        length = stop - start
        attended = {}
        for frame in range(start, stop):
            order = sorted(range(count), key=lambda p: (-saliency[frame, p], p))
            gap.between(saliency[frame].tolist(), granted - context)
            attended[frame] = set(order[: granted - context])
            out |= {(frame, p): tokens[frame, p] for p in attended[frame]}
        anchors = list(range(stop - 1, start - 1, -4))[::-1]
        each, extra = divmod(int(granted * length * 0.4 + 1e-9), len(anchors))
        for i, frame in enumerate(anchors):
            quota = each + (i >= len(anchors) - extra)
            if not quota:
                continue
            rest = [p for p in range(count) if p not in attended[frame]]
            scored = peaks(tokens[frame], rest, 4)
            score = {p: math.exp(scored[p][0]) * scored[p][1] for p in rest}
            gap.between([math.log(value) if value > 0 else -1e6 for value in score.values()], quota)
            centres = sorted(sorted(rest, key=lambda p: (-score[p], p))[:quota])
            members: dict[int, list[NDArray]] = {p: [] for p in centres}
            for other in range(start, stop):
                for p in range(count):
                    if p in attended[other] or (other == frame and p in members):
                        continue
                    similar = [cosine(tokens[other, p], tokens[frame, centre]) for centre in centres]
                    ranked = sorted(similar)
                    if len(ranked) > 1:
                        gap.value = min(gap.value, ranked[-1] - ranked[-2])
                    members[centres[int(np.argmax(similar))]].append(tokens[other, p])
            for centre, joined in members.items():
                own = max(1 / (len(joined) + 1), 0.6)
                value = own * tokens[frame, centre]
                out[frame, centre] = value + (1 - own) * np.mean(joined, axis=0) if joined else value
    order = sorted(out)
    return np.array([f * count + p for f, p in order]), np.array([out[i] for i in order]), gap.value
