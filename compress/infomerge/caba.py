"""CABA: allocation of more context tokens to unusual and rich segments (InfoMerge, eqs. 3-9)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from compress.infomerge.dyseg import group_segments, segment_members
from compress.ops.similarity import NORM_FLOOR
from compress.ops.spectral_entropy import exact_entropy, finish_entropy, sketch_spectra
from compress.ops.transfer import moved, on_device

Richness = Literal["exact", "fast", "off"]

SKETCH_FRAMES = 64
"""Frames that an accelerator sketches at once; the CPU takes one segment at a time."""

SMALLEST_SPREAD = 1e-12


def uniqueness(tokens: Tensor, bounds: NDArray[np.int64]) -> Tensor:
    """Compute u_k = 1 - cos(mean of segment, mean of video) (eqs. 3-5).

    It is formed as half the squared difference of the two directions, which avoids cancellation: typical values are
    0.02-0.14.

    Args:
        tokens: (L, N, D), any float dtype.
        bounds: int64 (K + 1,), where segments begin.

    Returns:
        float32 (K,), in [0, 2].
    """
    weights = mean_weights(segment_members(bounds), tokens.shape[1])
    return weighted_uniqueness(tokens, moved(weights, tokens.device))


def mean_weights(member: Tensor, per_frame: int) -> Tensor:
    """Weigh the sums of frames so that they give the means over segments and, last, over the video.

    Args:
        member: bool (K, L), the frames of each segment; one without frames gets no weights.
        per_frame: N.

    Returns:
        float32 (K + 1, L), where the members are.
    """
    rows = torch.nn.functional.pad(member, (0, 0, 0, 1), value=True).double()
    return (rows / rows.sum(dim=1, keepdim=True).clamp_min(1)).float() / per_frame


def weighted_uniqueness(tokens: Tensor, weights: Tensor) -> Tensor:
    """Compute u_k as `uniqueness` does, float32 (K,); what a segment without frames gets means nothing.

    Args:
        tokens: (L, N, D), any float dtype.
        weights: from `mean_weights`.
    """
    mean = weights @ tokens.sum(dim=1, dtype=torch.float32)
    norm = torch.linalg.vector_norm(mean, dim=1, keepdim=True)
    missing = norm < NORM_FLOOR
    direction = mean / norm.masked_fill(missing, torch.inf)
    distance: Tensor = torch.linalg.vector_norm(direction[:-1] - direction[-1:], dim=1)
    # A mean without direction has cosine 0 with everything, so each such mean contributes one half.
    u: Tensor = 0.5 * (distance.square() + missing[:-1, 0] + missing[-1])
    return u


def measure_richness(tokens: Tensor, bounds: NDArray[np.int64], richness: Richness) -> tuple[Tensor, ...]:
    """Compute what `finish_richness` needs, so that what runs on a device is fetched only once.

    Args:
        tokens: (L, N, D), any float dtype.
        bounds: int64 (K + 1,), where segments begin.
        richness: how.
    """
    if richness == "exact":
        return (torch.stack([exact_entropy(tokens[a:b].flatten(0, 1)) for a, b in itertools.pairwise(bounds)]),)
    return _sketch(tokens, bounds) if richness == "fast" else ()


def finish_richness(
    fetched: Sequence[NDArray[np.float64]],
    lengths: NDArray[np.int64],
    *,
    per_frame: int,
    width: int,
    richness: Richness,
    normalise: bool,
) -> NDArray[np.float64]:
    """Return e_k (eqs. 6-7), in nats or over ``ln min(P N, D)``; 0 for a segment of a single token.

    Args:
        fetched: what `measure_richness` returns, on the host.
        lengths: P_k, (K,).
        per_frame: N.
        width: D.
        richness: how it was measured.
        normalise: divide by the largest possible entropy.
    """
    if richness == "off":
        return np.zeros(len(lengths))
    entropy = fetched[0] if richness == "exact" else finish_entropy(*fetched)
    if not normalise:
        return entropy
    largest = np.log(np.maximum(np.minimum(lengths * per_frame, width), 1))
    return np.asarray(np.divide(entropy, largest, out=np.zeros_like(entropy), where=largest > 0))


def _sketch(tokens: Tensor, bounds: NDArray[np.int64]) -> tuple[Tensor, ...]:
    """Sketch all segments; on the CPU without a copy of the whole video in float32."""
    together = SKETCH_FRAMES if tokens.device.type != "cpu" else 0
    sketches = []
    for first, last in group_segments(bounds, frames=together):
        blocks = tokens[int(bounds[first]) : int(bounds[last])]
        segment = np.repeat(np.arange(last - first), np.diff(bounds[first : last + 1]))
        if last - first == 1:
            blocks = blocks.reshape(1, -1, blocks.shape[2])
        single = len(blocks) == last - first
        there = None if single else on_device(segment, tokens.device)
        sketches.append(sketch_spectra(blocks, there, last - first).tensors())
    return tuple(torch.cat(parts) for parts in zip(*sketches, strict=True))


def z_scores(values: NDArray[np.float64], *, ddof: int) -> NDArray[np.float64]:
    """Return (v - mean) / std over the segments; 0 for fewer than two segments or no spread."""
    if len(values) < 2 or (spread := float(values.std(ddof=ddof))) < SMALLEST_SPREAD:
        return np.zeros(len(values))
    return np.asarray((values - values.mean()) / spread)


def context_weights(
    u: NDArray[np.float64],
    e: NDArray[np.float64],
    lengths: NDArray[np.int64],
    *,
    tau: float,
    alpha: float,
    beta: float,
    ddof: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute m_k = alpha z(u_k) + beta z(e_k) (eq. 27) and w_k = sigmoid(tau m_k) P_k (eq. 28)."""
    m = alpha * z_scores(u, ddof=ddof) + beta * z_scores(e, ddof=ddof)
    return m, expit(tau * m) * lengths
