"""DyCoke, stage 2: decoding steps that read part of the visual tokens in the cache (CVPR 2025).

The reference follows the released code (KD-TAO/DyCoke, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from compress.attach import Attachable
from compress.baselines.baseline import Fidelity
from compress.baselines.inner import check_fidelity, most_important
from compress.budget import check_retention, floor_guarded, round_half_up
from compress.errors import ConfigError, ShapeError
from compress.planning_mode import planned

PAPER_LAYER = 3


@dataclass(frozen=True, kw_only=True)
class DyCokeDecoding(Attachable):
    """The visual tokens that the newest token attends to most, as long as its attention resembles the last one's.

    From layer L on, decoding steps attend to them and to all text; the cache stays whole, so that tokens can return.
    The choice is made again where the cosine between the attention of two successive steps is below tau.

    In the released code a step whose attention does resemble the last one's reads everything.

    Attributes:
        retention: share of the visual tokens that is read, in (0, 1].
        P: share that is not read, in [0, 1), in place of it (0.7 in the authors' instructions, 0.8 in their code).
        L: the first decoder layer (from 0) that reads the choice, by the attention of the layer before; None for 3.
        tau: cosine below which the choice is made again.
        fidelity: ``reference`` does what the released code does.

    Raises:
        ConfigError: a field is outside its range.
    """

    retention: float = 0.3
    P: float | None = None
    L: int | None = None
    tau: float = 0.9
    fidelity: Fidelity = "fixed"
    name: ClassVar[str] = "dycoke-decoding"

    def __post_init__(self) -> None:
        check_retention(self.retention)
        check_fidelity(self.fidelity)
        if self.P is not None and not 0 <= self.P < 1:
            raise ConfigError(f"P is {self.P}; the share that is not read must lie in [0, 1)")
        if self.L is not None and self.L < 1:
            raise ConfigError(f"L is {self.L}; the layer before it is read, so that at least 1 is allowed")
        if not -1 <= self.tau <= 1:
            raise ConfigError(f"tau is {self.tau}; a cosine lies in [-1, 1]")

    @property
    def share(self) -> float:
        """The share that is read."""
        return self.retention if self.P is None else 1 - self.P

    @property
    def decode_layer(self) -> int | None:
        """The first decoder layer that reads the choice; None while it depends on the model."""
        return self.L

    def at_depth(self, depth: int, *, first: int = 1) -> Self:
        """Return this method with its layer chosen for a decoder: 3, or its last if it has no more."""
        return self if self.L is not None else replace(self, L=max(1, min(PAPER_LAYER, depth - 1)))

    @planned
    def at_decoding(self, scores: Tensor, before: Tensor | None, chosen: Tensor | None) -> Tensor:
        """Choose among n visual tokens at a decoding step.

        Args:
            scores: (n,), attention of the step's token, mean over heads.
            before: (n,), the same of the step before; None at the first.
            chosen: bool (n,), the choice of the step before; None at the first.

        Returns:
            bool (n,), ``share`` of them, or as many as were chosen before.

        Raises:
            ShapeError: sizes do not match.
        """
        if scores.dim() != 1 or any(one is not None and one.shape != scores.shape for one in (before, chosen)):
            raise ShapeError(f"scores have shape {tuple(scores.shape)}; allowed is (n,), the same at every step")
        count = len(scores)
        share = self.share * count
        if self.fidelity == "fixed":
            kept = max(round_half_up(share), 1)
        else:
            kept = floor_guarded(share) if self.P is None else int(share)
        fresh = torch.zeros(count, dtype=torch.bool, device=scores.device)
        fresh.index_fill_(0, most_important(scores.float(), min(kept, count)), True)
        if before is None or chosen is None:
            return fresh
        alike = functional.cosine_similarity(scores.float(), before.float(), dim=0) >= self.tau
        return torch.where(alike, torch.ones_like(chosen) if self.fidelity == "reference" else chosen, fresh)
