"""FastVID: salient tokens of every frame and context tokens of every segment (NeurIPS 2025, arXiv 2503.11187).

The reference follows the released code for LLaVA-Video and LLaVA-OneVision (LunarShen/FastVID, MIT).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.baselines.baseline import Choice, FrameBudgets, Published, saliency_of, saliency_source
from compress.baselines.noise import Noise, released_peaks
from compress.baselines.rows import Rows
from compress.budget import allocate, floor_guarded
from compress.errors import ConfigError, ShapeError
from compress.infomerge.assembly import KINDS, PositionMeans, assemble, collect_pool
from compress.infomerge.dtm import (
    CACHED_SCORE_TILE,
    SCORE_TILE,
    AnchorFrames,
    assign_tokens,
    group_anchors,
    pick_anchors,
)
from compress.infomerge.dyseg import cut_segments, transitions
from compress.ops.density_peaks import log_peak_scores
from compress.ops.transfer import on_device, on_host
from compress.stage import Segment, Signals

Budget = Literal["video", "onevision"]


@dataclass(frozen=True, kw_only=True)
class FastVID(Published, FrameBudgets):
    """Salient tokens by attention, and anchors by density into which the rest of a segment merges.

    The two released variants split and merge differently. ``video`` (LLaVA-Video): context tokens are the share d of a
    segment's budget, earlier frames get the salient tokens that do not divide, and anchors do not take in each other
    within a frame. ``onevision`` (LLaVA-OneVision): the share d is taken of every frame's budget, and anchors count
    among the tokens that are assigned.

    Fixed, counts are exact, ties go to the lower position, and segments whose anchor frames cannot hold their context
    tokens use more of them (the released code fails beyond a retention of 45 %). The reference reads ``frame_features``
    too, as the fixed method does; both fall back on the mean token.

    Attributes:
        budget: the variant.
        c: least number of segments.
        tau: transitions below it begin a segment.
        d: share of context tokens, in [0, 1].
        p: anchor interval in frames, counted from the end of a segment.
        beta: least weight of an anchor that takes tokens in.
        k: neighbours of a density, the token itself included.
    """

    budget: Budget = "video"
    c: int = 8
    tau: float = 0.9
    d: float = 0.4
    p: int = 4
    beta: float = 0.6
    k: int = 4
    name: ClassVar[str] = "fastvid"
    reads: ClassVar[tuple[str, ...]] = ("saliency", "frame_features")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("budget", ("video", "onevision"))
        for name, low, high in (("c", 1, 2**31), ("tau", -1, 1 + 1e-6), ("d", 0, 1), ("p", 1, 2**31), ("beta", 0, 1)):
            self._check_range(name, low, high)
        self._check_range("k", 1, 2**31)

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, width = tokens.shape
        granted, sources = self.budgets(tokens, signals)
        t, saliency = on_host(transitions(_features_of(tokens, signals)), saliency_of(tokens, signals))
        bounds = cut_segments(t, c=self.c, tau_seg=self.tau)
        counts, context = self.split(granted, bounds, per_frame)
        order = np.argsort(-saliency, axis=1, kind="stable")
        salient = np.zeros((frames, per_frame), dtype=bool)
        np.put_along_axis(salient, order, np.arange(per_frame)[None] < counts[:, None], axis=1)
        anchors = self._schedule(context, bounds, per_frame - counts)
        picked = np.zeros((0, per_frame), dtype=bool)
        if len(anchors.frame):
            scores = np.empty((len(anchors.frame), per_frame))
            for members, part in self._scores(tokens, anchors.frame, ~salient):
                (scores[members],) = on_host(part)
            picked = pick_anchors(scores, anchors, salient, np.zeros((len(context), per_frame), bool), hard_mask=False)
        which, position = np.nonzero(picked)
        flat = anchors.frame[which] * per_frame + position
        sizes, own = group_anchors(anchors, picked, bounds, include_self=self.budget == "onevision")
        none = np.zeros_like(salient)
        means = PositionMeans.of(none, bounds)
        no_means = tokens.new_zeros((0, width), dtype=torch.float32)
        anchor_features = tokens.flatten(0, 1).index_select(0, on_device(flat, tokens.device)).float()
        assignments = assign_tokens(tokens, no_means, means.bounds, anchor_features, bounds, sizes)
        pool = collect_pool(~salient, none, own, assignments, means, bounds)
        plan, kind = assemble(
            salient,
            none,
            means,
            flat,
            np.full(len(flat), -1),
            means,
            pool,
            assignments,
            bounds,
            mu=self.beta,
            device=tokens.device,
        )
        return Choice(
            plan=plan,
            kind=on_device(kind, tokens.device),
            kinds=KINDS,
            frame_budgets=granted,
            segments=tuple(
                Segment(start=int(a), frames=int(b - a), salient=int(counts[a:b].sum()), context=int(n))
                for (a, b), n in zip(itertools.pairwise(bounds), context, strict=True)
            ),
            sources={**self._sources_of(signals), **sources},
            diagnostics={"transitions": t},
        )

    def split(
        self, granted: NDArray[np.int64], bounds: NDArray[np.int64], per_frame: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split the budget into salient tokens per frame, int64 (T,), and context tokens per segment, int64 (K,)."""
        merged = np.floor(granted * self.d + 1e-9).astype(np.int64)
        if self.budget == "onevision":
            return granted - merged, np.add.reduceat(merged, bounds[:-1])
        salient = np.zeros_like(granted)
        context = np.zeros(len(bounds) - 1, np.int64)
        for k, (start, stop) in enumerate(itertools.pairwise(bounds)):
            total = int(granted[start:stop].sum())
            context[k] = floor_guarded(total * self.d)
            salient[start:stop] = allocate(granted[start:stop], total - int(context[k]), upper=per_frame)
        return salient, context

    def _schedule(self, context: NDArray[np.int64], bounds: NDArray[np.int64], room: NDArray[np.int64]) -> AnchorFrames:
        """Choose anchor frames and their quotas: even, the remainder to the later ones, and as many as are needed."""
        frames, segments, quotas = [], [], []
        for k, (start, stop) in enumerate(itertools.pairwise(bounds)):
            step = self.p
            anchor = np.arange(stop - 1, start - 1, -step)
            while room[anchor].sum() < context[k]:
                step = min(step, int(stop - start)) - 1
                anchor = np.arange(stop - 1, start - 1, -step)
            quota = allocate(np.ones(len(anchor)), int(context[k]), upper=room[anchor])  # later ones first
            anchor, quota = anchor[::-1], quota[::-1]
            frames.append(anchor[quota > 0])
            quotas.append(quota[quota > 0])
            segments.append(np.full(int((quota > 0).sum()), k))
        return AnchorFrames(
            frame=np.concatenate(frames), segment=np.concatenate(segments), quota=np.concatenate(quotas)
        )

    def _scores(
        self, tokens: Tensor, frame: NDArray[np.int64], candidate: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Compute log density-peak scores of tiles of anchor frames: which of ``frame``, and (n, N)."""
        neighbours = np.minimum(self.k, candidate[frame].sum(axis=1))
        tile = CACHED_SCORE_TILE if tokens.device.type == "cpu" else SCORE_TILE
        step = max(1, tile // (tokens.shape[1] * max(tokens.shape[1:])))
        for k in np.unique(neighbours).tolist():
            mine = np.flatnonzero(neighbours == k)
            for start in range(0, len(mine), step):
                members = mine[start : start + step]
                features = tokens.index_select(0, on_device(frame[members], tokens.device)).float()
                here = on_device(candidate[frame[members]], tokens.device)
                yield members, log_peak_scores(features, here, neighbours=k)

    def _sources_of(self, signals: Signals) -> dict[str, str]:
        features = "mean of tokens (none given)" if signals.frame_features is None else "given"
        return {"saliency": saliency_source(signals), "frame_features": features}

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`."""
        frames, per_frame, _ = tokens.shape
        granted = int(per_frame * self.retention)
        if frames < self.c:
            raise ConfigError(f"the released code fails on {frames} frames; it takes at least c = {self.c}")
        features = _features_of(tokens, signals).float()
        features = features / features.norm(dim=1, keepdim=True)
        (similarity,) = on_host((features[:-1] * features[1:]).sum(dim=1))
        bounds = cut_segments(similarity.astype(np.float32), c=self.c, tau_seg=self.tau)
        saliency, draws = saliency_of(tokens, signals), Noise(noise)
        release = _released_video if self.budget == "video" else _released_onevision
        parts = release(self, tokens.float(), saliency, bounds, granted, draws)
        joined = Rows.joined(parts, count_in=frames * per_frame)
        return joined.ordered(joined.keep.argsort())


def _features_of(tokens: Tensor, signals: Signals) -> Tensor:
    """Return the global features of the frames (T, Dg)."""
    if signals.frame_features is None:
        return tokens.sum(dim=1, dtype=torch.float32)
    features = signals.frame_features.detach()
    if features.dim() != 2 or len(features) != len(tokens):
        raise ShapeError(f"frame_features have shape {tuple(features.shape)}; these tokens take ({len(tokens)}, Dg)")
    return features.to(tokens.device)


def _released_video(
    method: FastVID, tokens: Tensor, saliency: Tensor, bounds: NDArray[np.int64], granted: int, noise: Noise
) -> list[Rows]:
    """Run segment by segment; the context share is rounded down once per segment."""
    frames, per_frame, width = tokens.shape
    parts = []
    for start, stop in itertools.pairwise(bounds.tolist()):
        length = stop - start
        context = int(granted * length * method.d)
        counts = share_first(granted * length - context, length)
        anchor_frames = -(-length // method.p)
        quota = np.zeros(length, np.int64)
        quota[:: method.p] = share_first(context, anchor_frames)
        quota = quota[::-1]
        flat = tokens[start:stop].reshape(length * per_frame, width)
        salient = torch.zeros(length * per_frame, dtype=torch.bool, device=tokens.device)
        anchors: list[Tensor] = []
        for frame in range(length):
            top = saliency[start + frame].topk(int(counts[frame])).indices
            salient[frame * per_frame + top] = True
            if not quota[frame]:
                continue
            rest = (~salient[frame * per_frame : (frame + 1) * per_frame]).nonzero().squeeze(1)
            if len(rest) < quota[frame]:
                raise ConfigError(
                    f"the released code fails: an anchor frame has {len(rest)} tokens left for {quota[frame]} anchors"
                )
            score, _ = released_peaks(tokens[start + frame, rest][None], neighbours=method.k, noise=noise)
            anchors.append(frame * per_frame + rest[score[0].topk(int(quota[frame])).indices.sort().values])
        if not anchors:
            raise ConfigError(f"the released code fails on a segment of {length} frames without context tokens")
        direction = flat / flat.norm(dim=1, keepdim=True)
        offset, total = start * per_frame, frames * per_frame
        parts.append(Rows.selection(offset + salient.nonzero().squeeze(1), count_in=total))
        for mine in anchors:
            joins = ~salient
            joins[mine] = False
            members = joins.nonzero().squeeze(1)
            nearest = (direction[members] @ direction[mine].T).argmax(dim=1)
            parts.append(_absorb(offset + mine, offset + members, nearest, method.beta, total))
    return parts


def _released_onevision(
    method: FastVID, tokens: Tensor, saliency: Tensor, bounds: NDArray[np.int64], granted: int, noise: Noise
) -> list[Rows]:
    """Run all frames at once; a segment's context that does not divide into its anchor frames is lost."""
    frames, per_frame, width = tokens.shape
    context = int(granted * method.d)
    counts, left = granted - context, per_frame - (granted - context)
    if not context:
        raise ConfigError("the released code fails where a frame's budget leaves no context token")
    top = saliency.topk(counts, dim=1).indices
    is_rest = torch.ones((frames, per_frame), dtype=torch.bool, device=tokens.device).scatter_(1, top, False)
    rest = torch.arange(per_frame, device=tokens.device).expand(frames, -1)[is_rest].view(frames, left)
    features = tokens.gather(1, rest[..., None].expand(-1, -1, width))
    flat = torch.arange(frames, device=tokens.device)[:, None] * per_frame + rest
    scores, _ = released_peaks(features, neighbours=method.k, noise=noise)
    direction = features / features.norm(dim=2, keepdim=True)
    parts = [Rows.selection((~is_rest).flatten().nonzero().squeeze(1), count_in=frames * per_frame)]
    for start, stop in itertools.pairwise(bounds.tolist()):
        length = stop - start
        quota = context * length // -(-length // method.p)
        if quota > left:
            raise ConfigError(f"the released code fails: an anchor frame has {left} tokens left for {quota} anchors")
        for frame in range(start, stop) if quota else ():
            if (stop - 1 - frame) % method.p:
                continue
            chosen = scores[frame].topk(quota).indices
            nearest = (direction[start:stop].flatten(0, 1) @ direction[frame, chosen].T).argmax(dim=1)
            members = flat[start:stop].flatten()
            parts.append(_absorb(flat[frame, chosen], members, nearest, method.beta, frames * per_frame))
    return parts


def share_first(total: int, bins: int) -> NDArray[np.int64]:
    """Share evenly; the first bins get the remainder."""
    share = np.full(bins, total // bins)
    share[: total % bins] += 1
    return share


def _absorb(anchors: Tensor, members: Tensor, nearest: Tensor, beta: float, count_in: int) -> Rows:
    """Merge into anchors of weight ``max(1 / (n + 1), beta)`` the n tokens that each takes in."""
    joined = torch.zeros(len(anchors), dtype=torch.float32, device=anchors.device)
    joined.index_add_(0, nearest, torch.ones_like(nearest, dtype=torch.float32))
    own = (1 / (joined + 1)).clamp(min=beta)
    other = (1 - own) / joined.clamp(min=1)
    return Rows(
        keep=anchors,
        row=torch.cat((torch.arange(len(anchors), device=anchors.device), nearest)),
        col=torch.cat((anchors, members)),
        weight=torch.cat((own, other[nearest])),
        count_in=count_in,
    )
