"""Merging of tokens into the most similar of those that stay."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compress.ops.similarity import unit
from compress.plan import MergePlan

Average = Literal["mean", "sequential"]
"""A token and those that join it: their plain mean, or halves one after the other in order of position."""

TILE = 2**23
"""Similarities held at a time: 32 MB."""


def absorb(tokens: Tensor, keep: Tensor, *, average: Average = "mean", ranked: Tensor | None = None) -> MergePlan:
    """Merge every other token into the most similar one that stays, by the cosine.

    Args:
        tokens: (n, D), any float dtype.
        keep: int64 (k,), those that stay, ascending.
        average: of a token and those that join it.
        ranked: int64 (k,), the same in the order in which equal similarities are decided; None for that of ``keep``.

    Returns:
        The plan over n tokens.
    """
    count = len(tokens)
    if len(keep) == count:
        return MergePlan.identity(count, device=tokens.device)
    stays = torch.zeros(count, dtype=torch.bool, device=tokens.device).index_fill_(0, keep, True)
    others = stays.to(torch.uint8).sort(stable=True).indices[: count - len(keep)]
    candidates = keep if ranked is None else ranked
    anchors = unit(tokens.index_select(0, candidates))
    nearest = torch.cat(
        [
            (tokens.index_select(0, block).float() @ anchors.T).argmax(dim=1)
            for block in others.tensor_split(max(1, -(-len(others) * len(keep) // TILE)))
        ]
    )
    row = nearest if ranked is None else torch.searchsorted(keep, candidates.index_select(0, nearest))
    joined = torch.zeros(len(keep), dtype=torch.int64, device=tokens.device)
    joined.index_add_(0, row, torch.ones_like(row))
    if average == "mean":
        own = 1 / (1 + joined).float()
        weight = own[row]
    else:
        own = torch.exp2(-joined.double())
        weight = torch.exp2(-(joined[row] - _place_in_row(row, joined)).double())
    anchor_row = torch.arange(len(keep), device=tokens.device)
    return MergePlan.from_entries(
        torch.cat((anchor_row, row)),
        torch.cat((keep, others)),
        torch.cat((own, weight)),
        keep=keep,
        count_in=count,
    )


def _place_in_row(row: Tensor, size: Tensor) -> Tensor:
    """Count the earlier entries that share each entry's row."""
    order = row.sort(stable=True).indices
    start = size.cumsum(0) - size
    place = torch.empty_like(row)
    place[order] = torch.arange(len(row), device=row.device) - start[row[order]]
    return place
