"""ToMe as papers on Video-LLMs use the name: one bipartite matching over the tokens of all frames, repeated.

STTM's comparison (ICCV 2025) runs it on hidden states inside the language model; unlike ToMe itself, `ToMe`, it sees
no keys, no encoder and no token sizes in attention. Written from descriptions: neither ToMe's code (CC BY-NC 4.0) nor
STTM's (no licence) was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compress.baselines.baseline import Choice, Published, share_evenly
from compress.baselines.inner import CutUnseen
from compress.baselines.rows import Rows
from compress.budget import count_tokens
from compress.errors import ConfigError
from compress.ops.bipartite import match_halves
from compress.plan import MergePlan
from compress.stage import InnerTokens, Positions, Signals


@dataclass(frozen=True, kw_only=True)
class ToMeVideo(Published):
    """Rounds of bipartite matching over the tokens themselves, each of at most half of them, until the budget is met.

    Fixed, tokens are back in the order of frames and places after every round, so that the next one splits them
    alternately again.

    Attributes:
        scope: a round matches the tokens of the whole ``video``, or those of each ``frame``.
        size_weighted: tokens that join count by how many they are the mean of; if not, every round takes plain means.
    """

    retention: float = 0.3
    scope: Literal["video", "frame"] = "video"
    size_weighted: bool = True
    name: ClassVar[str] = "tome-video"
    released_positions: ClassVar[Positions | None] = "contiguous"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("scope", ("video", "frame"))

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        if self.scope == "video":
            return Choice(plan=merge_rounds(tokens.flatten(0, 1), count, size_weighted=self.size_weighted).plan()[0])
        granted = share_evenly(count, frames, per_frame)
        parts = [
            merge_rounds(tokens[number], share, size_weighted=self.size_weighted).moved(
                number * per_frame, count_in=frames * per_frame
            )
            for number, share in enumerate(granted.tolist())
            if share
        ]
        return Choice(plan=Rows.joined(parts, count_in=frames * per_frame).plan()[0], frame_budgets=granted)

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`.

        Every round leaves the first set in falling similarity before the second, and the next round splits that order.
        """
        if self.scope == "frame" and len(tokens) > 1:
            raise ConfigError(f"the released code fails on {len(tokens)} frames with scope='frame'")
        flat = tokens.flatten(0, 1)
        count = count_tokens(self.retention, len(flat))
        return merge_rounds(flat, count, size_weighted=self.size_weighted, in_order=False)


@dataclass(frozen=True, kw_only=True)
class ToMeVideoInner(CutUnseen):
    """The same inside the language model, where STTM's comparison runs it: over the visual tokens of a prompt.

    Attributes:
        size_weighted: see `ToMeVideo`.
    """

    retention: float = 0.3
    size_weighted: bool = True
    name: ClassVar[str] = "tome-video-inner"

    def choose(self, importance: Tensor, hidden: Tensor, kept: int, tokens: InnerTokens) -> MergePlan:
        """See `Inner.choose`."""
        return merge_rounds(hidden, kept, size_weighted=self.size_weighted).plan()[0]


def merge_rounds(tokens: Tensor, count: int, *, size_weighted: bool, in_order: bool = True) -> Rows:
    """Merge tokens (n, D) in rounds down to ``count``.

    Args:
        tokens: any float dtype.
        count: at least 1.
        size_weighted: see `ToMeVideo`.
        in_order: whether tokens are back in their order after every round.
    """
    total = len(tokens)
    device = tokens.device
    anchor = torch.arange(total, device=device)
    group, weight = anchor, torch.ones(total, dtype=torch.float32, device=device)
    values = tokens.float()
    size = torch.ones(total, dtype=torch.float32, device=device)
    while len(anchor) > count:
        matching = match_halves(values[None], len(anchor) - count, in_order=in_order)
        place, stays = matching.groups()[0], matching.stays[0]
        if in_order:
            order = anchor[stays].argsort()
            rank = torch.empty_like(order)
            rank[order] = torch.arange(len(order), device=device)
            place, stays = rank[place], stays[order]
        share = size if size_weighted else torch.ones_like(size)
        whole = torch.zeros(len(stays), dtype=torch.float32, device=device).index_add_(0, place, share)
        share = share / whole[place]
        values = values.new_zeros((len(stays), values.shape[1])).index_add_(0, place, values * share[:, None])
        size = torch.zeros_like(whole).index_add_(0, place, size)
        weight, group, anchor = weight * share[group], place[group], anchor[stays]
    return Rows(keep=anchor, row=group, col=torch.arange(total, device=device), weight=weight, count_in=total)
