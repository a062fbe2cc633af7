"""Average pooling: means of neighbouring tokens, over space or over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.baselines.baseline import Choice, FrameBudgets, share_evenly
from compress.baselines.cells import grid_of, whole_cells
from compress.errors import ConfigError
from compress.plan import MergePlan
from compress.stage import Signals, VideoSignals

Over = Literal["space", "time"]


@dataclass(frozen=True, kw_only=True)
class AveragePooling(FrameBudgets):
    """Means of neighbouring tokens; any count can be reached.

    Over ``space`` every frame is divided into nearly square rectangles of whole tokens. Over ``time`` every place of
    the grid is divided into runs of frames of nearly equal length, as many at each place as the count allows; a count
    below one run per place pools all frames into one first, and that one over space.

    Attributes:
        over: whether neighbours in space or in time are pooled.
    """

    over: Over = "space"
    name: ClassVar[str] = "pool"
    looks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("over", ("space", "time"))
        if self.over == "time" and self.frame_budget == "packets":
            raise ConfigError("over='time' pools across frames and has no budgets per frame; use frame_budget='own'")

    def plan_frames(self, meta: VideoSignals, *, tokens_per_frame: int) -> NDArray[np.int64]:
        """See `FrameBudgets.plan_frames`."""
        if self.over == "time":
            raise ConfigError("over='time' pools across frames and has no budgets per frame; use over='space'")
        return super().plan_frames(meta, tokens_per_frame=tokens_per_frame)

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        (rows, cols), sources = grid_of(signals, per_frame)
        if self.over == "time":
            return Choice(plan=_mean_plan(_runs(frames, rows, cols, count), tokens), sources=sources)
        budgets, given = self.budgets(tokens, signals)
        start = np.cumsum(budgets) - budgets
        groups = np.full((frames, per_frame), -1)
        for share in np.unique(budgets[budgets > 0]).tolist():
            mine = budgets == share
            groups[mine] = start[mine, None] + whole_cells(rows, cols, share)
        return Choice(plan=_mean_plan(groups.ravel(), tokens), frame_budgets=budgets, sources={**sources, **given})


def _runs(frames: int, rows: int, cols: int, count: int) -> NDArray[np.int64]:
    """Group the tokens by runs of frames at each place, int64 (T * N,)."""
    places = rows * cols
    if count < places:
        return np.tile(whole_cells(rows, cols, count), frames)
    runs = share_evenly(count, places, frames)
    run = np.arange(frames)[:, None] * runs[None] // frames
    return ((np.cumsum(runs) - runs)[None] + run).ravel()


def _mean_plan(groups: NDArray[np.int64], tokens: Tensor) -> MergePlan:
    """Average groups 0, 1, ... (-1: dropped); the anchor of each is its middle token."""
    order = np.argsort(groups, kind="stable")[np.count_nonzero(groups < 0) :]
    size = np.bincount(groups[order])
    middle = order[np.cumsum(size) - size + (size - 1) // 2]
    rank = np.empty_like(middle)
    rank[np.argsort(middle)] = np.arange(len(middle))
    plan = MergePlan.from_groups(np.where(groups >= 0, rank[groups], -1), keep=np.sort(middle))
    return plan.to(tokens.device)
