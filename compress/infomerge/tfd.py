"""TFD: change of the token at a position over a segment (InfoMerge, eqs. 1-2)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.budget import floor_guarded
from compress.infomerge.dyseg import group_segments, segment_members
from compress.ops.similarity import NORM_FLOOR
from compress.ops.transfer import moved

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
    parts = []
    for first, last in group_segments(bounds, frames=CHUNK_FRAMES):
        frames = tokens[int(bounds[first]) : int(bounds[last])]
        weights = segment_weights(segment_members(bounds[first : last + 1]), over=over)
        parts.append(weighted_difference(frames, moved(weights, tokens.device), over=over))
    return torch.cat(parts)


def weighted_difference(frames: Tensor, weights: Tensor, *, over: Change) -> Tensor:
    """Compute the TFD of segments that are taken together.

    Args:
        frames: (C, N, D), any float dtype.
        weights: `segment_weights` of the K segments.
        over: see `temporal_feature_difference`.

    Returns:
        float32 (K, N).
    """
    step = max(1, TILE // len(frames) ** 2)
    columns = [_difference(part, weights, over) for part in torch.split(frames, step, dim=1)]
    return torch.cat(columns, dim=1)


def segment_weights(member: Tensor, *, over: Change) -> Tensor:
    """Weigh changes between frames so that their sum is the TFD of a segment.

    Args:
        member: bool (K, C), the frames of each segment; one without frames gets no weights.
        over: see `temporal_feature_difference`.

    Returns:
        float32 (changes, K), where the members are.
    """
    return _segment_weights(member) if over == "segment" else _adjacent_weights(member)


def _segment_weights(member: Tensor) -> Tensor:
    """Weigh |F(i + 1, j) - F(i, j)| in each segment (eq. 2), float32 ((C - 1) * C, K)."""
    lengths = member.sum(dim=1)
    follows = (member[:, 1:] & member[:, :-1]).T
    together = (follows[:, None] & member.T).double() / ((lengths - 1).clamp_min(1) * lengths.clamp_min(1))
    return together.float().reshape(-1, len(member))


def _adjacent_weights(member: Tensor) -> Tensor:
    """Weigh 1 - F(i, j) in each segment: the mean over windows of means over pairs, (C * C, K)."""
    lengths = member.sum(dim=1, keepdim=True)
    begin = member.to(torch.uint8).argmax(dim=1, keepdim=True)
    window = (torch.arange(member.shape[1], device=member.device) - begin).div(WINDOW, rounding_mode="floor")
    follows = member[:, 1:] & member[:, :-1] & (window[:, 1:] == window[:, :-1])
    pairs = (lengths - window[:, :-1] * WINDOW).clamp_max(WINDOW) - 1
    windows = lengths // WINDOW + (lengths % WINDOW > 1)
    value = (follows.double() / torch.where(follows, pairs * windows, 1)).float()
    return value.diag_embed(offset=1).permute(1, 2, 0).reshape(-1, len(member))


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


def static_count(rho: float, per_frame: int) -> int:
    """Return ``floor(rho N)``, how many positions count as static."""
    return floor_guarded(rho * per_frame)


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
    count = static_count(rho, difference.shape[1])
    keys = [np.round(difference * RESOLUTION)]
    if preference is not None:
        keys.insert(0, -preference)
    order = np.lexsort(keys, axis=1)[:, :count]
    static = np.zeros(difference.shape, dtype=bool)
    np.put_along_axis(static, order, True, axis=1)
    return static & (lengths > 1)[:, None]
