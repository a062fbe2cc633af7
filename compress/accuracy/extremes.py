"""Extremes of methods: one that merges nothing, and one that knows where the objects are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.baselines.baseline import Baseline, Choice, spread
from compress.budget import allocate
from compress.errors import ShapeError
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import Signals


@dataclass(frozen=True, kw_only=True)
class Everything(Baseline):
    """Method that keeps every token: through the same hooks, answers must be those of the plain model."""

    retention: float = 1.0
    name: ClassVar[str] = "everything"


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle(Baseline):
    """Method that keeps the tokens of cells with an object; it knows where objects are, but not what is asked.

    Where the budget holds more, the rest is filled with other cells; where it holds fewer, some are left out. Both
    evenly over time, and shifted from frame to frame, so that the same cells are not always the ones to go.

    Attributes:
        occupied: bool (T, rows, cols): a cell holds an object.
    """

    occupied: NDArray[np.bool_] = field(repr=False)
    name: ClassVar[str] = "oracle"

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        if self.occupied.size != frames * per_frame or len(self.occupied) != frames:
            raise ShapeError(f"occupied has shape {self.occupied.shape}; these tokens are {frames} x {per_frame}")
        held = self.occupied.reshape(frames, per_frame)
        chosen = _share_evenly(held, min(count, int(held.sum())))
        chosen |= _share_evenly(~held, count - int(chosen.sum()))
        keep = on_device(np.flatnonzero(chosen), tokens.device)
        return Choice(plan=MergePlan.selection(keep, count_in=frames * per_frame))


def _share_evenly(candidates: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Choose some of the candidates (T, N), in each frame as equally many as possible."""
    chosen = np.zeros_like(candidates)
    shares = allocate(np.ones(len(candidates)), count, upper=candidates.sum(axis=1))
    for frame, share in enumerate(shares.tolist()):
        places = np.flatnonzero(candidates[frame])
        if share:
            chosen[frame, places[(spread(share, len(places)) + frame) % len(places)]] = True
    return chosen
