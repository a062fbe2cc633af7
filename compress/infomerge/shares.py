"""Split of the budget into salient tokens per frame and context tokens per segment (InfoMerge, eqs. 9, 18-21)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.budget import allocate, count_tokens, floor_guarded, round_half_up
from compress.errors import ConfigError

BudgetMode = Literal["exact", "paper", "fastvid"]
SalientRounding = Literal["floor", "nearest"]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Budgets of the two kinds of token of a video.

    Attributes:
        nominal: tokens that the retention asks for, ``round_half_up(r L N)``.
        salient: T_s, per frame.
        context: B_DTM of the video; a fraction only in mode ``paper``.
    """

    nominal: int
    salient: int
    context: float


def split_budget(
    frames: int,
    per_frame: int,
    *,
    retention: float,
    d: float,
    mode: BudgetMode = "exact",
    salient_rounding: SalientRounding = "floor",
) -> Shares:
    """Compute T_s and B_DTM of L frames of N tokens.

    ``exact`` gives DTM what the floor in T_s loses, so that the total is met; ``paper`` follows eqs. (18)-(21) to the
    letter and comes out near the total; ``fastvid`` grants every frame ``floor(r N)``.

    Raises:
        ConfigError: no token would leave.
    """
    nominal = count_tokens(retention, frames * per_frame)
    per_frame_salient = (1 - d) * retention * per_frame
    if mode == "fastvid":
        granted = floor_guarded(retention * per_frame)
        if granted < 1:
            raise ConfigError(
                f"budget='fastvid' grants floor({retention} * {per_frame}) = 0 tokens per frame; "
                f"use retention >= {1 / per_frame:.3g}, or budget='exact'"
            )
        merged = floor_guarded(granted * d)
        return Shares(nominal=nominal, salient=granted - merged, context=frames * merged)
    if mode == "paper":
        return Shares(
            nominal=nominal,
            salient=floor_guarded(per_frame_salient),
            context=d * retention * frames * per_frame,
        )
    salient = (floor_guarded if salient_rounding == "floor" else round_half_up)(per_frame_salient)
    salient = min(salient, nominal // frames)
    return Shares(nominal=nominal, salient=salient, context=nominal - frames * salient)


def share_context(
    weights: NDArray[np.float64], shares: Shares, lengths: NDArray[np.int64], per_frame: int, *, mode: BudgetMode
) -> NDArray[np.int64]:
    """Compute B_k of every segment: in proportion to its weight, at least 1 if the budget suffices, at most its size.

    Args:
        weights: w_k, (K,).
        shares: from `split_budget`.
        lengths: P_k, (K,).
        per_frame: N.
        mode: ``paper`` rounds each segment separately, halves to even (eq. 21); the others meet the total.

    Returns:
        int64 (K,).
    """
    most = lengths * (per_frame - shares.salient)
    if mode == "paper":
        rounded = np.rint(shares.context * weights / weights.sum()).astype(np.int64)
        return np.asarray(np.minimum(np.maximum(rounded, 1), most))
    total = int(shares.context)
    return allocate(weights, total, lower=1 if total >= len(weights) else 0, upper=most)
