"""DTM: merge the tokens of a segment into the density peaks of its anchor frames (InfoMerge, eqs. 12, 31-34)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.ops.density_peaks import log_peak_scores
from compress.ops.similarity import unit
from compress.ops.transfer import on_device

AnchorFrom = Literal["end", "start"]
Assignment = Literal["per_anchor_frame", "segment_global"]

SCORE_TILE = 2**24
"""Elements of anchor frames in float32 held at a time: 64 MB."""

ASSIGN_TILE = 2**23
"""Similarities between tokens and anchors held at a time: 32 MB."""


@dataclass(frozen=True, kw_only=True)
class AnchorFrames:
    """The anchor frames of a video and how many anchors each supplies, in temporal order.

    Attributes:
        frame: int64 (F,).
        segment: int64 (F,).
        quota: int64 (F,), at least 1.
    """

    frame: NDArray[np.int64]
    segment: NDArray[np.int64]
    quota: NDArray[np.int64]


def schedule_anchor_frames(
    budgets: NDArray[np.int64],
    bounds: NDArray[np.int64],
    *,
    candidates: int,
    p: int,
    anchor_from: AnchorFrom = "end",
) -> AnchorFrames:
    """Every p-th frame of a segment, counted from its end, shares the segment's budget evenly.

    What does not divide goes to the latest frames, one each. A segment whose budget exceeds what its anchor frames
    hold takes a shorter step, ``floor(P / ceil(B / candidates))``, which always suffices for B <= P * candidates.

    Args:
        budgets: B_k, int64 (K,).
        bounds: int64 (K + 1,), where segments begin.
        candidates: tokens that an anchor frame can supply, N - T_s.
        p: anchor interval in frames.
        anchor_from: which end of the segment is an anchor frame in any case.
    """
    frames, segments, quotas = [], [], []
    for k, (budget, start, stop) in enumerate(zip(budgets, bounds[:-1], bounds[1:], strict=True)):
        length = stop - start
        if not budget:
            continue
        needed = -(-budget // candidates)
        step = p if needed <= -(-length // p) else max(1, length // needed)
        anchor = np.arange(stop - 1, start - 1, -step)[::-1] if anchor_from == "end" else np.arange(start, stop, step)
        quota = np.full(len(anchor), budget // len(anchor))
        quota[len(anchor) - budget % len(anchor) :] += 1
        funded = quota > 0
        frames.append(anchor[funded])
        segments.append(np.full(int(funded.sum()), k))
        quotas.append(quota[funded])
    return AnchorFrames(
        frame=np.concatenate(frames or [np.zeros(0, np.int64)]),
        segment=np.concatenate(segments or [np.zeros(0, np.int64)]),
        quota=np.concatenate(quotas or [np.zeros(0, np.int64)]),
    )


def score_candidates(
    tokens: Tensor,
    anchors: AnchorFrames,
    salient: NDArray[np.bool_],
    replaced: NDArray[np.bool_],
    means: Tensor,
    mean_row: NDArray[np.int64],
    *,
    k_nn: int,
) -> Tensor:
    """Log density-peak score of every token of every anchor frame; -inf for salient ones.

    Args:
        tokens: (L, N, D).
        anchors: F anchor frames.
        salient: bool (L, N).
        replaced: bool (L, N), tokens that DTM sees as the mean of their position.
        means: float32 (R, D), those means.
        mean_row: int64 (L, N), row of ``means`` of each replaced token.
        k_nn: neighbours of the density, the token itself included.

    Returns:
        float32 (F, N).
    """
    per_frame, width = tokens.shape[1:]
    device = tokens.device
    neighbours = min(k_nn, per_frame - int(salient[0].sum()))
    scores = []
    step = max(1, SCORE_TILE // (per_frame * max(width, per_frame)))
    for start in range(0, len(anchors.frame), step):
        frame = anchors.frame[start : start + step]
        features = tokens.index_select(0, on_device(frame, device)).float()
        where = np.flatnonzero(replaced[frame])
        if where.size:
            row = on_device(mean_row[frame].ravel()[where], device)
            features.view(-1, width).index_copy_(0, on_device(where, device), means.index_select(0, row))
        scores.append(log_peak_scores(features, on_device(~salient[frame], device), neighbours=neighbours))
    return torch.cat(scores)


def pick_anchors(
    scores: NDArray[np.float64],
    anchors: AnchorFrames,
    salient: NDArray[np.bool_],
    static: NDArray[np.bool_],
    *,
    hard_mask: bool,
) -> NDArray[np.bool_]:
    """The best tokens of each anchor frame, static positions of earlier ones last (eq. 12).

    Masked positions are used only when the others run out, so the quota is met in any case.

    Args:
        scores: (F, N), `score_candidates` on the host.
        anchors: F anchor frames.
        salient: bool (L, N); these are never picked.
        static: bool (K, N).
        hard_mask: whether static positions are masked once used.

    Returns:
        bool (F, N).
    """
    picked = np.zeros(scores.shape, dtype=bool)
    used = np.zeros(static.shape, dtype=bool)
    for i, (frame, segment, quota) in enumerate(zip(anchors.frame, anchors.segment, anchors.quota, strict=True)):
        order = np.lexsort((-scores[i], used[segment] & hard_mask, salient[frame]))
        picked[i, order[:quota]] = True
        used[segment] |= picked[i] & static[segment]
    return picked


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignments:
    """The nearest anchor of every token of every segment, one for each of its groups of anchors.

    Attributes:
        anchor: int64 (n,), index among all anchors, on the device. Segment k occupies, from ``start[k]``, first
            (P_k * N, groups) for its tokens as they are, then (R_k, groups) for its means.
        start: int64 (K,).
        groups: int64 (K,), anchor frames of each segment, or 1 where they count as one.
    """

    anchor: Tensor
    start: NDArray[np.int64]
    groups: NDArray[np.int64]


def assign_tokens(
    tokens: Tensor,
    means: Tensor,
    mean_bounds: NDArray[np.int64],
    anchor_features: Tensor,
    bounds: NDArray[np.int64],
    group_sizes: list[NDArray[np.int64]],
) -> Assignments:
    """Cosine arg-max of every token and mean over each group of anchors of its segment (ties: the first).

    Args:
        tokens: (L, N, D).
        means: float32 (R, D), of all segments in order.
        mean_bounds: int64 (K + 1,), where each segment's means begin.
        anchor_features: float32 (B, D), of all segments in order.
        bounds: int64 (K + 1,), where segments begin.
        group_sizes: sizes of the groups of anchors of each segment, which lie one after the other.
    """
    device = tokens.device
    direction = unit(anchor_features)
    parts: list[Tensor] = []
    starts, total, offset = [], 0, 0
    for k, sizes in enumerate(group_sizes):
        starts.append(total)
        if not sizes.size:
            continue
        widest = int(sizes.max())
        place = np.arange(widest)[None] < sizes[:, None]
        index = np.where(place, offset + np.cumsum(place).reshape(place.shape) - 1, offset)
        offset += int(sizes.sum())
        index_there = on_device(index, device)
        padding = None if place.all() else on_device(~place, device)
        candidates = direction.index_select(0, index_there.reshape(-1))
        rows = tokens[int(bounds[k]) : int(bounds[k + 1])].flatten(0, 1)
        own_means = means[int(mean_bounds[k]) : int(mean_bounds[k + 1])]
        for block in (*torch.split(rows, max(1, ASSIGN_TILE // len(candidates))), own_means):
            cosine = (block.float() @ candidates.T).view(len(block), len(sizes), widest)
            if padding is not None:
                cosine.masked_fill_(padding, -torch.inf)
            best = cosine.argmax(dim=2)
            chosen = index_there[torch.arange(len(sizes), device=device), best]
            parts.append(chosen.reshape(-1))
            total += chosen.numel()
    return Assignments(
        anchor=torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=device),
        start=np.array(starts, np.int64),
        groups=np.array([sizes.size for sizes in group_sizes], np.int64),
    )
