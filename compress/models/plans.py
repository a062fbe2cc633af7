"""Plans of several videos as one, in other orders and other units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.plan import MergePlan


def join_plans(plans: Sequence[MergePlan]) -> MergePlan:
    """Join the plans of all videos into one over their tokens, one after the other."""
    if len(plans) == 1:
        return plans[0]
    rows, cols, keeps = [], [], []
    row = col = 0
    for plan in plans:
        rows.append(plan.row + row)
        cols.append(plan.col + col)
        keeps.append(plan.keep + col)
        row, col = row + plan.count_out, col + plan.count_in
    return MergePlan.from_entries(
        torch.cat(rows),
        torch.cat(cols),
        torch.cat([plan.weight for plan in plans]),
        keep=torch.cat(keeps),
        count_in=col,
        stochastic=all(plan.stochastic for plan in plans),
    )


def reorder_plan(plan: MergePlan, order: Tensor) -> MergePlan:
    """Return the same plan over tokens in another order.

    Args:
        plan: over V tokens.
        order: int64 (V,), which token comes at each place.
    """
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    keep, row = place[plan.keep].sort()
    new_row = torch.empty_like(row)
    new_row[row] = torch.arange(len(row), device=row.device)
    return MergePlan.from_entries(
        new_row[plan.row],
        place[plan.col],
        plan.weight,
        keep=keep,
        count_in=plan.count_in,
        stochastic=plan.stochastic,
    )


def expand_plan(plan: MergePlan, size: int) -> MergePlan:
    """Expand the plan to V tokens of ``size`` parts each: each part merges with the same part of the other tokens."""
    if size == 1:
        return plan
    part = torch.arange(size, device=plan.keep.device)

    def expand(index: Tensor) -> Tensor:
        return (index[:, None] * size + part).flatten()

    return MergePlan.from_entries(
        expand(plan.row),
        expand(plan.col),
        plan.weight.repeat_interleave(size),
        keep=expand(plan.keep),
        count_in=plan.count_in * size,
        stochastic=plan.stochastic,
    )
