"""DTM: merging of a segment's tokens into the density peaks of its anchor frames (InfoMerge, eqs. 12, 31-34)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.infomerge.dyseg import group_segments
from compress.ops.density_peaks import log_peak_scores
from compress.ops.similarity import unit
from compress.ops.transfer import on_device, on_device_together

AnchorFrom = Literal["end", "start"]
Assignment = Literal["per_anchor_frame", "segment_global"]

SCORE_TILE = 2**24
"""Elements of anchor frames in float32 that an accelerator holds at a time: 64 MB."""

CACHED_SCORE_TILE = 2**19
"""The same for a CPU, whose cache they and their distances stay in: 2 MB."""

ASSIGN_FRAMES = 64
"""Frames that an accelerator assigns together."""

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
    """Choose every p-th frame of a segment, counted from its end, and share the segment's budget evenly.

    The remainder goes to the latest frames, one token each. A segment whose budget exceeds what its anchor frames
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
    """Compute the log density-peak score of every token of every anchor frame; -inf for salient ones.

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
    tile = CACHED_SCORE_TILE if device.type == "cpu" else SCORE_TILE
    step = max(1, tile // (per_frame * max(width, per_frame)))
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
    """Pick the best tokens of each anchor frame, static positions of earlier ones last (eq. 12).

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


def group_anchors(
    anchors: AnchorFrames,
    picked: NDArray[np.bool_],
    bounds: NDArray[np.int64],
    *,
    assignment: Assignment = "per_anchor_frame",
    include_self: bool = False,
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.bool_]]]:
    """Group the anchors that tokens are assigned to, one group per anchor frame or one per segment.

    Args:
        anchors: F anchor frames.
        picked: bool (F, N), their anchors.
        bounds: int64 (K + 1,), where segments begin.
        assignment: whether a group is an anchor frame or a segment.
        include_self: let a group take in its own anchors.

    Returns:
        For each segment the sizes of its groups, and bool (groups, P_k * N), the tokens that a group does not take in.
    """
    per_frame = picked.shape[1]
    sizes, own = [], []
    for k, (start, stop) in enumerate(itertools.pairwise(bounds)):
        mine = np.flatnonzero(anchors.segment == k)
        quota = anchors.quota[mine]
        group = np.arange(len(mine))
        if assignment == "segment_global" and len(mine):
            quota, group = quota.sum(keepdims=True), np.zeros_like(group)
        mask = np.zeros((len(quota), stop - start, per_frame), dtype=bool)
        if not include_self:
            np.logical_or.at(mask, (group, anchors.frame[mine] - start), picked[mine])
        sizes.append(quota)
        own.append(mask.reshape(len(quota), (stop - start) * per_frame))
    return sizes, own


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignments:
    """The nearest anchor of every token and mean in every group of anchors of its segment.

    Segments that are taken together share a table with one column per group; token i of segment k finds its anchor in
    group g at ``tokens[k] + i * stride[k] + g``, mean i at ``means[k] + i * stride[k] + g``.

    Attributes:
        anchor: int64 (n,), index among all anchors, on the device.
        tokens: int64 (K,).
        means: int64 (K,).
        stride: int64 (K,).
    """

    anchor: Tensor
    tokens: NDArray[np.int64]
    means: NDArray[np.int64]
    stride: NDArray[np.int64]


def assign_tokens(
    tokens: Tensor,
    means: Tensor,
    mean_bounds: NDArray[np.int64],
    anchor_features: Tensor,
    bounds: NDArray[np.int64],
    group_sizes: list[NDArray[np.int64]],
) -> Assignments:
    """Assign every token and mean to its most similar anchor in each group of its segment (ties: the first).

    The CPU takes one segment at a time. An accelerator takes several together, and looks at the anchors of all of
    them for each token: more arithmetic, fewer launches.

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
    groups = np.array([sizes.size for sizes in group_sizes], np.int64)
    token_start, mean_start, stride = (np.zeros(len(groups), np.int64) for _ in range(3))
    parts: list[Tensor] = []
    total = offset = 0
    for first, last in group_segments(bounds, frames=0 if device.type == "cpu" else ASSIGN_FRAMES):
        sizes = np.concatenate(group_sizes[first:last])
        if not sizes.size:
            continue
        place = np.arange(int(sizes.max())) < sizes[:, None]
        begin = offset + np.cumsum(sizes) - sizes
        index = np.where(place, begin[:, None] + np.arange(place.shape[1]), 0)
        offset += int(sizes.sum())
        begin_there, index_there = on_device_together(begin, index, device=device)
        padding = None if place.all() else on_device(~place, device)
        candidates = direction.index_select(0, index_there.flatten())

        rows = tokens[int(bounds[first]) : int(bounds[last])].flatten(0, 1)
        own_means = means[int(mean_bounds[first]) : int(mean_bounds[last])]
        column = np.cumsum(groups[first:last]) - groups[first:last]
        stride[first:last] = len(sizes)
        token_start[first:last] = total + (bounds[first:last] - bounds[first]) * tokens.shape[1] * len(sizes) + column
        mean_row = len(rows) + mean_bounds[first:last] - mean_bounds[first]
        mean_start[first:last] = total + mean_row * len(sizes) + column
        total += (len(rows) + len(own_means)) * len(sizes)
        for block in (*torch.split(rows, max(1, ASSIGN_TILE // len(candidates))), own_means):
            if not len(block):
                continue
            cosine = (block.float() @ candidates.T).view(len(block), *index.shape)
            if padding is not None:
                cosine.masked_fill_(padding, -torch.inf)
            parts.append((cosine.argmax(dim=2) + begin_there).flatten())
    return Assignments(
        anchor=torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=device),
        tokens=token_start,
        means=mean_start,
        stride=stride,
    )
