"""Cosine similarity in float32, whatever the dtype of the tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from compress.errors import ShapeError

NORM_FLOOR = 1e-12
"""A token of smaller norm has no direction: its similarity to everything is 0."""


def unit(tokens: Tensor) -> Tensor:
    """Rows of length one in float32; a row of norm below `NORM_FLOOR` becomes 0.

    Args:
        tokens: (..., D), any float dtype.
    """
    wide = tokens.float()
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    direction: Tensor = wide / norm.masked_fill(norm < NORM_FLOOR, torch.inf)
    return direction


def check_finite(tokens: Tensor) -> None:
    """`check_all_finite` of the tokens of frames (T, ..., D)."""
    check_all_finite({"tokens of frames": tokens})


def check_all_finite(named: Mapping[str, Tensor]) -> None:
    """Refuse tensors with NaN or infinity before they spread (one pass each, one synchronisation in all).

    Args:
        named: tensors (T, ..., D) by what their first dimension counts, for the message.

    Raises:
        ShapeError: some entry is not finite; the message says which.
    """
    # Sums accumulate in float32; asking for that dtype makes the CPU copy all tokens, so only float16, whose range
    # they would leave, does.
    sums = {
        name: one.detach().sum(dim=-1, dtype=torch.float32 if one.dtype == torch.float16 else None)
        for name, one in named.items()
    }
    largest = [torch.linalg.vector_norm(one, ord=math.inf) for one in sums.values()]
    worst = largest[0] if len(largest) == 1 else torch.stack([one.float() for one in largest]).sum()
    if math.isfinite(float(worst)):
        return
    for name, one in sums.items():
        bad = (~torch.isfinite(one)).reshape(one.shape[0], -1).any(dim=1).nonzero().squeeze(1).tolist()
        if bad:
            raise ShapeError(f"{name} {bad[:10]} hold NaN or infinity, or overflow float32; nothing was merged")
