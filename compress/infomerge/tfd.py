"""TFD: how much the token at a position changes over a segment (InfoMerge, eqs. 1-2)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.budget import floor_guarded
from compress.infomerge.dyseg import group_segments
from compress.ops.similarity import NORM_FLOOR
from compress.ops.transfer import on_device

CHUNK_FRAMES = 64
"""Segments are taken together up to this many frames: few launches, and cost linear in the number of frames."""

TILE = 2**24
"""Similarities held at a time: 64 MB."""

RESOLUTION = 2**20
"""Differences are ranked in steps of 2^-20: positions that do not change at all tie."""


def temporal_feature_difference(tokens: Tensor, bounds: NDArray[np.int64]) -> Tensor:
    """TFD of every position in every segment.

    Similarities are formed and kept in float32: differences of static positions are 1e-5 to 1e-3, below the step
    of bfloat16 near 1, so rounding tokens' directions or their similarities to it would scramble the order.

    Args:
        tokens: (L, N, D), any float dtype.
        bounds: int64 (K + 1,), where segments begin.

    Returns:
        float32 (K, N), in [0, 2]; 0 for a segment of one frame, where it is not defined.
    """
    lengths = np.diff(bounds)
    parts = []
    for first, last in group_segments(bounds, frames=CHUNK_FRAMES):
        segment = on_device(np.repeat(np.arange(last - first), lengths[first:last]), tokens.device)
        frames = tokens[int(bounds[first]) : int(bounds[last])]
        step = max(1, TILE // len(frames) ** 2)
        columns = [_difference(part, segment, last - first) for part in torch.split(frames, step, dim=1)]
        parts.append(torch.cat(columns, dim=1))
    return torch.cat(parts)


def _difference(frames: Tensor, segment: Tensor, count: int) -> Tensor:
    """TFD (count, n) of frames (C, n, D) in consecutive segments, ``segment`` (C,)."""
    by_position = frames.transpose(0, 1).float()
    gram = by_position @ by_position.mT
    norm = gram.diagonal(dim1=1, dim2=2).sqrt()
    inverse = torch.where(norm < NORM_FLOOR, 0, 1 / norm.clamp_min(NORM_FLOOR))
    similarity = (gram * inverse[:, :, None] * inverse[:, None, :]).clamp_(-1, 1)
    similarity.diagonal(dim1=1, dim2=2).fill_(1)
    together = (segment[:, None] == segment[None, :]).float()
    change = (similarity[:, 1:] - similarity[:, :-1]).abs()
    change = (change * (together[1:] * together[:-1])).sum(dim=2)
    member = (segment[:, None] == torch.arange(count, device=segment.device)).float()
    length = member.sum(dim=0)
    total = (change @ member[1:]).T
    return total / ((length - 1).clamp_min(1) * length)[:, None]


def static_positions(
    difference: NDArray[np.float64],
    lengths: NDArray[np.int64],
    *,
    rho: float,
    preference: NDArray[np.float64] | None = None,
) -> NDArray[np.bool_]:
    """The ``floor(rho N)`` positions of each segment that change least; none in a segment of one frame.

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
