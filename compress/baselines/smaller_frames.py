"""Smaller frames: the result of pictures of lower resolution for the same number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from compress.baselines.baseline import Choice, FrameBudgets
from compress.baselines.cells import cell_centres, fractional_cells, grid_of
from compress.ops.transfer import on_device, on_device_together
from compress.plan import MergePlan
from compress.stage import Signals


@dataclass(frozen=True, kw_only=True)
class SmallerFrames(FrameBudgets):
    """Each frame's grid of tokens resized to fewer cells of equal size, by area.

    The tokens of a picture that is encoded at a lower resolution are not these means, but what a linear encoder would
    make of it. Bands of a frame may differ by one cell, so that every count is met.
    """

    name: ClassVar[str] = "smaller"
    looks: ClassVar[bool] = False

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        (rows, cols), sources = grid_of(signals, per_frame)
        budgets, given = self.budgets(tokens, signals)
        start = np.cumsum(budgets) - budgets
        row, col, weight, keep = [], [], [], np.zeros(int(budgets.sum()), np.int64)
        for share in np.unique(budgets[budgets > 0]).tolist():
            cell, token, part = fractional_cells(rows, cols, share)
            centres = cell_centres(rows, cols, share)
            for frame in np.flatnonzero(budgets == share).tolist():
                row.append(start[frame] + cell)
                col.append(frame * per_frame + token)
                weight.append(part)
                keep[start[frame] : start[frame] + share] = frame * per_frame + centres
        device = tokens.device
        rows_there, cols_there, keep_there = on_device_together(
            np.concatenate(row), np.concatenate(col), keep, device=device
        )
        plan = MergePlan.from_entries(
            rows_there,
            cols_there,
            on_device(np.concatenate(weight).astype(np.float32), device),
            keep=keep_there,
            count_in=frames * per_frame,
        )
        return Choice(plan=plan, frame_budgets=budgets, sources={**sources, **given})
