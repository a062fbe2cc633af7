"""Merges inside the vision encoder: a video between two blocks, a merge of its tokens, and what patches became."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.plan import MergePlan

MERGED_AT_ONCE = 256
"""Tokens that a processor weighs at a time, in its cache: a weighted copy of all of them costs more than the sums."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderState:
    """A video in the course of the vision encoder, T' frames of n tokens each.

    Attributes:
        block: number of the block, from 0.
        depth: of the encoder.
        hidden: (T', n, D), the residual stream.
        keys: (T', n, Dk), attention keys, mean over heads, where a method merges right after attention.
        size: float32 (T', n), patches that each token stands for.
        frames: T at the first block.
        patches: N at the first block.
    """

    block: int
    depth: int
    hidden: Tensor
    keys: Tensor | None
    size: Tensor
    frames: int
    patches: int


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderMerge:
    """A merge inside the vision encoder, of T' n tokens to fewer frames, or fewer tokens of every frame.

    Attributes:
        origin: int64 (T' n,), place of the token that each one joins, and has its value from afterwards.
        weight: float32 (T' n,), of each in that token; those of a token sum to 1.
        keep: int64 (V'',), the token whose place each of the merged ones takes, frames in order.
        frames: T'', which divides V''.
        segments: int64 (K + 1,), where segments begin among the frames, for a method that has them.
    """

    origin: Tensor
    weight: Tensor
    keep: Tensor
    frames: int
    segments: NDArray[np.int64] | None = None

    def apply(self, tokens: Tensor) -> Tensor:
        """Merge (T' n, D) to (V'', D), summing in float32."""
        shape = len(self.keep), tokens.shape[1]
        if tokens.device.type == "cpu":  # fresh pages cost more than the sums: NumPy requests huge ones
            merged, step = torch.from_numpy(np.empty(shape, np.float32)).zero_(), MERGED_AT_ONCE
        else:
            merged = torch.zeros(shape, dtype=torch.float32, device=tokens.device)
            step = max(1, len(tokens))
        parts = (torch.split(each, step) for each in (tokens, self.origin, self.weight))
        for part, origin, weight in zip(*parts, strict=True):
            merged.index_add_(0, origin, part.float() * weight[:, None])
        return merged.to(tokens.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderResult:
    """What a video became inside the vision encoder; patches in (frame, raster) order.

    Attributes:
        origin: int64 (T N,), token that each patch joined, and has its features from.
        weight: float32 (T N,), of each patch in that token.
        keep: int64 (V',), the patch whose place each token takes, in the encoder's order.
        frames: T', that are left.
        frames_in: T.
        counts: block that merged -> frames after it, and tokens of each.
        segments: int64 (K + 1,), where segments begin among the frames that are left, for a method that has them.
    """

    origin: Tensor
    weight: Tensor
    keep: Tensor
    frames: int
    frames_in: int
    counts: Mapping[int, tuple[int, int]]
    segments: NDArray[np.int64] | None = None

    @property
    def retention(self) -> float:
        """Share of the patches that leave the encoder as tokens."""
        return len(self.keep) / len(self.origin)

    def entering_blocks(self, depth: int) -> list[tuple[int, int]]:
        """Return the frames that enter each block of the encoder, and the tokens of each."""
        entering, now = [], (self.frames_in, len(self.origin) // self.frames_in)
        for block in range(depth):
            entering.append(now)
            now = self.counts.get(block, now)
        return entering

    @property
    def frame_groups(self) -> NDArray[np.int64]:
        """int64 (T,), frame that each one became, of a method that folds whole frames."""
        first = self.origin.view(self.frames_in, -1)[:, 0].cpu().numpy()
        return np.asarray(first // (len(self.keep) // self.frames), np.int64)

    @property
    def plan(self) -> MergePlan:
        """The merge of patches to tokens, on the host; patches that were lost are in no row."""
        order = self.keep.cpu().argsort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        origin, weight = self.origin.cpu(), self.weight.cpu()
        counts = weight > 0
        return MergePlan.from_entries(
            rank[origin][counts],
            counts.nonzero().squeeze(1),
            weight[counts],
            keep=self.keep.cpu()[order],
            count_in=len(origin),
        )
