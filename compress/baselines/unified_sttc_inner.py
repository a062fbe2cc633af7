"""Unified STTC's merge inside the language model: what text neither attends to nor resembles is merged (CVPR 2026).

From summaries, unverified: no code is published and the paper was not read. What the summaries leave open is a field.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor

from compress.baselines.inner import Inner, most_important
from compress.errors import ConfigError
from compress.ops.absorption import Average, absorb
from compress.ops.similarity import unit
from compress.plan import MergePlan
from compress.stage import Cut, InnerTokens

PAPER_DEPTH, PAPER_LAYER = 28, 18


@dataclass(frozen=True, kw_only=True)
class UnifiedSTTCInner(Inner):
    """The tokens of the highest (1 - lam) a + lam s; the others merge into the most similar of them.

    a is the largest attention from any token of the text after the video, s the largest cosine of the hidden states to
    any of them, both normalised over the visual tokens.

    Attributes:
        K: the decoder layer (from 0) before which tokens merge; None for 18 of 28, in proportion.
        lam: weight of the similarity, in [0, 1].
        heads: the attention of a text token is the ``max`` or the ``mean`` over heads. *Not in the summaries.*
        normalise: to the range from 0 to 1 (``minmax``), or to a ``sum`` of 1. *Not in the summaries.*
        average: of a token and those that join it. *Not in the summaries.*
    """

    K: int | None = None
    lam: float = 0.5
    heads: Literal["max", "mean"] = "max"
    normalise: Literal["minmax", "sum"] = "minmax"
    average: Average = "mean"
    name: ClassVar[str] = "unified-sttc-inner"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.K is not None and self.K < 1:
            raise ConfigError(f"K is {self.K}; the layer before it is read, so that at least 1 is allowed")
        if not 0 <= self.lam <= 1:
            raise ConfigError(f"lam is {self.lam}; allowed is [0, 1]")
        for name, allowed in (
            ("heads", ("max", "mean")),
            ("normalise", ("minmax", "sum")),
            ("average", ("mean", "sequential")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(allowed)}")

    @property
    def cuts(self) -> tuple[Cut, ...] | None:
        """See `Inner.cuts`."""
        if self.K is None:
            return None
        reduce: Literal["max", "max_of_means"] = "max" if self.heads == "max" else "max_of_means"
        return (Cut(layer=self.K, scored=(self.K - 1,), query="text", reduce=reduce),)

    def at_depth(self, depth: int, *, first: int = 1) -> Self:
        """Return this method with its layer chosen for a decoder: 18 of 28, in proportion."""
        if self.K is not None:
            return self
        return replace(self, K=min(max(round(depth * PAPER_LAYER / PAPER_DEPTH), first), depth - 1))

    def choose(self, importance: Tensor, hidden: Tensor, kept: int, tokens: InnerTokens) -> MergePlan:
        """See `Inner.choose`."""
        score = (1 - self.lam) * self._normalised(importance)
        if self.lam and tokens.text is not None:
            nearest = (unit(hidden) @ unit(tokens.text.detach()).T).amax(dim=1)
            score = score + self.lam * self._normalised(nearest)
        return absorb(hidden, most_important(score, kept).sort().values, average=self.average)

    def sources(self, tokens: InnerTokens) -> dict[str, str]:
        """See `Inner.sources`."""
        return {"text": "attention only (no text given)"} if self.lam and tokens.text is None else {}

    def _normalised(self, values: Tensor) -> Tensor:
        if self.normalise == "sum":
            return values / values.sum().abs().clamp_min(1e-12)
        low, high = values.amin(), values.amax()
        return (values - low) / (high - low).clamp_min(1e-12)
