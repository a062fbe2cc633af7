"""The comparison methods written down plainly: whole matrices, loops over frames, nothing shared between steps.

They follow the same definitions as `compress.baselines` and keep the same tokens; `bench.compare` checks that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compress.baselines.cells import bands_of
from compress.budget import allocate
from compress.stage import Signals

Plain = Callable[[Tensor, Signals, int], tuple[Tensor, Tensor]]
"""Tokens (T, N, D), signals, count -> flat indices and values of the tokens that leave."""


def even(total: int, bins: int, upper: int) -> list[int]:
    return [int(share) for share in allocate(np.ones(bins), total, upper=upper)]


def chosen(tokens: Tensor, places: list[Tensor] | Tensor) -> tuple[Tensor, Tensor]:
    keep = (torch.cat(places) if isinstance(places, list) else places).sort().values
    return keep, tokens.flatten(0, 1)[keep]


def random(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    total = tokens.shape[0] * tokens.shape[1]
    return chosen(tokens, torch.from_numpy(np.random.default_rng((0,)).permutation(total)[:count]))


def stride(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    total = tokens.shape[0] * tokens.shape[1]
    return chosen(tokens, (2 * torch.arange(count) + 1) * total // (2 * count))


def frames(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    per_frame = tokens.shape[1]
    held = -(-count // per_frame)
    picks = []
    for i, share in enumerate(even(count, held, per_frame)):
        frame = (2 * i + 1) * len(tokens) // (2 * held)
        picks.append(frame * per_frame + (2 * torch.arange(share) + 1) * per_frame // (2 * share))
    return chosen(tokens, picks)


def pool(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.grid is not None
    rows, cols = signals.grid
    keep, values = [], []
    for t, share in enumerate(even(count, len(tokens), tokens.shape[1])):
        frame = tokens[t].view(rows, cols, -1)
        bands = bands_of(rows, cols, share).tolist()
        place = torch.arange(rows * cols).view(rows, cols)
        for b, width in enumerate(bands):
            top, bottom = b * rows // len(bands), (b + 1) * rows // len(bands)
            for c in range(width):
                left, right = c * cols // width, (c + 1) * cols // width
                cell = place[top:bottom, left:right].flatten()
                keep.append(t * tokens.shape[1] + int(cell[(len(cell) - 1) // 2]))
                values.append(frame[top:bottom, left:right].float().mean(dim=(0, 1)))
    order = np.argsort(keep)
    return torch.tensor(keep)[order], torch.stack(values)[order]


def smaller(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.grid is not None
    rows, cols = signals.grid

    def overlap(places: int, parts: int) -> Tensor:
        edge = torch.arange(parts + 1, dtype=torch.float64) * places / parts
        low = torch.maximum(edge[:-1, None], torch.arange(places)[None])
        high = torch.minimum(edge[1:, None], torch.arange(places)[None] + 1)
        part = (high - low).clamp(min=0)
        return (part / part.sum(dim=1, keepdim=True)).float()

    keep, values = [], []
    for t, share in enumerate(even(count, len(tokens), tokens.shape[1])):
        frame = tokens[t].view(rows, cols, -1).float()
        bands = bands_of(rows, cols, share).tolist()
        heights = overlap(rows, len(bands))
        for b, width in enumerate(bands):
            band = torch.einsum("r,rcd->cd", heights[b], frame)
            values.append(overlap(cols, width) @ band)
            row = (2 * b + 1) * rows // (2 * len(bands))
            keep += [t * rows * cols + row * cols + (2 * c + 1) * cols // (2 * width) for c in range(width)]
    return torch.tensor(keep), torch.cat(values)


def evs(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    per_frame = tokens.shape[1]
    first = min(per_frame, count // 2)
    change = 1 - functional.cosine_similarity(tokens[1:].float(), tokens[:-1].float(), dim=2)
    rest = change.flatten().sort(descending=True, stable=True).indices[: count - first] + per_frame
    return chosen(tokens, [(2 * torch.arange(first) + 1) * per_frame // (2 * max(first, 1)), rest])


def dycoke(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    total, per_frame, _ = tokens.shape
    window = 4
    while window < total and -(-total // window) * per_frame * 3 > 2 * count:
        window *= 2
    whole = [t for t in range(total) if t % window == 0]
    shares = iter(even(count - len(whole) * per_frame, total - len(whole), per_frame))
    picks = []
    for t in range(total):
        if t in whole:
            picks.append(t * per_frame + torch.arange(per_frame))
            continue
        place = t % window
        other = t - (place & -place)
        similarity = functional.cosine_similarity(
            functional.normalize(tokens[other].float(), dim=1), functional.normalize(tokens[t].float(), dim=1), dim=1
        )
        picks.append(t * per_frame + similarity.sort(stable=True).indices[: next(shares)])
    return chosen(tokens, picks)


def vidcom2(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    total, per_frame, width = tokens.shape
    flat = tokens.flatten(0, 1).float()
    channels = flat.var(dim=0, unbiased=False).topk(width // 2, largest=False).indices
    direction = functional.normalize(flat[:, channels].view(total, per_frame, -1), dim=2)
    scores = []
    for centre in (direction.mean(dim=(0, 1), keepdim=True), direction.mean(dim=1, keepdim=True)):
        distance = ((direction - centre) ** 2).sum(dim=2)
        scores.append(sum(torch.exp(-distance / (2 * 2.0**k)) for k in range(-3, 2)))
    unlike = -scores[0].mean(dim=1)
    share = ((unlike - unlike.max()) / 0.01).softmax(dim=0)
    budgets = allocate((1 + share - share.mean()).double().numpy(), count, lower=1, upper=per_frame)
    both = scores[0] + scores[1]
    return chosen(tokens, [t * per_frame + both[t].sort(stable=True).indices[: int(n)] for t, n in enumerate(budgets)])


def divprune(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    direction = functional.normalize(tokens.flatten(0, 1).float(), dim=1)
    distance = 1 - direction @ direction.T
    picked = [int(distance.topk(2, dim=0, largest=False).values[1].argmax())]
    for _ in range(count - 1):
        nearest = distance[:, picked].amin(dim=1)
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))
    return chosen(tokens, torch.tensor(picked))


def visionzip(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.saliency is not None
    per_frame = tokens.shape[1]
    keep, values = [], []
    for t, share in enumerate(even(count, len(tokens), per_frame)):
        context = math.floor(share * 10 / 64 + 0.5)
        dominant = signals.saliency[t].topk(share - context).indices
        rest = torch.arange(per_frame)[~torch.isin(torch.arange(per_frame), dominant)]
        features = tokens[t, rest].float()
        direction = functional.normalize(features, dim=1)
        targets = torch.arange(0, len(rest), len(rest) // context)[:context]
        others = torch.arange(len(rest))[~torch.isin(torch.arange(len(rest)), targets)]
        nearest = (direction[others] @ direction[targets].T).argmax(dim=1)
        hot = functional.one_hot(nearest, context).float()
        merged = (features[targets] + hot.T @ features[others]) / (1 + hot.sum(dim=0))[:, None]
        keep += [t * per_frame + dominant, t * per_frame + rest[targets]]
        values += [tokens[t, dominant].float(), merged]
    order = torch.cat(keep).argsort()
    return torch.cat(keep)[order], torch.cat(values)[order]


def peaks(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distance = torch.cdist(features[None], features[None])[0] / features.shape[1] ** 0.5
    density = -(distance.topk(k, largest=False).values ** 2).mean(dim=1)
    denser = density[None] > density[:, None]
    separation = torch.where(denser, distance, torch.inf).amin(dim=1)
    separation = torch.where(separation.isinf(), distance.amax(dim=1), separation)
    return density + separation.log(), distance


def fastvid(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.saliency is not None
    assert signals.frame_features is not None
    total, per_frame, _ = tokens.shape
    granted = even(count, total, per_frame)
    similarity = functional.cosine_similarity(signals.frame_features[1:], signals.frame_features[:-1])
    cuts = set(similarity.topk(7, largest=False).indices.tolist()) | set((similarity < 0.9).nonzero()[:, 0].tolist())
    bounds = [0, *(c + 1 for c in sorted(cuts)), total]
    keep, values = [], []
    for start, stop in itertools.pairwise(bounds):
        budget = sum(granted[start:stop])
        context = math.floor(budget * 0.4 + 1e-9)
        counts = allocate(granted[start:stop], budget - context, upper=per_frame)
        flat = tokens[start:stop].flatten(0, 1).float()
        direction = functional.normalize(flat, dim=1)
        salient = torch.zeros(len(flat), dtype=torch.bool)
        for t, n in enumerate(counts):
            top = signals.saliency[start + t].topk(int(n)).indices
            salient[t * per_frame + top] = True
        keep.append(start * per_frame + salient.nonzero()[:, 0])
        values.append(flat[salient])
        anchors = list(range(stop - start - 1, -1, -4))
        for i, t in enumerate(anchors):
            quota = context // len(anchors) + (i < context % len(anchors))
            rest = (~salient[t * per_frame : (t + 1) * per_frame]).nonzero()[:, 0] + t * per_frame
            score, _ = peaks(flat[rest], 4)
            mine = rest[score.topk(quota).indices.sort().values]
            joins = ~salient
            joins[mine] = False
            members = joins.nonzero()[:, 0]
            nearest = (direction[members] @ direction[mine].T).argmax(dim=1)
            hot = functional.one_hot(nearest, quota).float()
            size = hot.sum(dim=0)[:, None]
            mean = hot.T @ flat[members] / size.clamp(min=1)
            keep.append(start * per_frame + mine)
            values.append(torch.where(size > 0, 0.6 * flat[mine] + 0.4 * mean, flat[mine]))
    order = torch.cat(keep).argsort()
    return torch.cat(keep)[order], torch.cat(values)[order]


def holitom(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.saliency is not None
    total, per_frame, _ = tokens.shape
    direction = functional.normalize(tokens.float(), dim=2)
    static = functional.cosine_similarity(direction[1:], direction[:-1], dim=2) > 0.8
    best, first = [0], []
    for last in range(total):
        value, start = best[last], last
        for begin in range(last - 1, -1, -1):
            gain = best[begin] + int(static[begin:last].all(dim=0).sum()) * (last - begin)
            if gain > value:
                value, start = gain, begin
        best.append(value)
        first.append(start)
    windows = []
    last = total - 1
    while last >= 0:
        windows.insert(0, (first[last], last))
        last = first[last] - 1
    masks = [static[a:b].all(dim=0) if b > a else torch.zeros(per_frame, dtype=torch.bool) for a, b in windows]
    room: list[int] = []
    least: list[int] = []
    for (a, b), mask in zip(windows, masks, strict=True):
        held = int(mask.sum())
        room += [held, *[per_frame - held] * (b - a + 1)]
        least += [int(held > 0), *[0] * (b - a + 1)]
    shares = iter(allocate(room, count, lower=least, upper=room).tolist())
    keep, values = [], []
    for (a, b), mask in zip(windows, masks, strict=True):
        clusters = next(shares)
        where = mask.nonzero()[:, 0]
        if clusters:
            mean = tokens[a : b + 1, where].float().mean(dim=0)
            score, distance = peaks(mean, min(7, len(mean)))
            picked = score.topk(clusters).indices.sort().values
            others = torch.arange(len(mean))[~torch.isin(torch.arange(len(mean)), picked)]
            nearest = distance[others][:, picked].argmin(dim=1)
            hot = functional.one_hot(nearest, clusters).float()
            size = hot.sum(dim=0)[:, None]
            merged = 0.6 * mean[picked] + 0.4 * (hot.T @ mean[others]) / size.clamp(min=1)
            keep.append(a * per_frame + where[picked])
            values.append(torch.where(size > 0, merged, mean[picked]))
        moving = (~mask).nonzero()[:, 0]
        for t in range(a, b + 1):
            top = moving[signals.saliency[t, moving].topk(next(shares)).indices]
            keep.append(t * per_frame + top)
            values.append(tokens[t, top].float())
    order = torch.cat(keep).argsort()
    return torch.cat(keep)[order], torch.cat(values)[order]


def flashvid(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.saliency is not None
    total, per_frame, _ = tokens.shape
    granted = even(count, total, per_frame)
    mean = tokens.float().mean(dim=1)
    similarity = functional.cosine_similarity(mean[1:], mean[:-1])
    cuts = (similarity < 0.9).nonzero()[:, 0].tolist()
    free_cuts = [t for t in similarity.argsort().tolist() if t not in cuts]
    cuts = sorted(cuts + free_cuts[: max(0, 7 - len(cuts))])
    keep, values = [], []
    for start, stop in itertools.pairwise([0, *(c + 1 for c in cuts), total]):
        segment = tokens[start:stop].float()
        centre = segment.mean(dim=(0, 1))
        picked = torch.zeros(stop - start, per_frame, dtype=torch.bool)
        for t in range(stop - start):
            direction = functional.normalize(segment[t], dim=1)
            relevant = segment[t] @ centre
            weight = signals.saliency[start + t] * torch.maximum(relevant, 1e-6 * relevant.abs().max())
            distance = (1 - direction @ direction.T).clamp(min=0) * weight
            chosen_here = [int(distance.topk(2, dim=0, largest=False).values[1].argmax())]
            for _ in range(math.ceil(granted[start + t] * 0.7 - 1e-9) - 1):
                nearest = distance[chosen_here].amin(dim=0)
                nearest[chosen_here] = -1
                chosen_here.append(int(nearest.argmax()))
            picked[t, chosen_here] = True
        keep.append(start * per_frame + picked.flatten().nonzero()[:, 0])
        values.append(segment[picked])
        wanted = sum(granted[start:stop]) - int(picked.sum())
        root = torch.arange(picked.numel()).view_as(picked)
        best = torch.full(picked.shape, -1.0)
        parent = torch.zeros_like(root)
        for t in range(1, stop - start):
            a, b = functional.normalize(segment[t], dim=1), functional.normalize(segment[t - 1], dim=1)
            cosine = a @ b.T
            cosine[picked[t]] = -1
            cosine[:, picked[t - 1]] = -1
            best[t], parent[t] = cosine.max(dim=1)
        strongest = best.flatten().sort(descending=True, stable=True).indices
        linked = torch.zeros(picked.numel(), dtype=torch.bool)
        linked[strongest[: picked.numel() - sum(granted[start:stop])]] = True
        linked = linked.view_as(picked) & (best > 0.8)
        for t in range(1, stop - start):
            root[t] = torch.where(linked[t], root[t - 1][parent[t]], root[t])
        flat_root = root.flatten()[~picked.flatten()]
        sums = torch.zeros(picked.numel(), segment.shape[2]).index_add_(0, flat_root, segment[~picked])
        sizes = torch.zeros(picked.numel()).index_add_(0, flat_root, torch.ones(len(flat_root)))
        trees = sums / sizes.clamp(min=1)[:, None]
        is_root = ~picked & ~linked
        held = is_root.sum(dim=1).tolist()
        clusters = allocate(held, wanted, lower=[int(h > 0) for h in held], upper=held).tolist()
        for t, n in enumerate(clusters):
            places = is_root[t].nonzero()[:, 0]
            if not n:
                continue
            features = trees[t * per_frame + places]
            if n == len(places):
                keep.append((start + t) * per_frame + places)
                values.append(features)
                continue
            score, distance = peaks(features, min(7, len(places)))
            middle = score.topk(n).indices.sort().values
            nearest = distance[:, middle].argmin(dim=1)
            nearest[middle] = torch.arange(n)
            hot = functional.one_hot(nearest, n).float()
            keep.append((start + t) * per_frame + places[middle])
            values.append(hot.T @ features / hot.sum(dim=0)[:, None])
    order = torch.cat(keep).argsort()
    return torch.cat(keep)[order], torch.cat(values)[order]


PLAIN: dict[str, Plain] = {
    "random": random,
    "stride": stride,
    "pool": pool,
    "frames": frames,
    "smaller": smaller,
    "evs": evs,
    "dycoke": dycoke,
    "vidcom2": vidcom2,
    "divprune": divprune,
    "fastvid": fastvid,
    "holitom": holitom,
    "visionzip": visionzip,
    "flashvid": flashvid,
}
