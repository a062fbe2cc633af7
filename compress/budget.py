"""Exact integer allocation of a budget of tokens among frames or segments."""

from __future__ import annotations

import bisect
import math
import numbers
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.errors import ConfigError, ShapeError

GUARD: Final = 1e-9
"""Added before flooring a product of decimals: an integer on paper may be stored a little below itself."""

LARGEST_TOTAL: Final = 2**31
"""More units than any video has tokens; keeps float64 shares well below one unit of error."""


def floor_guarded(value: float) -> int:
    """Return ``floor(value)``, robust against products such as 0.6 * 0.1 * 50, which float64 stores below 3."""
    return math.floor(value + GUARD)


def round_half_up(value: float) -> int:
    """Round to the nearest integer, halves upwards: 2.5 -> 3, whereas Python's ``round`` gives 2."""
    return math.floor(value + 0.5 + GUARD)


def count_tokens(retention: float, count: int) -> int:
    """Count the tokens that leave when the fraction ``retention`` of ``count`` is retained: ``round_half_up``.

    Raises:
        ConfigError: retention outside (0, 1], or so small that no token would leave.
    """
    check_retention(retention)
    tokens = round_half_up(retention * count)
    if tokens < 1:
        raise ConfigError(
            f"retention {retention} of {count} tokens leaves none; "
            f"use at least {0.5 / max(count, 1):.3g} for this video"
        )
    return min(tokens, count)


def check_retention(retention: float) -> None:
    """Raise `ConfigError` unless ``retention`` lies in (0, 1]."""
    if not (isinstance(retention, numbers.Real) and 0 < retention <= 1):
        raise ConfigError(f"retention is {retention!r}; it is the retained fraction, a number in (0, 1]")


def allocate(
    weights: ArrayLike, total: int, *, lower: ArrayLike = 0, upper: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Share ``total`` units in proportion to ``weights``, exactly, within bounds.

    Water-filling to real shares, floors, and the remaining units by largest fractional part (Hamilton's
    method with bounds). Equal weights stand for weights that are all 0. Ties go to the lower index.

    Args:
        weights: (K,), at least 0 and finite.
        total: units to share. More than the upper bounds hold is cut to their sum; less than the lower
            bounds ask for
            is given out in single units, by descending weight, as often as needed.
        lower: smallest share of each, a number or (K,).
        upper: largest share of each, a number or (K,); None for no bound.

    Returns:
        int64 (K,), summing to ``min(total, sum(upper))``.

    Raises:
        ShapeError: the arrays do not have one length.
        ConfigError: a weight is negative or not finite, bounds cross, or total is outside [0, 2^31].
    """
    weight = np.asarray(weights, dtype=np.float64)
    if weight.ndim != 1:
        raise ShapeError(f"weights have shape {weight.shape}; one dimension is allowed")
    if not 0 <= total <= LARGEST_TOTAL:
        raise ConfigError(f"total is {total}; it must lie in [0, {LARGEST_TOTAL}]")
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ConfigError("weights hold negative or non-finite values; all must be finite and at least 0")
    try:
        low = np.broadcast_to(np.asarray(lower, dtype=np.int64), weight.shape)
        high = np.broadcast_to(np.asarray(total if upper is None else upper, dtype=np.int64), weight.shape)
    except ValueError as error:
        raise ShapeError(f"bounds do not fit {weight.size} weights: {error}") from error
    if upper is None:
        high = np.maximum(high, low)
    if (low < 0).any() or (low > high).any():
        raise ConfigError("the bounds cross or are negative; they must satisfy 0 <= lower <= upper")
    total = min(total, int(high.sum()))
    if total < int(low.sum()):
        return _ration(weight, total, low)
    return _round_shares(_fill(weight, total, low, high), total, low, high)


def _ration(weight: NDArray[np.float64], total: int, low: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give single units by descending weight, round after round, until ``total`` is spent; never beyond
    ``low``."""
    order = np.argsort(-weight, kind="stable")
    # After r whole rounds bin k holds min(low_k, r); the last round is begun but not finished.
    given = range(int(low.max()) + 1)
    rounds = bisect.bisect_right(given, total, key=lambda r: int(np.minimum(low, r).sum())) - 1
    share = np.minimum(low, rounds)
    hungry = order[share[order] < low[order]]
    share[hungry[: total - int(share.sum())]] += 1
    return share


def _fill(
    weight: NDArray[np.float64], total: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute real shares proportional to the weights within the bounds, summing to ``total``."""
    share = np.zeros(weight.shape)
    free = np.ones(weight.shape, dtype=bool)
    left = float(total)
    while free.any():
        # Scaling by the largest keeps the sum finite for weights near the end of the float64 range.
        scale = weight[free].max()
        scaled = weight[free] / scale if scale > 0 else np.ones(int(free.sum()))
        share[free] = left * (scaled / scaled.sum())
        over = np.where(free, np.maximum(share - high, 0), 0)
        under = np.where(free, np.maximum(low - share, 0), 0)
        if over.sum() <= GUARD and under.sum() <= GUARD:
            break
        frozen = over > 0 if over.sum() >= under.sum() else under > 0
        share[frozen] = np.where(over > 0, high, low)[frozen]
        free &= ~frozen
        left = total - float(share[~free].sum())
    return np.clip(share, low, high)


def _round_shares(
    share: NDArray[np.float64], total: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Round down, then give the remaining units by largest fractional part, skipping full bins."""
    units = np.clip(np.floor(share + GUARD).astype(np.int64), low, high)
    fraction = share - units
    # One pass is the rule; float64 error in shares of many units can call for another, or for taking some
    # back.
    while left := total - int(units.sum()):
        step = 1 if left > 0 else -1
        room = np.flatnonzero(units < high if step > 0 else units > low)
        units[room[np.argsort(-step * fraction[room], kind="stable")][: abs(left)]] += step
    return units
