"""FlashVID: attended and diverse tokens of every frame, and trees of what repeats over time (ICLR 2026).

The reference follows the released code (Fanziyang-v/FlashVID, MIT).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.baselines.baseline import Choice, FrameBudgets, Published, saliency_of, saliency_source
from compress.baselines.diversity import Calibration, pick_diverse
from compress.baselines.noise import Noise, released_clusters
from compress.baselines.redundancy_trees import Trees, grow_trees
from compress.baselines.rows import Rows
from compress.budget import allocate
from compress.errors import ConfigError, ShapeError
from compress.infomerge.dyseg import transitions
from compress.ops.density_peaks import cluster_by_peaks
from compress.ops.similarity import check_all_finite
from compress.ops.transfer import on_device, on_host
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import Compression, Segment, Signals

KINDS = ("selected", "merged")

NEIGHBOURS = 7

PUBLISHED_CUT = 20 / 28
"""Where the cut inside the language model is published to be: before layer 20 of the 28 of Qwen2-7B."""


@dataclass(frozen=True, kw_only=True)
class FlashVID(Published, FrameBudgets):
    """Selection of the share alpha of a frame's budget by attention and diversity; the rest merges in trees.

    Every other token is linked to its best match in the frame before; links above tau_t collapse into the first frame's
    token, and what is left of a frame is clustered by density peaks.

    The paper's r is an average over the language model's layers: the layers before its own cut see ``expansion`` times
    as many tokens. Here ``retention`` is the share that enters the language model; only the reference expands it.
    `FlashVIDInner` is the cut inside.

    Fixed, counts are exact, a token is picked once, trees leave as means of all that they hold, and the tokens picked
    in a segment of one frame are not clustered again.

    Attributes:
        tau_s: transitions below it begin a segment.
        c: least number of segments (4 for Qwen2.5-VL and Qwen3-VL).
        complementary: fill up to ``c`` segments at the next lowest transitions.
        selection: ``v2`` weighs diversity by attention and relevance to the segment, ``v1`` by attention only (Qwen).
        alpha: share of the budget that is selected, in [0, 1].
        tau_t: similarity above which a token joins a tree, in [-1, 1).
        expansion: e, of the reference's retention.
    """

    tau_s: float = 0.9
    c: int = 8
    complementary: bool = True
    selection: Literal["v2", "v1"] = "v2"
    alpha: float = 0.7
    tau_t: float = 0.8
    expansion: float = 1.25
    name: ClassVar[str] = "flashvid"
    reads: ClassVar[tuple[str, ...]] = ("saliency",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("selection", ("v2", "v1"))
        for name, low, high in (("tau_s", -1, 1 + 1e-6), ("c", 1, 2**31), ("alpha", 0, 1), ("expansion", 0, 100)):
            self._check_range(name, low, high)
        if not -1 <= self.tau_t < 1:
            raise ConfigError(f"tau_t is {self.tau_t}; allowed is [-1, 1)")

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        granted, sources = self.budgets(tokens, signals)
        total = tokens.sum(dim=1, dtype=torch.float32)
        (t,) = on_host(transitions(total))
        bounds = self._segments(t)
        quota = np.ceil(granted * self.alpha - 1e-9).astype(np.int64)
        saliency = saliency_of(tokens, signals)
        calibration = Calibration.of(tokens, saliency, bounds, total=total, relevance=self.selection == "v2")
        chosen = pick_diverse(tokens, calibration, quota)
        free = torch.ones((frames, per_frame), dtype=torch.bool, device=tokens.device)
        free.view(-1).index_fill_(0, chosen, False)
        parts, segments = [(chosen, chosen, torch.ones_like(chosen, dtype=torch.float32))], []
        for start, stop in itertools.pairwise(bounds.tolist()):
            wanted = int((granted[start:stop] - quota[start:stop]).sum())
            segments.append(
                Segment(start=start, frames=stop - start, salient=int(quota[start:stop].sum()), context=wanted)
            )
            if wanted:
                trees = grow_trees(
                    tokens[start:stop], free[start:stop], tau=self.tau_t, least=int(granted[start:stop].sum())
                )
                parts.append(_cluster_trees(tokens[start:stop], trees, wanted, offset=start * per_frame))
        anchor, member, weight = (torch.cat([part[i] for part in parts]) for i in range(3))
        keep = anchor[anchor == member].sort().values  # every anchor is among its own members
        kind = torch.ones(len(keep), dtype=torch.uint8, device=keep.device)
        kind.index_fill_(0, torch.searchsorted(keep, chosen), 0)
        plan = MergePlan.from_entries(
            torch.searchsorted(keep, anchor), member, weight, keep=keep, count_in=frames * per_frame
        )
        return Choice(
            plan=plan,
            kind=kind,
            kinds=KINDS,
            frame_budgets=granted,
            segments=tuple(segments),
            sources={**self._sources_of(signals), **sources},
            diagnostics={"transitions": t},
        )

    def _segments(self, similarity: NDArray[np.floating], *, repeat: bool = False) -> NDArray[np.int64]:
        """Return where segments begin, int64 (K + 1,): below ``tau_s``, filled up to ``c`` at the lowest transitions.

        Args:
            similarity: (T - 1,).
            repeat: as in the released code a cut may be taken again, which makes a segment of length 0.
        """
        below = np.flatnonzero(similarity < self.tau_s)
        missing = self.c - len(below) - 1
        if missing > 0 and self.complementary:
            other = np.where(similarity < self.tau_s, 1.0 if repeat else np.inf, similarity)
            if repeat:
                more = torch.from_numpy(other).topk(min(missing, len(other)), largest=False).indices.numpy()
            else:
                more = np.argsort(other, kind="stable")[: min(missing, len(other) - len(below))]
            below = np.sort(np.concatenate((below, more)))
        return np.concatenate(([0], below + 1, [len(similarity) + 1])).astype(np.int64)

    def _sources_of(self, signals: Signals) -> dict[str, str]:
        return {"saliency": saliency_source(signals)}

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`."""
        frames, per_frame, _ = tokens.shape
        budget = math.ceil(per_frame * self.retention * self.expansion)
        quota = math.ceil(budget * self.alpha)
        if budget >= per_frame and frames > 1:
            raise ConfigError(
                "the released code fails where retention x expansion reaches 1; "
                f"it is {self.retention * self.expansion:g}"
            )
        wide, saliency, draws = tokens.float(), saliency_of(tokens, signals), Noise(noise)
        features = wide.mean(dim=1)
        features = features / features.norm(p=2, dim=1, keepdim=True)
        similarity = (features[:-1] * features[1:]).sum(dim=1).cpu().numpy()
        parts = []
        for start, stop in itertools.pairwise(self._segments(similarity, repeat=True).tolist()):
            if start < stop:
                segment = wide[start:stop]
                parts.append(self._released_segment(segment, saliency[start:stop], budget, quota, draws, frames, start))
        joined = Rows.joined(parts, count_in=frames * per_frame)
        return joined.ordered(joined.keep.argsort(stable=True))

    def _released_segment(
        self, tokens: Tensor, saliency: Tensor, budget: int, quota: int, noise: Noise, frames: int, start: int
    ) -> Rows:
        """Compress one segment: what was selected, and the clusters of the rest of its trees."""
        length, per_frame, _ = tokens.shape
        offset, total = start * per_frame, frames * per_frame
        free = torch.ones((length, per_frame), dtype=torch.bool, device=tokens.device)
        parts = []
        if quota:
            calibration = Calibration.released(tokens, saliency, relevance=self.selection == "v2")
            picked = calibration.pick_as_released(tokens, quota, repeat=self.selection == "v2")
            free.scatter_(1, picked, False)
            places = torch.arange(length, device=tokens.device)[:, None] * per_frame + picked
            parts.append(Rows.selection(offset + places.flatten(), count_in=total))
        if budget > quota:
            # A segment of one frame is clustered whole, with the tokens that were picked.
            trees = grow_trees(tokens, free, tau=self.tau_t, least=budget * length, released=True)
            parts += _released_clusters(tokens, trees, (budget - quota) * length, noise, offset=offset, count_in=total)
        return Rows.joined(parts, count_in=total)


