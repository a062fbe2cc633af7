"""InfoMerge and MeToM's BTM as one would write them down: loops over segments, frames, anchors, pairs and tokens."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from compress.budget import allocate
from compress.infomerge import InfoMerge
from compress.metom import BTM
from compress.ops.similarity import unit
from compress.stage import Signals


def loop_infomerge(tokens: Tensor, signals: Signals, retention: float) -> Tensor:
    """InfoMerge as one would write it down: a loop over segments, frames and anchors, eigenvalues of every segment."""
    method = InfoMerge(retention=retention)
    frames, count, width = tokens.shape
    wide = tokens.float()
    assert signals.frame_features is not None
    assert signals.saliency is not None
    g = unit(signals.frame_features)
    t = [float(g[i] @ g[i + 1]) for i in range(frames - 1)]
    cuts = set(np.argsort(t, kind="stable")[: method.c - 1].tolist()) | {
        i for i in range(frames - 1) if t[i] < method.tau_seg
    }
    edges = [0, *sorted(i + 1 for i in cuts), frames]
    spans = list(pairwise(edges))
    total = round(retention * frames * count)
    salient = int((1 - method.d) * retention * count + 1e-9)

    static, u, e = [], [], []
    video_mean = wide.mean(dim=(0, 1))
    for a, b in spans:
        direction = unit(wide[a:b])
        change = torch.zeros(count)
        for p in range(count):
            f = direction[:, p] @ direction[:, p].T
            change[p] = (f[1:] - f[:-1]).abs().sum() / max((b - a - 1) * (b - a), 1)
        size = int(method.parameter("rho") * count + 1e-9) if b - a > 1 else 0
        static.append(set(change.argsort(stable=True)[:size].tolist()))
        u.append(1 - float(torch.cosine_similarity(wide[a:b].mean(dim=(0, 1)), video_mean, dim=0)))
        rows = wide[a:b].reshape(-1, width)
        gram = rows @ rows.T if len(rows) <= width else rows.T @ rows
        share = torch.linalg.eigvalsh(gram).clamp_min(0)
        share = share / share.sum()
        e.append(float(-torch.xlogy(share, share).sum()) / np.log(min(rows.shape)))
    lengths = np.array([b - a for a, b in spans])
    z = [(np.array(x) - np.mean(x)) / np.std(x, ddof=1) for x in (u, e)]
    m = method.parameter("alpha") * z[0] + method.parameter("beta") * z[1]
    weights = lengths / (1 + np.exp(-method.parameter("tau") * m))
    budgets = allocate(weights, total - frames * salient, lower=1, upper=lengths * (count - salient))

    out: dict[int, Tensor] = {}
    for (a, b), fixed, budget in zip(spans, static, budgets, strict=True):
        history: set[int] = set()
        seen = wide[a:b].clone()
        taken = []
        for frame in range(a, b):
            score = signals.saliency[frame].clone()
            spread = score.std(correction=0)
            for p in history:
                score[p] -= method.parameter("lam") * spread
            picked = score.argsort(descending=True, stable=True)[:salient].tolist()
            taken.append(set(picked))
            history |= set(picked) & fixed
            for p in set(picked) & fixed:
                seen[frame - a :, p] = wide[a:b, p].mean(dim=0)
            for p in picked:
                out[frame * count + p] = seen[frame - a, p]
        anchors = list(range(b - 1, a - 1, -method.p))[::-1]
        used: set[int] = set()
        for i, frame in enumerate(anchors):
            quota = int(budget) // len(anchors) + (i >= len(anchors) - int(budget) % len(anchors))
            rest = [p for p in range(count) if p not in taken[frame - a]]
            x = seen[frame - a, rest]
            d = torch.cdist(x, x) / width**0.5
            density = -(d.topk(method.k_nn, largest=False).values ** 2).mean(dim=1)
            score = torch.empty(len(rest))
            for j in range(len(rest)):
                denser = density > density[j]
                separation = d[j][denser].min() if bool(denser.any()) else d[j].max()
                score[j] = density[j] + separation.log()
            ranked = sorted(range(len(rest)), key=lambda j: (rest[j] in used, -float(score[j]), j))[:quota]
            centres = sorted(rest[j] for j in ranked)
            used |= set(centres) & fixed
            if not centres:
                continue
            pool = [
                (r, p)
                for r in range(b - a)
                for p in range(count)
                if p not in taken[r] and not (a + r == frame and p in centres)
            ]
            features = seen[[r for r, _ in pool], [p for _, p in pool]]
            best = (unit(features) @ unit(seen[frame - a, centres]).T).argmax(dim=1)
            for j, centre in enumerate(centres):
                joined = features[best == j]
                value = seen[frame - a, centre]
                out[frame * count + centre] = 0.6 * value + 0.4 * joined.mean(dim=0) if len(joined) else value
    return torch.stack([out[i] for i in sorted(out)]).to(tokens.dtype)


def loop_btm(tokens: Tensor, signals: Signals, retention: float) -> Tensor:
    """BTM as one would write it down: all pairs in one matrix and one list, then a loop over pairs and tokens."""
    method = BTM(retention=retention)
    frames, count, width = tokens.shape
    flat = tokens.float().reshape(-1, width)
    assert signals.packet_size is not None
    budgets = method.frame_budgets(signals.packet_size, tokens_per_frame=count)
    core = []
    for t in range(frames):
        order = np.argsort(-np.asarray(signals.density)[t], kind="stable")[: budgets[t]]
        core += sorted(t * count + int(p) for p in order)
    value = {i: flat[i] for i in core}
    owner = {i: i for i in core}
    direction = unit(flat[core])
    similarity = direction @ direction.T
    frame = torch.tensor(core) // count
    similar = torch.triu((similarity > method.tau_tem) & (frame[:, None] != frame[None])).nonzero()
    strength = similarity[similar[:, 0], similar[:, 1]]
    taken: set[int] = set()
    for i, j in similar[strength.argsort(descending=True, stable=True)].tolist():
        a, b = core[i], core[j]
        if a not in taken and b not in taken:
            taken |= {a, b}
            value[a] = (value[a] + value.pop(b)) / 2
            owner[b] = a
    merged: dict[int, list[Tensor]] = {i: [] for i in value}
    core_set = set(core)
    for t in range(frames):
        own = [owner[i] for i in core if i // count == t]
        if not own:
            continue
        targets = unit(torch.stack([value[i] for i in own]))
        for p in range(count):
            i = t * count + p
            if i not in core_set:
                merged[own[int((targets @ flat[i]).argmax())]].append(flat[i])
    out = [torch.stack([value[i], *merged[i]]).mean(dim=0) for i in sorted(value)]
    return torch.stack(out).to(tokens.dtype)
