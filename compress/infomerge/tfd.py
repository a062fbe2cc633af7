"""TFD: change of the token at a position over a segment (InfoMerge, eqs. 1-2)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.budget import floor_guarded
from compress.infomerge.dyseg import group_segments
from compress.ops.similarity import NORM_FLOOR
from compress.ops.transfer import on_device

Change = Literal["segment", "adjacent"]

WINDOW = 4
"""Frames of a window of adjacent differences."""

CHUNK_FRAMES = 64
"""Segments are taken together up to this many frames: few launches, and cost linear in the number of frames."""

TILE = 2**24
"""Similarities held at a time: 64 MB."""

RESOLUTION = 2**20
"""Differences are ranked in steps of 2^-20: positions that do not change at all tie."""


def temporal_feature_difference(tokens: Tensor, bounds: NDArray[np.int64], *, over: Change = "segment") -> Tensor:
    """Compute the TFD of every position in every segment.

    Similarities are formed and kept in float32: differences of static positions are 1e-5 to 1e-3, below the step
    of bfloat16 near 1, so rounding tokens' directions or their similarities to it would scramble the order.

    Args:
        tokens: (L, N, D), any float dtype.
        bounds: int64 (K + 1,), where segments begin.
        over: change of a token's similarity to every frame of the ``segment``, or (Table 5 of the paper) one minus
            that of ``adjacent`` frames, in means over windows of `WINDOW` frames.

    Returns:
        float32 (K, N), in [0, 2]; 0 for a segment of one frame, where it is not defined.
    """
    weigh = _segment_weights if over == "segment" else _adjacent_weights
    parts = []
    for first, last in group_segments(bounds, frames=CHUNK_FRAMES):
        frames = tokens[int(bounds[first]) : int(bounds[last])]
        weights = on_device(weigh(np.diff(bounds[first : last + 1])), tokens.device)
        step = max(1, TILE // len(frames) ** 2)
        columns = [_difference(part, weights, over) for part in torch.split(frames, step, dim=1)]
        parts.append(torch.cat(columns, dim=1))
    return torch.cat(parts)


def _segment_weights(lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weigh |F(i + 1, j) - F(i, j)| in each segment (eq. 2), float32 ((C - 1) * C, count)."""
    segment = np.repeat(np.arange(len(lengths)), lengths)
    owner = np.where(segment[1:] == segment[:-1], segment[1:], -1)
    together = (owner[:, None] == segment)[..., None] & (segment[:, None] == np.arange(len(lengths)))
    weights: NDArray[np.float64] = together / (np.maximum(lengths - 1, 1) * lengths)
    return weights.astype(np.float32).reshape(-1, len(lengths))


def _adjacent_weights(lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weigh 1 - F(i, j) in each segment: the mean over windows of means over pairs, (C * C, count)."""
    count = int(lengths.sum())
    segment = np.repeat(np.arange(len(lengths)), lengths)
    local = np.arange(count) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    window = local // WINDOW
    frame = np.flatnonzero((segment[1:] == segment[:-1]) & (window[1:] == window[:-1]))
    owner, windows = segment[frame], lengths // WINDOW + (lengths % WINDOW > 1)
    pairs = np.minimum(WINDOW, lengths[owner] - window[frame] * WINDOW) - 1
    weights = np.zeros((count, count, len(lengths)), np.float32)
    weights[frame, frame + 1, owner] = 1 / (pairs * windows[owner])
    return weights.reshape(-1, len(lengths))


def _difference(frames: Tensor, weights: Tensor, over: Change) -> Tensor:
    """Compute the TFD (count, n) of frames (C, n, D) in consecutive segments."""
    by_position = frames.transpose(0, 1).float()
    gram = by_position @ by_position.mT
    norm = gram.diagonal(dim1=1, dim2=2).sqrt()
    inverse = 1 / norm.masked_fill(norm < NORM_FLOOR, torch.inf)
    similarity = (gram * inverse[:, :, None] * inverse[:, None, :]).clamp_(-1, 1)
    similarity.diagonal(dim1=1, dim2=2).fill_(1)
    change = (similarity[:, 1:] - similarity[:, :-1]).abs_() if over == "segment" else 1 - similarity
    return (change.flatten(1) @ weights).T


def static_positions(
    difference: NDArray[np.float64],
    lengths: NDArray[np.int64],
    *,
    rho: float,
    preference: NDArray[np.float64] | None = None,
) -> NDArray[np.bool_]:
    """Find the ``floor(rho N)`` positions of each segment that change least; none in a segment of one frame.

    Args:
        difference: (K, N), TFD on the host.
        lengths: (K,), frames of each segment.
        rho: share of the positions.
        preference: (K, N), of equal positions the ones with the highest come first; None for the lowest position.

    Returns:
        bool (K, N).
    """
    count = floor_guarded(rho * difference.shape[1])
    keys = [np.round(difference * RESOLUTION)]
    if preference is not None:
        keys.insert(0, -preference)
    order = np.lexsort(keys, axis=1)[:, :count]
    static = np.zeros(difference.shape, dtype=bool)
    np.put_along_axis(static, order, True, axis=1)
    return static & (lengths > 1)[:, None]
