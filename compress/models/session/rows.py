"""Rows of a batch, shortened to different lengths and padded on the left again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.errors import ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSelection:
    """Selection of the places of each row that stay.

    Attributes:
        index: int64 (B, L), places in the row, 0 where ``real`` is False.
        real: bool (B, L), False for padding, which comes first; None where there is none.
    """

    index: Tensor
    real: Tensor | None

    @staticmethod
    def of(kept: Sequence[Tensor]) -> RowSelection:
        """Select the places that stay in each row, int64, ascending."""
        longest = max(map(len, kept))
        if all(len(row) == longest for row in kept):
            return RowSelection(index=torch.stack(tuple(kept)), real=None)
        index = torch.zeros(len(kept), longest, dtype=torch.int64, device=kept[0].device)
        real = torch.zeros_like(index, dtype=torch.bool)
        for row, places in enumerate(kept):
            index[row, longest - len(places) :] = places
            real[row, longest - len(places) :] = True
        return RowSelection(index=index, real=real)

    @property
    def length(self) -> int:
        """L."""
        return self.index.shape[1]

    def take(self, values: Tensor) -> Tensor:
        """Take (B, S, ...) -> (B, L, ...), zero where padded; a batch of one stands for any."""
        if self.real is None and len(self.index) == 1:
            return values.index_select(1, self.index[0])
        if values.shape[0] == 1 < len(self.index):
            values = values.expand(len(self.index), *values.shape[1:])
        row = torch.arange(len(self.index), device=values.device)[:, None]
        taken = values[row, self.index]
        if self.real is not None:
            taken = taken.masked_fill(~self.real.view(*self.real.shape, *[1] * (taken.dim() - 2)), 0)
        return taken


def places_of(mask: Tensor, count: int) -> Tensor:
    """Find the ``count`` True entries of a mask (n,), int64, ascending: `nonzero` without a synchronisation."""
    return mask.to(torch.uint8).sort(descending=True, stable=True).indices[:count]


def real_places(mask: Tensor | None, *, rows: int, width: int, device: torch.device) -> list[Tensor]:
    """Find the places of each row that are not padding, int64; costs one synchronisation.

    Args:
        mask: (B, S), 0 for padding; None without any.
        rows: B.
        width: S.
        device: of the result.

    Raises:
        ConfigError: padding follows a token.
    """
    everything = torch.arange(width, device=device)
    if mask is None:
        return [everything] * rows
    padded = mask.cpu().numpy() == 0
    starts = padded.sum(axis=1)
    if (padded != (np.arange(width) < starts[:, None])).any():
        raise ConfigError("the prompts are padded on the right; pad on the left (padding_side='left')")
    return [everything[start:] for start in starts.tolist()]
