"""Triton kernel of greedy picks: one program holds the scores of all tokens and makes pick after pick."""

from __future__ import annotations

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 32
"""Of the one program: as many threads as a block may have."""


@triton.jit
def _pick(
    values: Any,
    nearest: Any,
    picked: Any,
    total: Any,
    count: Any,
    SUM: tl.constexpr,
    REPEAT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    token = tl.arange(0, BLOCK)
    inside = token < total
    below = float("-inf")
    first = tl.load(nearest + token, mask=inside, other=below)
    last = tl.argmax(first, axis=0, tie_break_left=True)
    tl.store(picked, last.to(tl.int64))
    if SUM:  # noqa: SIM108 - decided when it is compiled
        score = tl.where(inside, 0.0, below).to(tl.float64)
    else:
        score = tl.where(inside, float("inf"), below).to(tl.float32)
    for i in range(1, count):
        row = tl.load(values + last.to(tl.int64) * total + token, mask=inside, other=0.0)
        if SUM:
            score += row.to(tl.float64)
        else:
            score = tl.minimum(score, row)
        if not REPEAT:
            score = tl.where(token == last, below, score)
        last = tl.argmax(score, axis=0, tie_break_left=True)
        tl.store(picked + i, last.to(tl.int64))


def pick(values: Tensor, nearest: Tensor, count: int, *, combine: Literal["sum", "least"], repeat: bool) -> Tensor:
    """Pick tokens as `compress.ops.greedy.pick_greedily` does.

    Args:
        values: float32 (V, V), contiguous.
        nearest: float32 (V,).
        count: at least 1, at most V.
        combine: how values make a score.
        repeat: leave picked tokens among the candidates.

    Returns:
        int64 (count,).
    """
    picked = torch.empty(count, dtype=torch.int64, device=values.device)
    block = triton.next_power_of_2(len(values))
    _pick[(1,)](
        values, nearest, picked, len(values), count, SUM=combine == "sum", REPEAT=repeat, BLOCK=block, num_warps=WARPS
    )
    return picked
