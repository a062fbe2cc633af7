"""How well one map of a picture agrees with another: means on a coarse grid, and three figures."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from codecmeta.record.density import overlap_shares

GRID = 27
"""Cells per side: the patches of a 384-pixel picture, 14 pixels each."""

TOP = 0.3
"""Share of the cells that are looked for."""

_NOISE = 1e-9
"""Relative spread below which a map is constant but for rounding."""

Map: TypeAlias = NDArray[np.float64]


class Agreement(NamedTuple):
    """Agreement of an estimate with the truth.

    Attributes:
        rank: Spearman's rank correlation.
        log: Pearson's correlation of log(1 + energy).
        overlap: share of the cells with most energy that both maps name.
    """

    rank: float
    log: float
    overlap: float


def grid_means(values: NDArray[Any], *, block: int, size: tuple[int, int]) -> Map:
    """Mean of a map over each cell of the grid.

    Args:
        values: one value per block, (⌈H/block⌉, ⌈W/block⌉) or more; blocks beyond the picture do not count.
        block: samples per block side, 1 for a map of samples.
        size: height and width (H, W) of the picture.

    Returns:
        float64 (GRID, GRID), exact for samples; within a block the value is taken as constant.
    """
    shares = []
    for length in size:
        edges = np.minimum(np.arange(-(-length // block) + 1) * block, length).astype(np.float64)
        shares.append(overlap_shares(np.linspace(0, length, GRID + 1), edges))
    down, across = shares
    inside = values[: down.shape[1], : across.shape[1]].astype(np.float64)
    return np.asarray(down @ inside @ across.T)


def varies(values: Map) -> bool:
    """Whether a map is more than one value and rounding."""
    return bool(np.ptp(values) > _NOISE * np.abs(values).max(initial=0.0))


def top_membership(values: Map, count: int) -> Map:
    """Which cells are the `count` largest, in [0, 1]; equal values at the limit share the places that are left."""
    limit = np.sort(values)[-count]
    above, tied = values > limit, values == limit
    return np.asarray(above + tied * ((count - above.sum()) / tied.sum()))


def agreement(truth: Map, estimate: Map) -> Agreement:
    """Compare two maps of one picture.

    The overlap looks for the 30 % of the cells that have most energy in truth, or for those that have any if they are
    fewer: which of the cells without residual come first means nothing. An estimate that does not vary says nothing:
    its correlations are 0, its overlap is that of chance.

    Args:
        truth: energies, any shape.
        estimate: energies of the same shape, in any unit.

    Raises:
        ValueError: the truth does not vary.
    """
    if not varies(truth):
        raise ValueError("a truth that does not vary has no correlation with anything")
    wanted, offered = truth.ravel(), estimate.ravel()
    count = min(round(TOP * wanted.size), int(np.count_nonzero(wanted)))
    if not varies(estimate):
        return Agreement(0.0, 0.0, count / wanted.size)
    overlap = np.minimum(top_membership(wanted, count), top_membership(offered, count)).sum() / count
    rank = stats.spearmanr(wanted, offered).statistic
    log = np.corrcoef(np.log1p(wanted), np.log1p(offered))[0, 1]
    return Agreement(float(rank), float(log), float(overlap))
