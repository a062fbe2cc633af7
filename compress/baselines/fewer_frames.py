"""Fewer frames: the result of sampling the video more sparsely for the same number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from compress.baselines.baseline import Baseline, Choice, share_evenly, spread
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import Signals


@dataclass(frozen=True, kw_only=True)
class FewerFrames(Baseline):
    """The fewest frames that hold the budget, at equal distances, and of each an equal share of its tokens."""

    name: ClassVar[str] = "frames"
    looks: ClassVar[bool] = False

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        chosen = spread(-(-count // per_frame), frames)
        shares = np.zeros(frames, np.int64)
        shares[chosen] = share_evenly(count, len(chosen), per_frame)
        keep = np.concatenate([frame * per_frame + spread(int(shares[frame]), per_frame) for frame in chosen])
        plan = MergePlan.selection(on_device(keep, tokens.device), count_in=frames * per_frame)
        return Choice(plan=plan, frame_budgets=shares)
