"""Values between all pairs of a video's tokens, held where they fit into memory, else computed row by row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_MATRIX = 2**27
"""Values that are held at a time: 512 MB. For more tokens they are computed as they are needed."""

TILE_ROWS = 1024

Between = Callable[[slice | Tensor, int], Tensor]
"""Rows of a symmetric float32 matrix (V, V), by a slice or by int64 indices, from a first column on."""


class Pairwise:
    """A symmetric matrix over tokens, by rows.

    Args:
        between: what computes it.
        total: V.
        device: where it is computed.

    Attributes:
        nearest: float32 (V,), the least value of each token with another one; infinity where it is the only one.
        matrix: float32 (V, V), all values; None where they are computed as they are needed.
    """

    def __init__(self, between: Between, total: int, device: torch.device) -> None:
        self._between = between
        self.matrix = (
            torch.empty((total, total), dtype=torch.float32, device=device) if total * total <= LARGEST_MATRIX else None
        )
        self.nearest = torch.full((total,), torch.inf, dtype=torch.float32, device=device)
        for start in range(0, total, TILE_ROWS):
            rows = slice(start, min(start + TILE_ROWS, total))
            # The matrix is symmetric: a tile right of the diagonal also is one below it.
            values = between(rows, start)
            if self.matrix is not None:
                self.matrix[rows, start:] = values
                self.matrix[start:, rows] = values.T
            values.diagonal().fill_(torch.inf)
            self.nearest[rows] = torch.minimum(self.nearest[rows], values.amin(dim=1))
            self.nearest[start:] = torch.minimum(self.nearest[start:], values.amin(dim=0))

    def row(self, token: Tensor) -> Tensor:
        """Return the values of one token, int64 (1,), with all tokens, float32 (V,)."""
        if self.matrix is not None:
            return self.matrix.index_select(0, token)[0]
        return self._between(token, 0)[0]
