"""Evidence that InfoMerge decides from: measured where the tokens are, and fetched with one wait where shapes allow it.

On an accelerator the host would wait three times: for the transitions that cut the segments, for what is measured in
segments, and for the scores of the tokens that segments do not select. In fixed, padded shapes the device cuts the
segments itself and foresees which tokens are salient, so that all of it is one function of the tokens, fetched once.
The host cuts and selects again by its own rules; a score that was foreseen for other tokens is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ShapeError
from compress.infomerge.ats import foresee_salient
from compress.infomerge.caba import (
    Richness,
    finish_richness,
    mean_weights,
    measure_richness,
    uniqueness,
    weighted_uniqueness,
)
from compress.infomerge.dyseg import cut_segments, segment_members_there, transitions
from compress.infomerge.tfd import (
    RESOLUTION,
    Change,
    segment_weights,
    static_count,
    temporal_feature_difference,
    weighted_difference,
)
from compress.ops.density_peaks import log_peak_scores
from compress.ops.graphs import fetch, recordable
from compress.ops.spectral_entropy import sketch_spectra
from compress.ops.transfer import on_host

PADDED_FRAMES = 64
"""Frames up to which segments are padded: there are as many of them as frames, and weights grow with the cube."""

PADDED_ELEMENTS = 2**25
"""Elements of the tokens, or of their similarities within frames, up to which they are: 128 MB in float32."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be measured; the fields are those of `InfoMerge`, resolved.

    Attributes:
        c: least number of segments.
        tau_seg: transitions below it begin a segment.
        tfd: which change counts.
        richness: how spectral entropy is measured.
        rho: share of the positions that count as static.
        lam: penalty on static repeats.
        salient: T_s, tokens of each frame.
        neighbours: of a density; 0 where no token can become an anchor.
        substitute: whether density peaks are found among tokens that the mean of their position may replace.
    """

    c: int
    tau_seg: float
    tfd: Change
    richness: Richness
    rho: float
    lam: float
    salient: int
    neighbours: int
    substitute: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Foreseen:
    """Scores of all tokens as possible anchors, and what they depend on.

    Attributes:
        salient: bool (L, N), tokens that were left out.
        replaced: bool (L, N), tokens scored as the mean of their position.
        scores: float64 (L, N).
    """

    salient: NDArray[np.bool_]
    replaced: NDArray[np.bool_]
    scores: NDArray[np.float64]

    def of(
        self, frame: NDArray[np.int64], salient: NDArray[np.bool_], replaced: NDArray[np.bool_]
    ) -> NDArray[np.float64] | None:
        """Return the scores of frames, (F, N), or None if one of them was foreseen wrongly."""
        right = (self.salient[frame] == salient[frame]).all() and (self.replaced[frame] == replaced[frame]).all()
        return self.scores[frame] if right else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What was measured, on the host in float64.

    Attributes:
        transitions: (L - 1,).
        saliency: (L, N).
        bounds: int64 (K + 1,), where segments begin.
        difference: (K, N), TFD.
        uniqueness: (K,).
        spectra: what `finish_richness` takes.
        foreseen: None where the host was waited for in between.
    """

    transitions: NDArray[np.float64]
    saliency: NDArray[np.float64]
    bounds: NDArray[np.int64]
    difference: NDArray[np.float64]
    uniqueness: NDArray[np.float64]
    spectra: Sequence[NDArray[np.float64]]
    foreseen: Foreseen | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """P_k, int64 (K,)."""
        return np.diff(self.bounds)

    def richness(self, shape: tuple[int, ...], *, how: Richness, normalise: bool) -> NDArray[np.float64]:
        """Return e_k of tokens of a ``shape`` (L, N, D)."""
        return finish_richness(
            self.spectra, self.lengths, per_frame=shape[1], width=shape[2], richness=how, normalise=normalise
        )


