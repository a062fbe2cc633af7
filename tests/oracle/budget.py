"""Integer allocation by another road: the common multiplier of the weights by bisection, then largest remainders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def real_shares(weights: NDArray, total: int, lower: NDArray, upper: NDArray) -> NDArray:
    """x_k = clip(nu w_k, lower_k, upper_k) with sum(x) = total; total lies between the sums of the bounds."""
    weights = np.asarray(weights, np.float64)
    if not weights.any():
        weights = np.ones_like(weights)
    weights = weights / weights.max()
    positive = weights > 0
    rest = total - upper[positive].sum() - lower[~positive].sum()
    if rest > 0:  # even unbounded growth of the others leaves units for bins of weight zero: equal shares there
        shares = upper.astype(np.float64)
        shares[~positive] = real_shares(
            np.ones(int((~positive).sum())), total - int(upper[positive].sum()), lower[~positive], upper[~positive]
        )
        return shares
    low, high = 0.0, 2.0
    while np.clip(high * weights, lower, upper).sum() < total:
        high *= 2
    for _ in range(160):
        middle = (low + high) / 2
        if np.clip(middle * weights, lower, upper).sum() < total:
            low = middle
        else:
            high = middle
    return np.clip(high * weights, lower, upper)


def allocate(weights: NDArray, total: int, lower: NDArray, upper: NDArray) -> tuple[NDArray, float]:
    """Units per bin, and the smallest gap between fractional parts at which the rounding decided."""
    total = min(total, int(upper.sum()))
    if total < lower.sum():
        units = np.zeros(len(weights), np.int64)
        order = sorted(range(len(weights)), key=lambda k: (-weights[k], k))
        while units.sum() < total:
            for k in order:
                if units.sum() < total and units[k] < lower[k]:
                    units[k] += 1
        return units, np.inf
    shares = real_shares(weights, total, lower, upper)
    units = np.floor(shares + 1e-9).astype(np.int64)
    fraction = shares - units
    order = sorted(range(len(weights)), key=lambda k: (-round(fraction[k], 7), k))
    left = total - int(units.sum())
    order = [k for k in order if units[k] < upper[k]]
    ranked = [fraction[k] for k in order]
    gap = ranked[left - 1] - ranked[left] if 0 < left < len(order) else np.inf
    for k in order[:left]:
        units[k] += 1
    return units, gap
