"""ToMe, inside the vision encoder: a few patches of every frame merge in every block (ICLR 2023).

Written from the paper: its code (CC BY-NC 4.0) was not read. What papers on Video-LLMs call ToMe is `ToMeVideo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from compress.attach import Attachable
from compress.baselines.baseline import Fidelity
from compress.budget import allocate, check_retention, count_tokens
from compress.encoder_merging import EncoderMerge, EncoderState
from compress.errors import ConfigError, ShapeError
from compress.ops.bipartite import match_halves
from compress.planning_mode import planned
from compress.stage import MergePoint


@dataclass(frozen=True, kw_only=True)
class ToMe(Attachable):
    """Bipartite matching by attention keys, between attention and MLP of every encoder block.

    Of each frame the same number of patches merges, at most half in a block; a merged token is the mean of its patches.
    The language model gets as many tokens as ever: after the encoder every patch has its token's features, since models
    pool patches on their grid. So it shortens the encoder, and goes with any method before the language model.

    Attributes:
        retention: share of the patches that leaves the encoder, in (0, 1], where ``r`` is None.
        r: patches that merge in each block.
        schedule: blocks merge equally many (``constant``), or linearly fewer from the first to the last
            (``decreasing``).
        prop_attn: attention counts a token as often as it has patches, by adding the logarithm to its logits.
        class_token: the first patch of a frame never merges, as if it were a class token.
        fidelity: with ``reference`` the first of a block's two sets leaves it in falling similarity, not in its order,
            so that the next block splits tokens otherwise.
        name: of the method.

    Raises:
        ConfigError: a field is outside its range.
    """

    retention: float = 0.5
    r: int | None = None
    schedule: Literal["constant", "decreasing"] = "constant"
    prop_attn: bool = True
    class_token: bool = False
    fidelity: Fidelity = "fixed"
    name: ClassVar[str] = "tome"
    merge_point: ClassVar[MergePoint] = "attention"

    def __post_init__(self) -> None:
        check_retention(self.retention)
        if self.r is not None and self.r < 0:
            raise ConfigError(f"r is {self.r}; it is a number of patches, at least 0, or None for the retention")
        if self.schedule not in ("constant", "decreasing"):
            raise ConfigError(f"schedule is {self.schedule!r}; choose from constant, decreasing")
        if self.fidelity not in ("fixed", "reference"):
            raise ConfigError(f"fidelity is {self.fidelity!r}; choose from fixed, reference")

    @property
    def weighs_by_size(self) -> bool:
        """Whether attention counts a token by its patches."""
        return self.prop_attn

    def merge_blocks(self, depth: int) -> tuple[int, ...]:
        """Return the blocks of an encoder in which patches merge: all, or none where all patches stay."""
        keeps_all = self.r == 0 or (self.r is None and self.retention == 1)
        return () if keeps_all else tuple(range(depth))

    def scored_block(self, depth: int) -> int | None:
        """Return None: saliency is measured where it always is."""
        return None

    def counts(self, patches: int, depth: int) -> list[int]:
        """Return how many of a frame's patches merge in each block.

        Raises:
            ConfigError: the retention asks for more than half of what is left in every block.
        """
        weights = np.ones(depth) if self.schedule == "constant" else np.arange(depth, 0, -1)
        if self.r is not None:
            return self._halved(patches, allocate(weights, self.r * depth))
        total = patches - count_tokens(self.retention, patches)
        most = sum(self._halved(patches, np.full(depth, patches)))
        if total > most:
            raise ConfigError(
                f"retention {self.retention} of {patches} patches needs more than halving them in each of {depth} "
                f"blocks; use at least {(patches - most) / patches:.4g}"
            )
        wanted = total
        while True:  # what later blocks cannot take goes to the earlier ones
            counts = self._halved(patches, allocate(weights, wanted))
            if sum(counts) >= total:
                break
            wanted += depth
        for block in range(depth - 1, -1, -1):
            counts[block] -= min(counts[block], sum(counts) - total)
        return counts

    def _halved(self, patches: int, wanted: NDArray[np.int64]) -> list[int]:
        """Return what merges in each block, at most half of what is left."""
        counts = []
        for share in wanted.tolist():
            counts.append(min(share, (patches - self.class_token) // 2))
            patches -= counts[-1]
        return counts

    @planned
    def inside_encoder(self, state: EncoderState) -> EncoderMerge | None:
        """Merge patches of every frame; see `compress.stage.InsideEncoder`.

        Raises:
            ShapeError: the keys are missing, or are those of other tokens.
        """
        frames, tokens, _ = state.hidden.shape
        count = self.counts(state.patches, state.depth)[state.block]
        if not count:
            return None
        if state.keys is None or state.keys.shape[:2] != (frames, tokens):
            given = None if state.keys is None else tuple(state.keys.shape)
            raise ShapeError(f"keys have shape {given}; {frames} frames of {tokens} tokens take one each")
        return merge_once(
            state.keys,
            state.size,
            count,
            in_order=self.fidelity == "fixed" or self.class_token,
            protected=self.class_token,
        )


def merge_once(
    metric: torch.Tensor, size: torch.Tensor, count: int, *, in_order: bool, protected: bool = False
) -> EncoderMerge:
    """Merge ``count`` tokens of every frame into the ones that they match; means count tokens by their sizes.

    Args:
        metric: (T, n, C).
        size: float32 (T, n), patches that each token stands for.
        count: at most half of n.
        in_order: see `compress.ops.bipartite.match_halves`.
        protected: likewise.
    """
    frames, tokens, _ = metric.shape
    matching = match_halves(metric, count, in_order=in_order, protected=protected)
    left = matching.stays.shape[1]
    offset = torch.arange(frames, device=metric.device)[:, None]
    origin = (matching.groups() + offset * left).flatten()
    whole = torch.zeros(frames * left, dtype=torch.float32, device=metric.device)
    whole.index_add_(0, origin, size.flatten().float())
    return EncoderMerge(
        origin=origin,
        weight=size.flatten().float() / whole[origin],
        keep=(matching.stays + offset * tokens).flatten(),
        frames=frames,
    )
