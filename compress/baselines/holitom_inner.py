"""HoliTom's merging inside the language model: what is attended to least joins what it resembles (NeurIPS 2025).

The reference follows the released code (cokeshao/HoliTom, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compress.baselines.inner import CutOnce, most_important
from compress.ops.absorption import absorb
from compress.plan import MergePlan
from compress.stage import InnerTokens

PAPER_DEPTH, PAPER_LAYER = 28, 18


@dataclass(frozen=True, kw_only=True)
class HoliTomInner(CutOnce):
    """The visual tokens that the last prompt token attends to most, and the others merged into the most similar.

    Fixed, a token that stays and all that join it become their mean. The released code halves it with one after the
    other, in order of position, so that the later ones weigh more.
    """

    name: ClassVar[str] = "holitom-inner"

    def choose(self, importance: Tensor, hidden: Tensor, kept: int, tokens: InnerTokens) -> MergePlan:
        """See `Inner.choose`."""
        ranked = most_important(importance, kept)
        if self.fidelity == "fixed":
            return absorb(hidden, ranked.sort().values)
        return absorb(hidden, ranked.sort().values, average="sequential", ranked=ranked)

    def paper_layer(self, depth: int) -> int:
        """Return 18 of 28, in proportion."""
        return round(depth * PAPER_LAYER / PAPER_DEPTH)