def _cluster_trees(tokens: Tensor, trees: Trees, wanted: int, *, offset: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cluster the roots of each frame: anchor and member of every entry, flat in the video, and its weight."""
    per_frame = tokens.shape[1]
    (is_root,) = on_host(trees.is_root.to(torch.float32))
    held = is_root.sum(axis=1).astype(np.int64)
    least = held > 0
    clusters = allocate(held, wanted, lower=least if least.sum() <= wanted else 0, upper=held)
    values = trees.values(tokens)
    centre_of = torch.arange(trees.root.numel(), device=tokens.device)
    roots, ends = trees.roots, np.cumsum(held)
    for f in np.flatnonzero((clusters > 0) & (clusters < held)).tolist():
        mine = slice(int(ends[f] - held[f]), int(ends[f]))
        members, features = roots[mine], values[mine]
        centres, nearest = cluster_by_peaks(features, int(clusters[f]), neighbours=NEIGHBOURS)
        centre_of[members] = members[centres[nearest]]
    empty = on_device(clusters == 0, tokens.device).repeat_interleave(per_frame)
    root = trees.root.flatten()
    member = ((root >= 0) & ~empty[root.clamp_min(0)]).nonzero().squeeze(1)
    of_root = root[member]
    anchor = centre_of[of_root]
    # A cluster is the plain mean of its trees, each the mean of what it holds.
    size = torch.zeros(root.numel(), dtype=torch.float32, device=tokens.device)
    size.index_add_(0, centre_of, trees.is_root.flatten().to(torch.float32))
    return offset + anchor, offset + member, 1 / (trees.size.flatten()[of_root] * size[anchor])


def _ones(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.float32)


def _released_clusters(
    tokens: Tensor, trees: Trees, wanted: int, noise: Noise, *, offset: int, count_in: int
) -> list[Rows]:
    """Cluster with the released divisor of trees and counts that are rounded up in every frame."""
    length, per_frame, _ = tokens.shape
    values = trees.values(tokens)
    left = int(trees.is_root.sum())
    if not left:
        raise ConfigError("the released code fails: no token is left to cluster")
    ratio = wanted / left
    root, divisor, roots = trees.root.flatten(), trees.divisor.flatten(), trees.roots
    parts = []
    for frame in range(length):
        members = trees.is_root[frame].nonzero().squeeze(1)
        clusters = math.ceil(len(members) * ratio)
        if not clusters:
            continue
        centre = members
        nearest = torch.arange(len(members), device=tokens.device)
        if ratio < 1:
            features = values[torch.searchsorted(roots, frame * per_frame + members)]
            picked, nearest = released_clusters(features, clusters, neighbours=min(clusters, NEIGHBOURS), noise=noise)
            centre = members[picked]
        cluster_of = torch.full((length * per_frame,), -1, dtype=torch.int64, device=tokens.device)
        cluster_of[frame * per_frame + members] = nearest
        row = torch.where(root >= 0, cluster_of[root.clamp_min(0)], -1)
        member = (row >= 0).nonzero().squeeze(1)
        size = torch.zeros(len(centre), dtype=torch.float32, device=tokens.device)
        size.index_add_(0, nearest, _ones(nearest))
        parts.append(
            Rows(
                keep=offset + frame * per_frame + centre,
                row=row[member],
                col=offset + member,
                weight=1 / (divisor[root[member]] * size[row[member]]),
                count_in=count_in,
                stochastic=False,
            )
        )
    return parts


@dataclass(frozen=True, kw_only=True)
class FlashVIDInner(Attachable):
    """FlashVID's cut inside the language model: the visual tokens that the last prompt token attends to most.

    Attributes:
        K: the decoder layer (from 0) before which it cuts; attention is that of the layer before. None for layer 20 of
            28, as published, in proportion to the model's depth, which `at_depth` knows.
        R: share of the visual tokens that stays, rounded up, in (0, 1].

    Raises:
        ConfigError: a field is outside its range.
    """

    K: int | None = None
    R: float = 0.3
    query: ClassVar[str] = "last"

    def __post_init__(self) -> None:
        if (self.K is not None and self.K < 1) or not 0 < self.R <= 1:
            raise ConfigError(f"K is {self.K} and R {self.R}; allowed are K >= 1 or None, and R in (0, 1]")

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The decoder layer whose attention counts; None while it depends on the model."""
        return None if self.K is None else (self.K - 1,)

    @property
    def merge_layer(self) -> int | None:
        """The decoder layer before which it cuts; None while it depends on the model."""
        return self.K

    def at_depth(self, depth: int, *, first: int = 1) -> FlashVIDInner:
        """Return this method with its layer chosen for a decoder of ``depth`` layers, of which ``first`` is the first
        before which tokens may be cut.
        """
        return self if self.K is not None else replace(self, K=max(first, round(PUBLISHED_CUT * depth)))

    @planned
    def inside_llm(self, scores: Tensor, hidden: Tensor) -> Compression:
        """Keep ``ceil(R n)`` of n visual tokens.

        Args:
            scores: (1, n) or (n,), attention received from the last prompt token, mean over heads.
            hidden: (n, D), the residual stream.

        Raises:
            ShapeError: sizes do not match, or scores are not finite.
        """
        count = len(hidden)
        if scores.shape not in ((count,), (1, count)):
            raise ShapeError(f"scores have shape {tuple(scores.shape)}; {count} tokens take {(1, count)}")
        kept = math.ceil(count * self.R - 1e-9)
        check_all_finite({"scores of visual tokens": scores.reshape(-1, 1).float()})
        order = scores.reshape(-1).float().sort(descending=True, stable=True).indices
        plan = MergePlan.selection(order[:kept].sort().values, count_in=count)
        return Compression(method="flashvid-inner", plan=plan, frames=0, nominal=kept)
