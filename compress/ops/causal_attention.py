"""Attention that keys of a causal decoder receive, from its queries and keys at the rows that count."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.stage import Reduce

TILE = 2**24
"""Attention weights held at a time: 64 MB."""


def attention_received(
    query: Tensor, key: Tensor, *, scaling: float, first: int, real: Tensor | None = None, reduce: Reduce = "mean"
) -> Tensor:
    """Reduce the attention that each key receives over heads and queries.

    Args:
        query: (heads, q, d), after rotary embedding.
        key: (key heads, k, d), likewise; key heads divide heads.
        scaling: factor of the logits.
        first: column of the first query among the keys; a query sees the keys up to its own column.
        real: bool (k,), False for padding; None without any.
        reduce: see `compress.stage.Reduce`.

    Returns:
        float32 (k,).
    """
    shared, count = key.shape[:2]
    heads, rows, width = query.shape
    wide = key.float()
    place = torch.arange(count, device=key.device)
    step = max(1, TILE // (heads * count))
    received = torch.zeros(count, dtype=torch.float32, device=key.device)
    for start in range(0, rows, step):
        q = query[:, start : start + step].float()
        logits = (q.view(shared, heads // shared, -1, width) @ wide[:, None].mT).flatten(0, 1) * scaling
        hidden = place > place[first + start : first + start + q.shape[1], None]
        if real is not None:
            hidden = hidden | ~real
        weights = logits.masked_fill(hidden, -torch.inf).softmax(dim=-1)
        if reduce == "mean":
            received = received + weights.sum(dim=(0, 1))
        else:
            over_heads = weights.amax(dim=0) if reduce == "max" else weights.mean(dim=0)
            received = received.maximum(over_heads.amax(dim=0))
    return received / (heads * rows) if reduce == "mean" else received
