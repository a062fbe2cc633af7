"""Output tokens in the order in which released code emits them: unsorted, perhaps repeated, perhaps not averages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.plan import MergePlan


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Output tokens, each a weighted sum of input tokens.

    Attributes:
        keep: int64 (V',), the input token whose place each output token takes; any order, repeats allowed.
        row: int64 (nnz,), output token of each entry.
        col: int64 (nnz,), input token of each entry.
        weight: float32 (nnz,).
        count_in: V.
        stochastic: whether the weights of every output token sum to 1.
    """

    keep: Tensor
    row: Tensor
    col: Tensor
    weight: Tensor
    count_in: int
    stochastic: bool = True

    @staticmethod
    def selection(keep: Tensor, *, count_in: int) -> Rows:
        """Select tokens as they are."""
        row = torch.arange(keep.numel(), device=keep.device)
        weight = torch.ones(keep.numel(), dtype=torch.float32, device=keep.device)
        return Rows(keep=keep, row=row, col=keep, weight=weight, count_in=count_in)

    @staticmethod
    def joined(parts: list[Rows], *, count_in: int) -> Rows:
        """Join the rows of several parts, one after the other."""
        start = np.cumsum([0, *(part.keep.numel() for part in parts)])
        return Rows(
            keep=torch.cat([part.keep for part in parts]),
            row=torch.cat([part.row + int(offset) for part, offset in zip(parts, start[:-1], strict=True)]),
            col=torch.cat([part.col for part in parts]),
            weight=torch.cat([part.weight for part in parts]),
            count_in=count_in,
            stochastic=all(part.stochastic for part in parts),
        )

    def moved(self, offset: int, *, count_in: int) -> Rows:
        """Let the rows be over tokens that begin ``offset`` later, of ``count_in`` in all."""
        return Rows(
            keep=self.keep + offset,
            row=self.row,
            col=self.col + offset,
            weight=self.weight,
            count_in=count_in,
            stochastic=self.stochastic,
        )

    def ordered(self, order: Tensor) -> Rows:
        """Reorder the rows."""
        place = torch.empty_like(order)
        place[order] = torch.arange(order.numel(), device=order.device)
        return Rows(
            keep=self.keep[order],
            row=place[self.row],
            col=self.col,
            weight=self.weight,
            count_in=self.count_in,
            stochastic=self.stochastic,
        )

    def values(self, tokens: Tensor) -> Tensor:
        """Compute the output tokens, float32 (V', D), of tokens (V, D)."""
        out = tokens.new_zeros((self.keep.numel(), tokens.shape[1]), dtype=torch.float32)
        return out.index_add_(0, self.row, tokens[self.col].float() * self.weight[:, None])

    def plan(self) -> tuple[MergePlan, int]:
        """Build the plan with the rows in order of place; of repeated places the first row stays.

        Returns:
            The plan, and how many repeated rows it leaves out.
        """
        keep = self.keep.cpu().numpy()
        unique, first = np.unique(keep, return_index=True)
        place = np.full(keep.size, -1)
        place[first] = np.arange(unique.size)
        where = torch.from_numpy(place).to(self.row.device)[self.row]
        stays = where >= 0
        plan = MergePlan.from_entries(
            where[stays],
            self.col[stays],
            self.weight[stays],
            keep=torch.from_numpy(unique).to(self.keep.device),
            count_in=self.count_in,
            stochastic=self.stochastic,
        )
        return plan, int(keep.size - unique.size)
