"""Cosine similarity in float32, whatever the dtype of the tokens."""

from __future__ import annotations

import math

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


def check_finite(tokens: Tensor, *, name: str = "tokens of frames") -> None:
    """Refuse tokens with NaN or infinity before they spread (one pass, one synchronisation).

    Args:
        tokens: (T, ..., D).
        name: what the first dimension counts, for the message.

    Raises:
        ShapeError: some token is not finite; the message says which.
    """
    # Sums accumulate in float32; asking for that dtype makes the CPU copy all tokens, so only float16, whose range
    # they would leave, does.
    sums = tokens.sum(dim=-1, dtype=torch.float32 if tokens.dtype == torch.float16 else None)
    if not math.isfinite(float(torch.linalg.vector_norm(sums.detach(), ord=math.inf))):
        bad = (~torch.isfinite(sums)).reshape(tokens.shape[0], -1).any(dim=1).nonzero().squeeze(1).tolist()
        raise ShapeError(f"{name} {bad[:10]} hold NaN or infinity, or overflow float32; nothing was merged")