def gather_evidence(tokens: Tensor, saliency: Tensor, frame_features: Tensor, question: Question) -> Evidence:
    """Measure what InfoMerge decides from.

    Args:
        tokens: (L, N, D), any float dtype.
        saliency: (L, N).
        frame_features: (L, Dg).
        question: what.

    Raises:
        ShapeError: something is not finite.
    """
    if _fits(tokens, question):
        t, saliency_host, difference, u, salient, replaced, scores, *spectra = fetch(
            _measure_padded, (tokens, saliency, frame_features), question=question
        )
        bounds = _cut(t, saliency_host, question)
        count = len(bounds) - 1
        foreseen = None
        if scores.size:
            foreseen = Foreseen(salient=salient.astype(bool), replaced=replaced.astype(bool), scores=scores)
        difference, u, spectra = difference[:count], u[:count], [part[:count] for part in spectra]
    else:
        t, saliency_host = on_host(transitions(frame_features), saliency)
        bounds = _cut(t, saliency_host, question)
        difference, u, *spectra = on_host(
            temporal_feature_difference(tokens, bounds, over=question.tfd),
            uniqueness(tokens, bounds),
            *measure_richness(tokens, bounds, question.richness),
        )
        foreseen = None
    if not np.isfinite(u).all():
        raise ShapeError(f"tokens of segments {np.flatnonzero(~np.isfinite(u)).tolist()} hold NaN or infinity")
    return Evidence(
        transitions=t,
        saliency=saliency_host,
        bounds=bounds,
        difference=difference,
        uniqueness=u,
        spectra=spectra,
        foreseen=foreseen,
    )


def _cut(t: NDArray[np.float64], saliency: NDArray[np.float64], question: Question) -> NDArray[np.int64]:
    if not np.isfinite(saliency).all():
        raise ShapeError("saliency holds NaN or infinity; all values must be finite")
    return cut_segments(t, c=question.c, tau_seg=question.tau_seg)


def _fits(tokens: Tensor, question: Question) -> bool:
    """Whether functions are recorded where the tokens are, and these are few enough for padded shapes."""
    frames, per_frame, width = tokens.shape
    small = 1 < frames <= PADDED_FRAMES and frames * per_frame * max(width, per_frame) <= PADDED_ELEMENTS
    return small and recordable(tokens.device) and question.richness != "exact"


def _measure_padded(
    tokens: Tensor, saliency: Tensor, frame_features: Tensor, *, question: Question
) -> tuple[Tensor, ...]:
    """Measure with as many segments as frames; those beyond the real ones are empty."""
    frames, per_frame, _ = tokens.shape
    wide = tokens.float()
    t = transitions(frame_features)
    member = segment_members_there(t, c=question.c, tau_seg=question.tau_seg)
    difference = weighted_difference(wide, segment_weights(member, over=question.tfd), over=question.tfd)
    spectra: tuple[Tensor, ...] = ()
    segment = member.to(torch.uint8).argmax(dim=0)
    if question.richness == "fast":
        spectra = sketch_spectra(wide, segment, frames).tensors()

    ranked = (difference.double() * RESOLUTION).round().sort(dim=1, stable=True).indices
    least = torch.zeros_like(difference, dtype=torch.bool)
    least = least.scatter(1, ranked[:, : static_count(question.rho, per_frame)], True)
    static = (least & (member.sum(dim=1) > 1)[:, None]).index_select(0, segment)
    salient, replaced = foresee_salient(saliency, static, member, count=question.salient, lam=question.lam)
    scores = difference.new_zeros(0)
    if question.neighbours:
        seen = wide
        if question.substitute:
            share = member.float() / member.sum(dim=1, keepdim=True).clamp_min(1)
            means = (share @ wide.flatten(1)).index_select(0, segment)
            seen = torch.where(replaced[..., None], means.view_as(wide), wide)
        else:
            replaced = torch.zeros_like(replaced)
        scores = log_peak_scores(seen, ~salient, neighbours=question.neighbours)
    u = weighted_uniqueness(wide, mean_weights(member, per_frame))
    return t, saliency, difference, u, salient, replaced, scores, *spectra
