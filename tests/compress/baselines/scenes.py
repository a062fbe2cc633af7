"""Synthetic videos of tokens: shots of a few frames with positions that hardly change, and signals about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from compress.stage import Signals


def video(frames: int, grid: tuple[int, int], *, seed: int, width: int = 16, shot: int = 5) -> torch.Tensor:
    """Tokens (T, N, D): shots whose frames are alike, a third of the positions almost equal, all around one mean."""
    generator = torch.Generator().manual_seed(seed)
    count = grid[0] * grid[1]
    shots = -(-frames // shot)
    scene = torch.randn(shots, count, width, generator=generator).repeat_interleave(shot, 0)[:frames]
    noise = torch.randn(frames, count, width, generator=generator)
    noise[:, ::3] *= 0.05
    return 0.5 + scene + 0.4 * noise


def signals_for(
    tokens: torch.Tensor, *, grid: tuple[int, int] | None = None, saliency: torch.Tensor | None = None
) -> Signals:
    """Signals that depend on the size of the video only."""
    frames, count, _ = tokens.shape
    generator = torch.Generator().manual_seed(1000 + frames * count)
    drawn = torch.rand(frames, count, generator=generator)
    return Signals(
        saliency=drawn if saliency is None else saliency,
        frame_features=1 + torch.randn(frames, 8, generator=generator),
        packet_size=100 + 50 * (np.arange(frames) % 4),
        grid=grid,
        keys=torch.randn(frames, count, 6, generator=generator),
    )


class PacketSizes:
    """The part of metadata that frame budgets read."""

    def __init__(self, sizes: Sequence[float]) -> None:
        self.sizes = np.asarray(sizes, np.float64)

    def gop_packet_size(self, kind: str = "mean") -> NDArray[np.float64]:
        return self.sizes
