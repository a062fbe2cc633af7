"""Uniform stride: tokens at equal distances along the sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compress.baselines.baseline import Baseline, Choice, spread
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import Signals


@dataclass(frozen=True, kw_only=True)
class UniformStride(Baseline):
    """Tokens at equal distances along the sequence of all frames.

    On a grid with an odd number of rows and columns the steps of the usual retentions are coprime to both, so that no
    column and no frame is preferred; on an even grid every other token would be every other column.
    """

    name: ClassVar[str] = "stride"
    looks: ClassVar[bool] = False

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        total = tokens.shape[0] * tokens.shape[1]
        return Choice(plan=MergePlan.selection(on_device(spread(count, total), tokens.device), count_in=total))
