"""DivPrune: the subset whose closest two tokens are farthest apart, greedily (CVPR 2025).

Written from the paper's description; its code is CC BY-NC 4.0 and was not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.baselines.baseline import Choice, Published
from compress.baselines.rows import Rows
from compress.ops.similarity import unit
from compress.plan import MergePlan
from compress.stage import Signals

LARGEST_MATRIX = 2**27
"""Distances that are held at a time: 512 MB. For more tokens they are computed as they are needed."""

TILE_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class DivPrune(Published):
    """Greedy max-min diversity by cosine distance over all tokens of the video.

    The first token is the one whose nearest neighbour is farthest; each further one is the farthest from those that are
    already chosen. Chosen tokens are set aside; the released code leaves them in, so that it repeats tokens once only
    duplicates are left.
    """

    retention: float = 0.098
    name: ClassVar[str] = "divprune"

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        picked = _pick(unit(tokens).flatten(0, 1), count, repeat=False)
        plan = MergePlan.selection(picked.sort().values, count_in=tokens.shape[0] * tokens.shape[1])
        return Choice(plan=plan)

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`."""
        flat = tokens.float().flatten(0, 1)
        picked = _pick(flat / flat.norm(dim=1, keepdim=True), max(1, int(self.retention * len(flat))), repeat=True)
        return Rows.selection(picked.sort().values, count_in=len(flat))


def _pick(direction: Tensor, count: int, *, repeat: bool) -> Tensor:
    """Pick tokens, int64 (count,), in the order in which they are chosen (ties: lower index).

    Args:
        direction: float32 (V, D), unit rows.
        count: at least 1.
        repeat: leave chosen tokens among the candidates.
    """
    total = len(direction)
    matrix = direction.new_empty((total, total)) if total * total <= LARGEST_MATRIX else None
    nearest = direction.new_full((total,), torch.inf)
    for start in range(0, total, TILE_ROWS):
        rows = slice(start, min(start + TILE_ROWS, total))
        # The matrix is symmetric: a tile right of the diagonal also is one below it.
        distance = 1 - direction[rows] @ direction[start:].T
        if matrix is not None:
            matrix[rows, start:] = distance
            matrix[start:, rows] = distance.T
        distance.diagonal().fill_(torch.inf)
        nearest[rows] = torch.minimum(nearest[rows], distance.amin(dim=1))
        nearest[start:] = torch.minimum(nearest[start:], distance.amin(dim=0))
    picked = torch.empty(count, dtype=torch.int64, device=direction.device)
    picked[0] = nearest.argmax()
    closest = torch.full_like(nearest, torch.inf)
    for i in range(1, count):
        last = picked[i - 1 : i]
        if matrix is not None:
            distance = matrix.index_select(0, last)[0]
        else:
            distance = 1 - direction @ direction.index_select(0, last)[0]
        torch.minimum(closest, distance, out=closest)
        if not repeat:
            closest.index_fill_(0, last, -torch.inf)
        picked[i] = closest.argmax()
    return picked
