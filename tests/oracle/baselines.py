"""The comparison methods from their definitions, in float64, with loops over frames, positions and tokens.

Each answer is {flat index: value}. Ties go to the lower index.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.oracle import budget as allocation
from tests.oracle.infomerge import peaks, segments
from tests.oracle.metom import cosine

Answer = dict[int, NDArray]


def even(total: int, bins: int, upper: NDArray) -> NDArray:
    return allocation.allocate(np.ones(bins), total, np.zeros(bins, np.int64), upper)[0]


def best(scores: list[float], count: int) -> list[int]:
    """Return the places of the largest, ascending."""
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def evenly_spaced(count: int, places: int) -> list[int]:
    return [math.floor((i + 0.5) * places / count) for i in range(count)]


def evs(tokens: NDArray, count: int) -> Answer:
    frames, per_frame, _ = tokens.shape
    rest = (frames - 1) * per_frame
    first = count if frames == 1 else max(min(per_frame, count // 2), count - rest)
    change = [1 - cosine(tokens[t, n], tokens[t - 1, n]) for t in range(1, frames) for n in range(per_frame)]
    keep = evenly_spaced(first, per_frame) + [per_frame + i for i in best(change, count - first)]
    return {i: tokens[i // per_frame, i % per_frame] for i in keep}


def dycoke(tokens: NDArray, count: int) -> Answer:
    frames, per_frame, _ = tokens.shape
    window = 4
    while window < frames and math.ceil(frames / window) * per_frame * 3 > 2 * count:
        window *= 2
    whole = [t for t in range(frames) if t % window == 0]
    others = [t for t in range(frames) if t % window]
    granted = min(len(whole) * per_frame, int(2 / 3 * count)) if frames > 1 else count
    granted = max(granted, count - len(others) * per_frame)
    out: Answer = {}
    for t, share in zip(whole, even(granted, len(whole), np.full(len(whole), per_frame)), strict=True):
        out |= {t * per_frame + n: tokens[t, n] for n in evenly_spaced(int(share), per_frame)}
    if others:
        shares = even(count - granted, len(others), np.full(len(others), per_frame))
        for t, share in zip(others, shares, strict=True):
            place = t % window
            lowest = 1
            while place % (2 * lowest) == 0:
                lowest *= 2
            change = [1 - cosine(tokens[t, n], tokens[t - lowest, n]) for n in range(per_frame)]
            out |= {t * per_frame + n: tokens[t, n] for n in best(change, int(share))}
    return out


def vidcom2(tokens: NDArray, r: float, count: int) -> Answer:
    frames, per_frame, width = tokens.shape
    variance = tokens.reshape(-1, width).var(axis=0)
    channels = sorted(sorted(range(width), key=lambda i: (variance[i], i))[: width // 2])
    direction = np.array([[x[channels] / np.linalg.norm(x[channels]) for x in frame] for frame in tokens])

    def kernels(x: NDArray, centre: NDArray) -> float:
        return sum(math.exp(-((x - centre) ** 2).sum() / (2 * 2.0**k)) for k in range(-3, 2))

    whole = direction.mean(axis=(0, 1))
    video = np.array([[kernels(x, whole) for x in frame] for frame in direction])
    own = np.array([[kernels(x, frame.mean(axis=0)) for x in frame] for frame in direction])
    uniqueness = -video.mean(axis=1)
    p = np.exp((uniqueness - uniqueness.max()) / 0.01)
    p /= p.sum()
    lower = np.full(frames, 1 if count >= frames else 0)
    shares, _ = allocation.allocate(r * (1 + p - p.mean()), count, lower, np.full(frames, per_frame))
    out: Answer = {}
    for t in range(frames):
        for n in best((-(video + own)[t]).tolist(), int(shares[t])):
            out[t * per_frame + n] = tokens[t, n]
    return out


def divprune(tokens: NDArray, count: int) -> Answer:
    flat = tokens.reshape(-1, tokens.shape[2])
    total = len(flat)
    distance = np.array([[1 - cosine(a, b) for b in flat] for a in flat])
    nearest = [min(distance[i, j] for j in range(total) if j != i) for i in range(total)]
    chosen = best(nearest, 1)
    while len(chosen) < count:
        free = [j for j in range(total) if j not in chosen]
        gain = [min(distance[i, j] for i in chosen) for j in free]
        chosen.append(free[best(gain, 1)[0]])
    return {i: flat[i] for i in chosen}


def cover(
    tokens: NDArray,
    grid: tuple[int, int],
    count: int,
    *,
    content: float,
    time: float,
    space: float,
    caps: NDArray | None = None,
    among: Iterable[int] | None = None,
) -> Answer:
    flat, frames = tokens.reshape(-1, tokens.shape[2]), len(tokens)
    rows, cols = grid
    total = len(flat)
    candidates = sorted(range(total) if among is None else among)

    mean = 1 - sum(cosine(a, b) for a in flat for b in flat) / total**2
    mean = max(mean, 1e-5)

    def stands_in(i: int, j: int) -> float:
        (s, a), (t, b) = divmod(i, rows * cols), divmod(j, rows * cols)
        away = math.dist(divmod(a, cols), divmod(b, cols)) / (space * max(grid))
        unlike = (1 - cosine(flat[i], flat[j])) / (content * mean)
        return math.exp(-unlike - abs(s - t) / (time * frames) - away**2 / 2)

    chance = {i: {j: stands_in(i, j) for j in candidates} for i in candidates}
    nearest = {i: max((chance[i][j] for j in candidates if j != i), default=-math.inf) for i in candidates}
    chosen: list[int] = []
    while len(chosen) < count:
        spent = np.bincount([i // (rows * cols) for i in chosen], minlength=frames)
        free = [
            i
            for i in candidates
            if i not in chosen and (caps is None or spent[i // (rows * cols)] < caps[i // (rows * cols)])
        ]
        # The logarithm of the product, which does not lose chances below the rounding of 1.
        novelty = [
            math.fsum(math.log1p(-min(chance[i][j], 1 - 1e-6)) for j in chosen) if chosen else -nearest[i] for i in free
        ]
        chosen.append(free[best(novelty, 1)[0]])
    return {i: flat[i] for i in chosen}


def visionzip(tokens: NDArray, attention: NDArray, keys: NDArray, count: int) -> Answer:
    frames, per_frame, _ = tokens.shape
    out: Answer = {}
    for t, share in enumerate(even(count, frames, np.full(frames, per_frame)).tolist()):
        context = math.floor(share * 10 / 64 + 0.5) if share > 1 else 0
        dominant = best(attention[t].tolist(), share - context)
        out |= {t * per_frame + n: tokens[t, n] for n in dominant}
        rest = [n for n in range(per_frame) if n not in dominant]
        if not context:
            continue
        targets = rest[:: max(1, len(rest) // context)][:context]
        members = {n: [tokens[t, n]] for n in targets}
        for n in rest:
            if n not in targets:
                similar = [cosine(keys[t, n], keys[t, target]) for target in targets]
                members[targets[int(np.argmax(similar))]].append(tokens[t, n])
        out |= {t * per_frame + n: np.mean(joined, axis=0) for n, joined in members.items()}
    return out


def fastvid(
    tokens: NDArray, attention: NDArray, features: NDArray, count: int, *, budget: str, c: int = 8, d: float = 0.4
) -> Answer:
    frames, per_frame, _ = tokens.shape
    granted = even(count, frames, np.full(frames, per_frame))
    bounds, _ = segments(features, c, 0.9)
    out: Answer = {}
    for start, stop in pairwise(bounds):
        span = range(start, stop)
        if budget == "onevision":
            merged = [math.floor(granted[t] * d + 1e-9) for t in span]
            context, salient_counts = sum(merged), [int(granted[t]) - m for t, m in zip(span, merged, strict=True)]
        else:
            total = int(granted[start:stop].sum())
            context = math.floor(total * d + 1e-9)
            zeros, full = np.zeros(len(span), np.int64), np.full(len(span), per_frame)
            salient_counts = allocation.allocate(granted[start:stop], total - context, zeros, full)[0].tolist()
        salient = {t: best(attention[t].tolist(), n) for t, n in zip(span, salient_counts, strict=True)}
        room = {t: per_frame - len(salient[t]) for t in span}
        step = 4
        anchors = [t for t in span if (stop - 1 - t) % step == 0]
        while sum(room[t] for t in anchors) < context:
            step = min(step, len(span)) - 1
            anchors = [t for t in span if (stop - 1 - t) % step == 0]
        quotas = even(context, len(anchors), np.array([room[t] for t in anchors[::-1]]))[::-1]
        for t in span:
            out |= {t * per_frame + n: tokens[t, n] for n in salient[t]}
        for t, quota in zip(anchors, quotas.tolist(), strict=True):
            if not quota:
                continue
            rest = [n for n in range(per_frame) if n not in salient[t]]
            scored = peaks(tokens[t], rest, 4)
            value = [scored[n][0] + (math.log(scored[n][1]) if scored[n][1] > 0 else -math.inf) for n in rest]
            centres = [rest[i] for i in best(value, quota)]
            members: dict[int, list[NDArray]] = {n: [] for n in centres}
            for other in span:
                for n in range(per_frame):
                    own = other == t and n in centres
                    if n in salient[other] or (own and budget == "video"):
                        continue
                    similar = [cosine(tokens[other, n], tokens[t, centre]) for centre in centres]
                    members[centres[int(np.argmax(similar))]].append(tokens[other, n])
            for n, joined in members.items():
                merged_value = 0.6 * tokens[t, n] + 0.4 * np.mean(joined, axis=0) if joined else tokens[t, n]
                out[t * per_frame + n] = merged_value
    return out


def best_windows(similar: NDArray, tau: float) -> int:
    """Return the largest number of tokens that any division into windows saves, by trying all divisions."""
    frames = len(similar) + 1
    most = 0
    for cuts in range(2 ** (frames - 1)):
        edges = [0, *(i + 1 for i in range(frames - 1) if cuts >> i & 1), frames]
        saved = sum(
            (b - a - 1) * int((similar[a : b - 1] > tau).all(axis=0).sum()) for a, b in pairwise(edges) if b > a + 1
        )
        most = max(most, saved)
    return most


def holitom(
    tokens: NDArray, attention: NDArray, windows: list[tuple[int, int]], tau: float, count: int, *, plain: bool = False
) -> Answer:
    """For given windows, first and last frame each."""
    frames, per_frame, _ = tokens.shape
    similar = np.array([[cosine(tokens[t, n], tokens[t + 1, n]) for n in range(per_frame)] for t in range(frames - 1)])
    static = [
        [n for n in range(per_frame) if b > a and all(similar[t, n] > tau for t in range(a, b))] for a, b in windows
    ]
    room, lower = [], []
    for (a, b), positions in zip(windows, static, strict=True):
        room += [len(positions), *[per_frame - len(positions)] * (b - a + 1)]
        lower += [int(bool(positions)), *[0] * (b - a + 1)]
    shares, _ = allocation.allocate(np.array(room), count, np.array(lower), np.array(room))
    left = iter(shares.tolist())
    out: Answer = {}
    for (a, b), positions in zip(windows, static, strict=True):
        clusters = next(left)
        if clusters:
            mean = {n: tokens[a : b + 1, n].mean(axis=0) for n in positions}
            table = np.zeros((per_frame, tokens.shape[2]))
            for n in positions:
                table[n] = mean[n]
            scored = peaks(table, positions, 7)
            value = [scored[n][0] + (math.log(scored[n][1]) if scored[n][1] > 0 else -math.inf) for n in positions]
            centres = [positions[i] for i in best(value, clusters)]
            members: dict[int, list[NDArray]] = {n: [] for n in centres}
            for n in positions:
                if n not in centres:
                    far = [float(((mean[n] - mean[centre]) ** 2).sum()) for centre in centres]
                    members[centres[int(np.argmin(far))]].append(mean[n])
            for n, joined in members.items():
                own = (1 / (len(joined) + 1) if plain else 0.6) if joined else 1
                others = (1 - own) * np.mean(joined, axis=0) if joined else 0
                out[a * per_frame + n] = own * mean[n] + others
        for t in range(a, b + 1):
            dynamic = [n for n in range(per_frame) if n not in positions]
            for i in best([attention[t, n] for n in dynamic], next(left)):
                out[t * per_frame + dynamic[i]] = tokens[t, dynamic[i]]
    return out


def flashvid(
    tokens: NDArray,
    attention: NDArray,
    count: int,
    *,
    c: int = 8,
    tau_s: float = 0.9,
    tau_t: float = 0.8,
    relevance: bool = True,
) -> Answer:
    frames, per_frame, _ = tokens.shape
    granted = even(count, frames, np.full(frames, per_frame))
    quota = [math.ceil(g * 0.7 - 1e-9) for g in granted]
    change = [cosine(tokens[t].mean(axis=0), tokens[t + 1].mean(axis=0)) for t in range(frames - 1)]
    cuts = {t for t in range(frames - 1) if change[t] < tau_s}
    for t in sorted(set(range(frames - 1)) - cuts, key=lambda t: (change[t], t))[: max(0, c - 1 - len(cuts))]:
        cuts.add(t)
    bounds = [0, *(t + 1 for t in sorted(cuts)), frames]
    out: Answer = {}
    for start, stop in pairwise(bounds):
        centre = tokens[start:stop].mean(axis=(0, 1))
        picked: dict[int, list[int]] = {}
        for t in range(start, stop):
            rho = tokens[t] @ centre
            weight = attention[t] * (np.maximum(rho, 1e-6 * np.abs(rho).max()) if relevance else 1)
            distance = np.array(
                [[max(0, 1 - cosine(a, b)) * weight[j] for j, b in enumerate(tokens[t])] for a in tokens[t]]
            )
            chosen: list[int] = []
            while len(chosen) < quota[t]:
                free = [j for j in range(per_frame) if j not in chosen]
                if chosen:
                    gain = [min(distance[i, j] for i in chosen) for j in free]
                else:
                    gain = [sorted(distance[:, j])[1] if per_frame > 1 else 0.0 for j in free]
                chosen.append(free[best(gain, 1)[0]])
            picked[t] = chosen
            out |= {t * per_frame + n: tokens[t, n] for n in chosen}
        wanted = sum(int(granted[t]) - quota[t] for t in range(start, stop))
        if wanted:
            out |= _trees(tokens, picked, range(start, stop), wanted, int(granted[start:stop].sum()), tau_t)
    return out


def _trees(tokens: NDArray, picked: dict[int, list[int]], span: range, wanted: int, least: int, tau_t: float) -> Answer:
    """Cluster the remaining tokens of a segment's trees."""
    per_frame = tokens.shape[1]
    free = {t: [n for n in range(per_frame) if n not in picked[t]] for t in span}
    links: list[tuple[float, int, int, int]] = []
    for t in span[1:]:
        for n in free[t]:
            if free[t - 1]:
                similar = [cosine(tokens[t, n], tokens[t - 1, m]) for m in free[t - 1]]
                top = int(np.argmax(similar))
                if similar[top] > tau_t:
                    links.append((similar[top], t, n, free[t - 1][top]))
    links.sort(key=lambda link: (-link[0], link[1], link[2]))
    parent = {(t, n): (t - 1, m) for _, t, n, m in links[: len(span) * per_frame - least]}
    members: dict[tuple[int, int], list[NDArray]] = {}
    for t in span:
        for n in free[t]:
            root = (t, n)
            while root in parent:
                root = parent[root]
            members.setdefault(root, []).append(tokens[t, n])
    value = {root: np.mean(joined, axis=0) for root, joined in members.items()}
    held = [[n for n in free[t] if (t, n) in members] for t in span]
    sizes = np.array([len(one) for one in held])
    lower = (sizes > 0).astype(np.int64) if (sizes > 0).sum() <= wanted else np.zeros_like(sizes)
    clusters, _ = allocation.allocate(sizes, wanted, lower, sizes)
    out: Answer = {}
    for t, roots, number in zip(span, held, clusters.tolist(), strict=True):
        if not number:
            continue
        table = np.zeros((per_frame, tokens.shape[2]))
        for n in roots:
            table[n] = value[t, n]
        scored = peaks(table, roots, 7)
        score = [scored[n][0] + (math.log(scored[n][1]) if scored[n][1] > 0 else -math.inf) for n in roots]
        centres = [roots[i] for i in best(score, number)]
        groups: dict[int, list[NDArray]] = {n: [] for n in centres}
        for n in roots:
            far = [float(((table[n] - table[centre]) ** 2).sum()) for centre in centres]
            groups[n if n in centres else centres[int(np.argmin(far))]].append(table[n])
        out |= {t * per_frame + n: np.mean(joined, axis=0) for n, joined in groups.items()}
    return out
