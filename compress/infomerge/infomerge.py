"""InfoMerge: segments, salient tokens without static repeats, and more context tokens for the richest segments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.budget import check_retention, count_tokens
from compress.errors import ConfigError, ShapeError
from compress.infomerge.assembly import KINDS, PositionMeans, assemble, collect_pool
from compress.infomerge.ats import select_salient, substituted_tokens
from compress.infomerge.caba import Richness, context_weights
from compress.infomerge.dtm import (
    AnchorFrames,
    AnchorFrom,
    Assignment,
    assign_tokens,
    group_anchors,
    pick_anchors,
    schedule_anchor_frames,
    score_candidates,
)
from compress.infomerge.evidence import Foreseen, Question, gather_evidence
from compress.infomerge.shares import BudgetMode, SalientRounding, Shares, share_context, split_budget
from compress.infomerge.tfd import Change, static_positions
from compress.ops.saliency import distance_to_frame_mean
from compress.ops.transfer import on_device, on_device_together, on_host
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import Compression, Positions, Segment, Signals, check_tokens

TABLE_7: Final = {
    0.05: {"tau": 2.0, "rho": 0.05, "lam": 12.0, "alpha": 0.9, "beta": 0.1},
    0.10: {"tau": 1.2, "rho": 0.10, "lam": 12.0, "alpha": 0.9, "beta": 0.1},
    0.15: {"tau": 1.2, "rho": 0.09, "lam": 12.0, "alpha": 0.9, "beta": 0.1},
}
"""The paper's hyper-parameters by retention; any other retention takes the nearest row's."""

DtmFeatures = Literal["substituted", "original"]
Tie = Literal["position", "saliency"]


@dataclass(frozen=True, kw_only=True)
class InfoMerge(Attachable):
    """InfoMerge (arXiv 2606.02161) before the language model; every retention in (0, 1], every number of frames.

    A field left at None takes the value of the row of `TABLE_7` nearest to the retention. With
    ``alpha=beta=rho=0`` and ``budget="fastvid"`` this is FastVID's LLaVA-Video variant where d times a frame's budget
    is a whole number (15 % of 169 tokens); see `compress.baselines.FastVID` for all others.

    Attributes:
        retention: r, share of the tokens that leave, in (0, 1].
        tau: sharpness of CABA's weights, at least 0.
        rho: share of a segment's positions that count as static, in [0, 1].
        lam: lambda, ATS's penalty on static repeats in spreads of saliency, at least 0; infinity for a hard mask.
        alpha: weight of a segment's uniqueness.
        beta: weight of its richness.
        c: least number of segments.
        tau_seg: transitions below it begin a segment.
        d: share of the budget for context tokens, in [0, 1].
        p: anchor interval in frames.
        k_nn: neighbours of a density, the token itself included.
        mu: weight of an anchor that takes tokens in, in [0, 1].
        budget: ``exact`` meets ``round(r L N)``; ``paper`` and ``fastvid`` round as those do.
        salient_rounding: how ``exact`` rounds salient tokens per frame.
        richness: spectral entropy ``exact``, ``fast`` (within 1 %), or ``off``.
        normalise: divide a segment's entropy by its largest possible value (eq. 7).
        ddof: 1 or 0, of the standard deviation in CABA's z-scores.
        tfd: static positions are those that change least against every frame of the ``segment`` (eq. 2), or between
            ``adjacent`` frames (the paper's Table 5).
        tie: equally static positions go by lower ``position`` or by higher mean ``saliency``.
        substitute: let static tokens leave as the mean of their position (eq. 30).
        dtm_features: whether DTM sees those means or the original tokens.
        hard_mask: keep static positions from becoming anchors twice (eq. 12).
        anchor_from: end of the segment from which anchor frames are counted.
        assignment: every anchor frame takes in all tokens of the segment, or they are shared among all its anchors.
        include_self: count an anchor among the tokens it takes in.
        positions: position ids of the tokens that leave.

    Raises:
        ConfigError: a field is outside its range.
    """

    retention: float = 0.1
    tau: float | None = None
    rho: float | None = None
    lam: float | None = None
    alpha: float | None = None
    beta: float | None = None
    c: int = 8
    tau_seg: float = 0.9
    d: float = 0.4
    p: int = 4
    k_nn: int = 4
    mu: float = 0.6
    budget: BudgetMode = "exact"
    salient_rounding: SalientRounding = "floor"
    richness: Richness = "fast"
    normalise: bool = True
    ddof: int = 1
    tfd: Change = "segment"
    tie: Tie = "position"
    substitute: bool = True
    dtm_features: DtmFeatures = "substituted"
    hard_mask: bool = True
    anchor_from: AnchorFrom = "end"
    assignment: Assignment = "per_anchor_frame"
    include_self: bool = False
    positions: Positions = "original"

    def __post_init__(self) -> None:
        check_retention(self.retention)
        for name, low, high in (
            ("tau", 0, math.inf),
            ("rho", 0, 1),
            ("lam", 0, math.inf),
            ("alpha", -math.inf, math.inf),
            ("beta", -math.inf, math.inf),
            ("c", 1, math.inf),
            ("tau_seg", -1, 1 + 1e-6),
            ("d", 0, 1),
            ("p", 1, math.inf),
            ("k_nn", 1, math.inf),
            ("mu", 0, 1),
            ("ddof", 0, 1),
        ):
            value = getattr(self, name)
            if value is not None and (not low <= value <= high or (name != "lam" and math.isinf(value))):
                raise ConfigError(f"{name} is {value}; allowed is [{low}, {high}]")
        for name, allowed in (
            ("budget", ("exact", "paper", "fastvid")),
            ("salient_rounding", ("floor", "nearest")),
            ("richness", ("exact", "fast", "off")),
            ("tfd", ("segment", "adjacent")),
            ("tie", ("position", "saliency")),
            ("dtm_features", ("substituted", "original")),
            ("anchor_from", ("end", "start")),
            ("assignment", ("per_anchor_frame", "segment_global")),
            ("positions", ("original", "contiguous")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(allowed)}")

    def parameter(self, name: Literal["tau", "rho", "lam", "alpha", "beta"]) -> float:
        """Return the field of this name, or where it is None that of the nearest row of `TABLE_7` (ties: the lower)."""
        given: float | None = getattr(self, name)
        nearest = min(TABLE_7, key=lambda row: (round(abs(row - self.retention), 9), row))
        return TABLE_7[nearest][name] if given is None else given

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that `before_llm` reads: none where every token stays, so that none is measured."""
        return () if self.retention == 1 else ("saliency", "frame_features")

    @planned
    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """Shorten the tokens of a video.

        Args:
            tokens: (L, N, D), any float dtype.
            signals: ``saliency`` (L, N) and ``frame_features`` (L, Dg); each has a fall-back, named in the result.

        Returns:
            The plan, in order of flat index, with segments, kinds and diagnostics.

        Raises:
            ShapeError: sizes do not match, or tokens or signals are not finite.
            ConfigError: the retention leaves no token.
        """
        frames, per_frame, _ = check_tokens(tokens)
        nominal = count_tokens(self.retention, frames * per_frame)
        if nominal == frames * per_frame:
            return Compression(
                method="infomerge",
                plan=MergePlan.identity(nominal, device=tokens.device),
                frames=frames,
                nominal=nominal,
                positions=self.positions,
            )
        shares = split_budget(
            frames,
            per_frame,
            retention=self.retention,
            d=self.d,
            mode=self.budget,
            salient_rounding=self.salient_rounding,
        )
        saliency, frame_features, sources = _signals_or_fallbacks(tokens, signals)
        richness: Richness = self.richness if self.parameter("beta") else "off"
        evidence = gather_evidence(tokens, saliency, frame_features, self._question(shares, per_frame, richness))
        bounds, lengths, u = evidence.bounds, evidence.lengths, evidence.uniqueness
        e = evidence.richness(tuple(tokens.shape), how=richness, normalise=self.normalise)
        parameter = self.parameter
        m, w = context_weights(
            u, e, lengths, tau=parameter("tau"), alpha=parameter("alpha"), beta=parameter("beta"), ddof=self.ddof
        )
        budgets = share_context(w, shares, lengths, per_frame, mode=self.budget)
        preference = np.add.reduceat(evidence.saliency, bounds[:-1], axis=0) / lengths[:, None]
        static = static_positions(
            evidence.difference,
            lengths,
            rho=self.parameter("rho"),
            preference=preference if self.tie == "saliency" else None,
        )
        salient = select_salient(evidence.saliency, static, bounds, count=shares.salient, lam=self.parameter("lam"))
        replaced = substituted_tokens(salient, static, bounds) & self.substitute
        plan, kind, anchors = self._merge(tokens, salient, replaced, static, budgets, bounds, evidence.foreseen)

        context = np.bincount(anchors.segment, weights=anchors.quota, minlength=len(lengths)).astype(np.int64)
        segments = tuple(
            Segment(start=int(a), frames=int(n), salient=int(n) * shares.salient, context=int(b))
            for a, n, b in zip(bounds[:-1], lengths, context, strict=True)
        )
        return Compression(
            method="infomerge",
            plan=plan,
            frames=frames,
            nominal=nominal,
            kind=on_device(kind, tokens.device),
            kinds=KINDS,
            segments=segments,
            positions=self.positions,
            sources={**sources, "richness": richness},
            diagnostics={
                "transitions": evidence.transitions,
                "tfd": evidence.difference,
                "static": static,
                "uniqueness": u,
                "richness": e,
                "m": m,
                "w": w,
                "salient_per_frame": float(shares.salient),
            },
        )

    def _question(self, shares: Shares, per_frame: int, richness: Richness) -> Question:
        """Return what is to be measured of tokens of which a frame has so many."""
        return Question(
            c=self.c,
            tau_seg=self.tau_seg,
            tfd=self.tfd,
            richness=richness,
            rho=self.parameter("rho"),
            lam=self.parameter("lam"),
            salient=shares.salient,
            neighbours=min(self.k_nn, per_frame - shares.salient) if shares.context else 0,
            substitute=self.substitute and self.dtm_features == "substituted",
        )

    def _merge(
        self,
        tokens: Tensor,
        salient: NDArray[np.bool_],
        replaced: NDArray[np.bool_],
        static: NDArray[np.bool_],
        budgets: NDArray[np.int64],
        bounds: NDArray[np.int64],
        foreseen: Foreseen | None,
    ) -> tuple[MergePlan, NDArray[np.uint8], AnchorFrames]:
        """Run DTM and assemble the plan."""
        per_frame = tokens.shape[1]
        device = tokens.device
        salient_means = PositionMeans.of(replaced & salient, bounds)
        seen = replaced if self.dtm_features == "substituted" else np.zeros_like(replaced)
        means = PositionMeans.of(seen, bounds)
        mean_features = means.features(tokens, bounds)
        mean_row = np.repeat(means.table, np.diff(bounds), axis=0)
        anchors = schedule_anchor_frames(
            budgets,
            bounds,
            candidates=per_frame - int(salient[0].sum()),
            p=self.p,
            anchor_from=self.anchor_from,
        )
        if len(anchors.frame):
            scores = None if foreseen is None else foreseen.of(anchors.frame, salient, seen)
            if scores is None:
                (scores,) = on_host(
                    score_candidates(tokens, anchors, salient, seen, mean_features, mean_row, k_nn=self.k_nn)
                )
            picked = pick_anchors(scores, anchors, salient, static, hard_mask=self.hard_mask)
        else:
            picked = np.zeros((0, per_frame), dtype=bool)
        which, position = np.nonzero(picked)
        flat = anchors.frame[which] * per_frame + position
        anchor_means = np.where(seen.ravel()[flat], mean_row.ravel()[flat], -1)

        stands = np.flatnonzero(anchor_means >= 0)
        flat_there, stands_there, row = on_device_together(flat, stands, anchor_means[stands], device=device)
        features = tokens.flatten(0, 1).index_select(0, flat_there).float()
        if stands.size:
            features.index_copy_(0, stands_there, mean_features.index_select(0, row))
        group_sizes, own = group_anchors(
            anchors, picked, bounds, assignment=self.assignment, include_self=self.include_self
        )
        assignments = assign_tokens(tokens, mean_features, means.bounds, features, bounds, group_sizes)
        pool = collect_pool(~salient, seen, own, assignments, means, bounds)
        plan, kind = assemble(
            salient,
            replaced & salient,
            salient_means,
            flat,
            anchor_means,
            means,
            pool,
            assignments,
            bounds,
            mu=self.mu,
            device=device,
        )
        return plan, kind, anchors


def _signals_or_fallbacks(tokens: Tensor, signals: Signals) -> tuple[Tensor, Tensor, dict[str, str]]:
    """Return saliency, frame features, and where each comes from."""
    frames, per_frame, _ = tokens.shape
    saliency, features = signals.saliency, signals.frame_features
    sources = {"saliency": signals.saliency_source, "frame_features": "given"}
    if saliency is None:
        saliency = distance_to_frame_mean(tokens)
        sources["saliency"] = "distance to frame mean (none given)"
    if features is None:
        features = tokens.sum(dim=1, dtype=torch.float32)
        sources["frame_features"] = "mean of tokens (none given)"
    if saliency.shape != (frames, per_frame):
        raise ShapeError(f"saliency has shape {tuple(saliency.shape)}; these tokens take {(frames, per_frame)}")
    if features.dim() != 2 or features.shape[0] != frames:
        raise ShapeError(f"frame_features have shape {tuple(features.shape)}; {frames} frames take ({frames}, Dg)")
    return saliency.to(tokens.device), features.to(tokens.device), sources
