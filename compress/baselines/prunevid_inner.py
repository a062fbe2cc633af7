"""PruneVid's second part: visual tokens that the question attends to, in the language model and in all caches (2025).

Written from descriptions: the released code (CC BY-NC-SA 4.0) was not read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from compress.baselines.inner import Inner
from compress.budget import allocate
from compress.errors import ConfigError
from compress.plan import MergePlan
from compress.stage import Cut, InnerTokens

PAPER_DEPTH, PAPER_LAYER = 32, 10


@dataclass(frozen=True, kw_only=True)
class PruneVidInner(Inner):
    """Of the static and of the moving tokens, each the share alpha that the text after the video attends to most.

    A token counts by the largest attention over heads and text tokens, in the last layer before the cut. What leaves
    also leaves the caches of the layers before. Static and moving are the kinds that `PruneVid` gives tokens; after any
    other method all tokens are one part.

    Attributes:
        retention: alpha.
        K: the decoder layer (from 0) before which tokens leave; None for 10 of 32, in proportion.
    """

    retention: float = 0.4
    K: int | None = None
    name: ClassVar[str] = "prunevid-inner"
    looks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.K is not None and self.K < 1:
            raise ConfigError(f"K is {self.K}; the layer before it is read, so that at least 1 is allowed")

    @property
    def cuts(self) -> tuple[Cut, ...] | None:
        """See `Inner.cuts`."""
        if self.K is None:
            return None
        return (Cut(layer=self.K, scored=(self.K - 1,), query="text", reduce="max", caches=True),)

    def at_depth(self, depth: int, *, first: int = 1) -> Self:
        """Return this method with its layer chosen for a decoder: 10 of 32, in proportion."""
        if self.K is not None:
            return self
        return replace(self, K=min(max(round(depth * PAPER_LAYER / PAPER_DEPTH), first), depth - 1))

    def choose(self, importance: Tensor, hidden: Tensor, kept: int, tokens: InnerTokens) -> MergePlan:
        """See `Inner.choose`."""
        if not self._has_parts(tokens) or tokens.kind is None:
            return super().choose(importance, hidden, kept, tokens)
        kind = tokens.kind.long()
        parts = len(tokens.kinds)
        size = torch.bincount(kind, minlength=parts).cpu().numpy()
        wanted = allocate(size, kept, upper=size)
        # Ranked by kind, then importance; a place in its own part decides.
        order = importance.sort(descending=True, stable=True).indices
        order = order[kind[order].sort(stable=True).indices]
        starts = np.cumsum(size) - size
        keep = torch.cat([order[start : start + count] for start, count in zip(starts, wanted, strict=True)])
        return MergePlan.selection(keep.sort().values, count_in=len(importance))

    def sources(self, tokens: InnerTokens) -> dict[str, str]:
        """See `Inner.sources`."""
        return {"kinds": " and ".join(tokens.kinds) if self._has_parts(tokens) else "one part (PruneVid is not before)"}

    @staticmethod
    def _has_parts(tokens: InnerTokens) -> bool:
        return tokens.kind is not None and set(tokens.kinds) == {"dynamic", "static"}
