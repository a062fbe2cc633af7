"""Attention-weighted max-min diversity within frames (FlashVID's ADTS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.ops.similarity import unit
from compress.ops.transfer import on_device

SCALE = 1e6
"""Factor of the attention in the released code; it changes only the rounding."""

LEAST_RELEVANCE = 1e-6
"""Share of a frame's largest relevance below which relevance does not fall."""

SAME = 2e-6
"""Cosine distances below it are rounding."""

TILE = 2**25
"""Distances held at a time: 128 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Weights of the distances to candidates.

    Attributes:
        weight: float32 (F, N).
    """

    weight: Tensor

    @staticmethod
    def of(
        tokens: Tensor, saliency: Tensor, bounds: NDArray[np.int64], *, total: Tensor, relevance: bool
    ) -> Calibration:
        """Weigh by attention, times the relevance to the segment's mean token where it is positive.

        Args:
            tokens: (T, N, D).
            saliency: float32 (T, N).
            bounds: int64 (K + 1,), where segments begin.
            total: float32 (T, D), sums of the frames' tokens.
            relevance: whether it counts.
        """
        # Attention is at least 0; saliency of other kinds is shifted so that it is.
        weight = saliency - saliency.amin(dim=1, keepdim=True).clamp(max=0)
        if relevance:
            lengths = np.diff(bounds)
            mean = total / tokens.shape[1]
            segment = on_device(np.repeat(np.arange(len(lengths)), lengths), tokens.device)
            of_segments = mean.new_zeros((len(lengths), mean.shape[1])).index_add_(0, segment, mean)
            centre = (of_segments / on_device(lengths, tokens.device)[:, None])[segment]
            relevant = (tokens.float() @ centre[..., None]).squeeze(2)
            least = LEAST_RELEVANCE * relevant.abs().amax(dim=1, keepdim=True)
            weight = weight * torch.maximum(relevant, least)
        return Calibration(weight=weight)

    @staticmethod
    def released(tokens: Tensor, saliency: Tensor, *, relevance: bool) -> Calibration:
        """Weigh one segment (F, N, D) as the released code does; relevance may be negative."""
        weight = saliency.float() * SCALE
        if relevance:
            weight = weight * torch.einsum("bnd,cd->bcn", tokens, tokens.mean(dim=1)).mean(dim=1)
        return Calibration(weight=weight)

    def pick_as_released(self, tokens: Tensor, count: int, *, repeat: bool) -> Tensor:
        """Pick the tokens of every frame, int64 (F, count), ascending, some more than once where ``repeat``."""
        direction = tokens / tokens.norm(p=2, dim=2, keepdim=True)
        distance = (1.0 - torch.bmm(direction, direction.mT)) * self.weight[:, None]
        return _farthest(distance, count, repeat=repeat).sort(dim=1).values


def pick_diverse(tokens: Tensor, calibration: Calibration, quota: NDArray[np.int64]) -> Tensor:
    """Pick the tokens of all frames, ascending flat indices, each once.

    Args:
        tokens: (T, N, D).
        calibration: of all frames.
        quota: int64 (T,), at most N.
    """
    frames, per_frame, _ = tokens.shape
    step = max(1, TILE // per_frame**2)
    chosen = []
    for start in range(0, frames, step):
        part = slice(start, start + step)
        most = int(quota[part].max())
        if not most:
            continue
        distance = 1.0 - _cosines(tokens[part])
        distance.masked_fill_(distance < SAME, 0)  # equal tokens, whatever their products round to
        distance *= calibration.weight[part, None]
        picked = _farthest(distance, most, repeat=False)
        mine = on_device(np.arange(most)[None] < quota[part, None], tokens.device)
        base = torch.arange(start, start + len(distance), device=tokens.device)[:, None] * per_frame
        chosen.append((base + picked)[mine])
    if not chosen:
        return torch.zeros(0, dtype=torch.int64, device=tokens.device)
    return torch.cat(chosen).sort().values


def _cosines(tokens: Tensor) -> Tensor:
    """Compute cosines within frames, float32 (F, N, N); on a CPU one frame at a time, which stays in its cache."""
    if tokens.device.type != "cpu":
        direction = unit(tokens)
        return direction @ direction.mT
    return torch.stack([direction @ direction.T for direction in map(unit, tokens)])


def _farthest(distance: Tensor, count: int, *, repeat: bool) -> Tensor:
    """Choose greedily the candidate j whose least ``distance[i, j]`` to chosen i is largest, int64 (F, count).

    The first is the one whose second smallest entry (the smallest is its own) is largest. Ties: the lower index.
    """
    per_frame = distance.shape[1]
    picked = torch.empty((len(distance), count), dtype=torch.int64, device=distance.device)
    if per_frame == 1:
        return picked.zero_()
    picked[:, 0] = distance.topk(2, dim=1, largest=False).values[:, 1].argmax(dim=1)
    closest = torch.full_like(distance[:, 0], torch.inf)
    for i in range(1, count):
        last = picked[:, i - 1 : i]
        row = distance.gather(1, last[..., None].expand(-1, -1, per_frame)).squeeze(1)
        torch.minimum(closest, row, out=closest)
        if not repeat:
            closest.scatter_(1, last, -1.0)
        picked[:, i] = closest.argmax(dim=1)
    return picked
