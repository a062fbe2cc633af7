"""Random tokens: what a method must beat before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from compress.baselines.baseline import Baseline, Choice
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import Signals


@dataclass(frozen=True, kw_only=True)
class RandomTokens(Baseline):
    """Tokens drawn without replacement from the whole video.

    Attributes:
        seed: of the draw; the same numbers give the same tokens.
    """

    seed: tuple[int, ...] = (0,)
    name: ClassVar[str] = "random"
    looks: ClassVar[bool] = False

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        total = tokens.shape[0] * tokens.shape[1]
        keep = np.sort(np.random.default_rng(self.seed).permutation(total)[:count])
        return Choice(plan=MergePlan.selection(on_device(keep, tokens.device), count_in=total))
