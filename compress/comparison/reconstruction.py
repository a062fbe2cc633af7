"""Reconstruction of all tokens of a video from those that leave: the share of their variance that is lost.

With x_v the V tokens of the whole video, mu their mean, and y_j the V' tokens that leave, each measure is
``sum_v |x_v - z_v|^2 / sum_v |x_v - mu|^2`` for another z_v:

    assignment   z_v = y_a(v), a(v) the token that v counts most in, or the nearest one where v is dropped
    local        z_v - mu = the best linear combination of y_j - mu over the eight j nearest to x_v
    linear       z_v - mu = the best linear combination of y_j - mu over all j (least squares)

0 is perfect, 1 as good as the mean token. ``linear <= local <= assignment``; ``linear`` is 0 as soon as V' reaches the
rank of the tokens, so that it says something only of tokens that are wider than few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from compress.errors import ShapeError

NEIGHBOURS: Final = 8
"""Tokens of which a local combination is made (Roweis and Saul, Locally linear embedding, 2000, use some ten)."""
RANK_TOLERANCE: Final = 1e-11
"""Eigenvalues of a Gram matrix below this share of the largest, or of the mean square of tokens, are rounding."""
ROUNDING: Final = 1e-9
"""Shares of the variance up to which nothing is lost."""
HELD: Final = 2**23
"""Numbers in a piece of work, at most."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Shares of the variance of all tokens that are lost, see the module."""

    assignment: float
    local: float
    linear: float


def reconstruct(tokens: Tensor, kept: Tensor, assign: Tensor) -> Reconstruction:
    """Measure how well the tokens that leave stand for all.

    Args:
        tokens: (V, D), those of the whole video.
        kept: (V', D), those that leave, at least one.
        assign: int64 (V,), which of them stands for each token, -1 for none.

    Raises:
        ShapeError: sizes do not match, or no token leaves.
    """
    if tokens.dim() != 2 or kept.dim() != 2 or tokens.shape[1] != kept.shape[1] or assign.shape != tokens.shape[:1]:
        raise ShapeError(
            f"tokens have shape {tuple(tokens.shape)}, those that leave {tuple(kept.shape)} and their assignment "
            f"{tuple(assign.shape)}; allowed are (V, D), (V', D) and (V,)"
        )
    if not len(kept):
        raise ShapeError("no token leaves, from which others could be reconstructed; keep at least one")
    mean = tokens.double().mean(dim=0)
    all_tokens, leaving = tokens.double() - mean, kept.double() - mean
    total = float(all_tokens.square().sum())
    nearest = find_nearest(all_tokens, leaving, count=min(NEIGHBOURS, len(kept)))
    chosen = torch.where(assign < 0, nearest[:, 0], assign)
    lost = (
        sum_assigned(all_tokens, leaving, chosen),
        sum_local(all_tokens, leaving, nearest),
        sum_linear(all_tokens, leaving),
    )
    assignment, local, linear = (one / total if one > ROUNDING * total else 0.0 for one in lost)
    return Reconstruction(assignment=assignment, local=local, linear=linear)


def find_nearest(tokens: Tensor, kept: Tensor, *, count: int) -> Tensor:
    """Find the nearest kept tokens by Euclidean distance, int64 (V, count), the nearest first."""
    flat, other = tokens.float(), kept.float()
    length = other.square().sum(dim=1)
    pieces = torch.split(flat, max(1, HELD // len(kept)))
    return torch.cat([(length - 2 * piece @ other.T).topk(count, largest=False).indices for piece in pieces])


def sum_assigned(tokens: Tensor, kept: Tensor, chosen: Tensor) -> float:
    """Return ``sum_v |x_v - y_chosen(v)|^2``."""
    pieces = zip(torch.split(tokens, _rows(tokens)), torch.split(chosen, _rows(tokens)), strict=True)
    return sum(float((piece - kept[place]).square().sum()) for piece, place in pieces)


def sum_local(tokens: Tensor, kept: Tensor, nearest: Tensor) -> float:
    """Return the squared residuals of the tokens after projection onto the span of their nearest ones."""
    lost, typical = 0.0, float(tokens.square().sum(dim=1).mean())
    rows = max(1, _rows(tokens) // nearest.shape[1])
    for piece, place in zip(torch.split(tokens, rows), torch.split(nearest, rows), strict=True):
        basis = kept[place]
        values, vectors = torch.linalg.eigh(basis @ basis.mT)
        along = (vectors.mT @ (basis @ piece[:, :, None]))[:, :, 0].square()
        spans = values > RANK_TOLERANCE * values[:, -1:].clamp(min=typical)
        held = torch.where(spans, along / torch.where(spans, values, 1.0), 0.0).sum(dim=1)
        lost += float((piece.square().sum(dim=1) - held).clamp(min=0).sum())
    return lost


def sum_linear(tokens: Tensor, kept: Tensor) -> float:
    """Return the squared residuals of the tokens after projection onto the span of all that leave."""
    wide = len(kept) >= kept.shape[1]
    values, vectors = torch.linalg.eigh(kept.T @ kept if wide else kept @ kept.T)
    spans = values > RANK_TOLERANCE * values[-1].clamp(min=float(tokens.square().sum(dim=1).mean()))
    basis = vectors[:, spans] if wide else kept.T @ (vectors[:, spans] / values[spans].sqrt())
    return max(0.0, float(tokens.square().sum() - (tokens @ basis).square().sum()))


def _rows(tokens: Tensor) -> int:
    return max(1, HELD // tokens.shape[1])
