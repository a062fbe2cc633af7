"""Cosine similarity in float32, whatever the dtype of the tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from compress.errors import ShapeError
from compress.ops.transfer import on_device_together

NORM_FLOOR = 1e-12
"""A token of smaller norm has no direction: its similarity to everything is 0."""


def unit(tokens: Tensor) -> Tensor:
    """Scale rows to length one in float32; a row of norm below `NORM_FLOOR` becomes 0.

    Args:
        tokens: (..., D), any float dtype.
    """
    wide = tokens.float()
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    direction: Tensor = wide / norm.masked_fill(norm < NORM_FLOOR, torch.inf)
    return direction


def change_between(tokens: Tensor, frame: Sequence[int], other: Sequence[int]) -> Tensor:
    """Return ``1 - cos`` of tokens at the same place of two frames; exactly 0 for equal tokens.

    Sums of float32 products are divided in float64, where the root of a square is exact.

    Args:
        tokens: (T, N, D), any float dtype.
        frame: the frames that are compared.
        other: the frame that each is compared with.

    Returns:
        float64 (len(frame), N); 1 where a token has no direction.

    Raises:
        ShapeError: a token that is compared is not finite.
    """
    if tokens.device.type == "cpu":  # a pair of frames at a time stays in the cache
        # Sums that are kept between the products of pairs would leave the allocator holes that no product fits into.
        sums = torch.empty((3, len(frame), tokens.shape[1]), dtype=torch.float32)
        for row, (a, b) in enumerate(zip(frame, other, strict=True)):
            sums[0, row], sums[1, row], sums[2, row] = _products(tokens[a].float(), tokens[b].float())
        dot, here, there = (part.double() for part in sums.unbind())
    else:
        first, second = on_device_together(np.asarray(frame), np.asarray(other), device=tokens.device)
        pair = (tokens.index_select(0, index).float() for index in (first, second))
        dot, here, there = (part.double() for part in _products(*pair))
    if not bool(torch.isfinite(here + there).all()):
        raise ShapeError("tokens hold NaN or infinity, or overflow float32; nothing was merged")
    norm = (here * there).sqrt()
    return 1 - dot / norm.masked_fill(norm < NORM_FLOOR**2, torch.inf)


def _products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum a b, a a and b b over the last dimension, all formed alike."""
    return (a * b).sum(dim=-1), (a * a).sum(dim=-1), (b * b).sum(dim=-1)


def check_finite(tokens: Tensor) -> None:
    """Call `check_all_finite` for the tokens of frames (T, ..., D)."""
    check_all_finite({"tokens of frames": tokens})


def check_all_finite(named: Mapping[str, Tensor]) -> None:
    """Refuse tensors with NaN or infinity before they spread (one pass each, one synchronisation in all).

    Args:
        named: tensors (T, ..., D) by what their first dimension counts, for the message.

    Raises:
        ShapeError: some entry is not finite; the message says which.
    """
    sums = {name: _sums(one) for name, one in named.items()}
    largest = [torch.linalg.vector_norm(one, ord=math.inf) for one in sums.values()]
    worst = largest[0] if len(largest) == 1 else torch.stack([one.float() for one in largest]).sum()
    if math.isfinite(float(worst)):
        return
    for name, one in sums.items():
        bad = (~torch.isfinite(one)).reshape(one.shape[0], -1).any(dim=1).nonzero().squeeze(1).tolist()
        if bad:
            raise ShapeError(f"{name} {bad[:10]} hold NaN or infinity, or overflow float32; nothing was merged")


def largest_sum(tokens: Tensor) -> Tensor:
    """Return the largest absolute sum of a token (..., D); where it is not finite, `check_finite` raises."""
    largest: Tensor = torch.linalg.vector_norm(_sums(tokens), ord=math.inf)
    return largest


def _sums(tokens: Tensor) -> Tensor:
    """Sum tokens over their features."""
    # Sums accumulate in float32 anyway. Requesting float32 makes the CPU copy all tokens, so it is requested only for
    # float16, whose range the sums would exceed.
    return tokens.detach().sum(dim=-1, dtype=torch.float32 if tokens.dtype == torch.float16 else None)
