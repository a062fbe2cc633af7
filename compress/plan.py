"""Merge plans: which tokens stay, and which tokens each of them is the weighted mean of.

A plan is a sparse row-stochastic matrix in CSR form from V input tokens to V' output tokens. Selection,
merging, folding, substitution and pooling are all such matrices, and plans compose by multiplication. The released code
of some published methods adds where it should average; plans that reproduce it have rows of other sums and say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ShapeError
from compress.ops.transfer import moved

ROW_SUM_TOLERANCE = 1e-4
"""How far the weights of an output token may be from summing to one (float32 sums of many small weights)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MergePlan:
    """A row-stochastic CSR matrix (V', V): output token i is ``sum(weight[e] * token[col[e]])`` over its row.

    Structure (shapes, dtypes, one device) is always checked. Values are checked on construction where they
    can be read for free, on the CPU; on an accelerator that would stall its queue, so there `check` does it
    on demand.

    Attributes:
        keep: int64 (V',), sorted and unique: the anchors, the input tokens that lend position and place.
        crow: int64 (V' + 1,), row i holds the entries ``crow[i]:crow[i + 1]``, at least one.
        col: int64 (nnz,), input token of each entry, ascending within a row; a repeated one adds up.
        weight: float32 (nnz,), at least 0; each row sums to 1.
        count_in: V, the number of input tokens.
        stochastic: False for a plan whose rows need not sum to 1.

    Raises:
        ShapeError: the arrays do not form such a matrix.
    """

    keep: Tensor
    crow: Tensor
    col: Tensor
    weight: Tensor
    count_in: int
    stochastic: bool = True

    def __post_init__(self) -> None:
        for name, dtype in (
            ("keep", torch.int64),
            ("crow", torch.int64),
            ("col", torch.int64),
            ("weight", torch.float32),
        ):
            array: Tensor = getattr(self, name)
            if array.dim() != 1 or array.dtype != dtype:
                raise ShapeError(
                    f"{name} has shape {tuple(array.shape)} and dtype {array.dtype}; "
                    f"a plan takes one dimension of {dtype}"
                )
            if array.device != self.keep.device:
                raise ShapeError(f"{name} is on {array.device}, keep on {self.keep.device}; use one device")
        if self.crow.numel() != self.keep.numel() + 1:
            raise ShapeError(f"crow has {self.crow.numel()} entries; {self.keep.numel()} output tokens take one more")
        if self.col.numel() != self.weight.numel():
            raise ShapeError(f"col has {self.col.numel()} entries and weight {self.weight.numel()}; they must agree")
        if self.keep.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Check the values too (costs a synchronisation on an accelerator).

        Raises:
            ShapeError: an index is out of range or out of order, a row is empty or does not sum to 1.
        """
        # In NumPy: on a busy CPU PyTorch's threads wait for each other, which takes a hundred times as long.
        keep, crow, col, weight = (
            array.detach().cpu().numpy() for array in (self.keep, self.crow, self.col, self.weight)
        )
        if keep.size and not (keep[0] >= 0 and keep[-1] < self.count_in):
            raise ShapeError(f"keep lies in [{keep[0]}, {keep[-1]}]; allowed is [0, {self.count_in})")
        if (np.diff(keep) <= 0).any():
            raise ShapeError("keep must be sorted and unique")
        if crow[0] != 0 or crow[-1] != col.size or (np.diff(crow) < 1).any():
            raise ShapeError(f"crow must rise from 0 to {col.size} by at least 1 per output token; no row is empty")
        if not col.size:
            return
        if col.min() < 0 or col.max() >= self.count_in:
            raise ShapeError(f"col lies in [{col.min()}, {col.max()}]; allowed is [0, {self.count_in})")
        inside_row = np.ones(col.size - 1, dtype=bool)
        inside_row[crow[1:-1] - 1] = False
        if ((np.diff(col) < 0) & inside_row).any():
            raise ShapeError("col must ascend within each row")
        if not (weight >= 0).all():
            raise ShapeError("weight must be at least 0 and not NaN")
        if not self.stochastic:
            if not np.isfinite(weight).all():
                raise ShapeError("weight must be finite")
            return
        sums = np.add.reduceat(weight, crow[:-1], dtype=np.float64)
        worst = float(np.abs(sums - 1).max())
        if not worst <= ROW_SUM_TOLERANCE:
            raise ShapeError(f"the weights of each output token must sum to 1; one is off by {worst:.3g}")

    @staticmethod
    def identity(count: int, *, device: torch.device | str | None = None) -> MergePlan:
        """Return the plan that leaves ``count`` tokens as they are."""
        return MergePlan.selection(torch.arange(count, device=device), count_in=count)

    @staticmethod
    def selection(keep: Tensor, *, count_in: int) -> MergePlan:
        """Return the plan that keeps tokens and drops the others.

        Args:
            keep: int64 (V',), sorted and unique.
            count_in: V.
        """
        crow = torch.arange(keep.numel() + 1, device=keep.device)
        weight = torch.ones(keep.numel(), dtype=torch.float32, device=keep.device)
        return MergePlan(keep=keep, crow=crow, col=keep, weight=weight, count_in=count_in)

    @staticmethod
    def from_groups(groups: NDArray[np.int64], *, keep: NDArray[np.int64]) -> MergePlan:
        """Return the plan, on the host, that averages groups of tokens.

        Args:
            groups: int64 (V,), the output token that each input token joins, or -1 for a token that is
                dropped.
            keep: int64 (V',), the anchor of each output token.

        Returns:
            A plan whose row i is the plain mean of the tokens with ``groups == i``.
        """
        dropped = np.count_nonzero(groups < 0)
        col = np.argsort(groups, kind="stable")[dropped:]
        row = groups[col]
        size = np.bincount(row, minlength=keep.size)
        plan = MergePlan(
            keep=torch.from_numpy(keep),
            crow=torch.from_numpy(np.concatenate(([0], np.cumsum(size)))),
            col=torch.from_numpy(col),
            weight=torch.from_numpy((1 / size[row]).astype(np.float32)),
            count_in=groups.size,
        )
        vars(plan)["assign"] = torch.from_numpy(groups)  # what the property would find: no token has two entries
        return plan

    @staticmethod
    def from_anchors(anchor: NDArray[np.int64]) -> MergePlan:
        """Return the plan, on the host, that averages the tokens of each anchor at its place.

        Args:
            anchor: int64 (V,), the token that each one joins; an anchor joins itself.
        """
        stays = anchor == np.arange(anchor.size)
        return MergePlan.from_groups((np.cumsum(stays) - 1)[anchor], keep=np.flatnonzero(stays))

    @staticmethod
    def from_entries(
        row: Tensor, col: Tensor, weight: Tensor, *, keep: Tensor, count_in: int, stochastic: bool = True
    ) -> MergePlan:
        """Build the plan with the given matrix entries, in any order; needs no synchronisation.

        Args:
            row: int64 (nnz,), output token of each entry.
            col: int64 (nnz,), input token of each entry.
            weight: float32 (nnz,).
            keep: int64 (V',), the anchor of each output token.
            count_in: V.
            stochastic: whether rows sum to 1.
        """
        place, order = torch.sort(row * count_in + col, stable=True)
        step = max(count_in, 1)
        begins = torch.arange(0, (keep.numel() + 1) * step, step, device=keep.device)
        crow = torch.searchsorted(place, begins)
        return MergePlan(
            keep=keep,
            crow=crow,
            col=col[order],
            weight=weight[order].float(),
            count_in=count_in,
            stochastic=stochastic,
        )

    @property
    def count_out(self) -> int:
        """V', the number of output tokens."""
        return self.keep.numel()

    @property
    def retention(self) -> float:
        """The retained fraction V' / V, 1 for no tokens at all."""
        return self.count_out / self.count_in if self.count_in else 1.0

    @property
    def keeps_all(self) -> bool:
        """Whether this is known to be the identity (one made by `identity` or a full `selection`)."""
        return self.col is self.keep and self.count_out == self.count_in

    @cached_property
    def sizes(self) -> Tensor:
        """int64 (V',), how many entries each output token is the mean of."""
        return self.crow.diff()

    @cached_property
    def row(self) -> Tensor:
        """int64 (nnz,), output token of each entry."""
        index = torch.arange(self.count_out, device=self.keep.device)
        return torch.repeat_interleave(index, self.sizes, output_size=self.col.numel())

    @cached_property
    def assign(self) -> Tensor:
        """int64 (V,), the output token that each input token counts most in (ties: the first), or -1 for
        none."""
        entries = self.col.numel()
        if not entries:
            return torch.full((self.count_in,), -1, device=self.keep.device)
        new = torch.ones(entries, dtype=torch.bool, device=self.keep.device)
        new[1:] = (self.col.diff() != 0) | (self.row.diff() != 0)
        run = new.cumsum(0) - 1
        total = torch.zeros(entries, dtype=torch.float64, device=self.keep.device)
        share = total.index_add_(0, run, self.weight.double()).float()[run]
        most = torch.zeros(self.count_in, dtype=torch.float32, device=self.keep.device).scatter_reduce_(
            0, self.col, share, "amax"
        )
        candidate = torch.where((share == most[self.col]) & (share > 0), self.row, self.count_out)
        first = torch.full((self.count_in,), self.count_out, device=self.keep.device)
        first.scatter_reduce_(0, self.col, candidate, "amin")
        return torch.where(first == self.count_out, -1, first)

    @cached_property
    def origin(self) -> Tensor:
        """int64 (V,), `assign` of a plan that drops nothing: where each input token has its value from afterwards.

        Raises:
            ShapeError: the plan drops tokens, so that they have no value.
        """
        dropped = int((self.assign < 0).sum())
        if dropped:
            raise ShapeError(
                f"the plan drops {dropped} of {self.count_in} tokens; only a plan that merges can be undone"
            )
        return self.assign

    def apply(self, tokens: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Shorten tokens: accumulate in float32 (float64 for float64 tokens) and cast back once.

        Args:
            tokens: floating point (V, ...), any float dtype, on the plan's device.
            dtype: of the result; None for that of the tokens.

        Returns:
            Tensor (V', ...).

        Raises:
            ShapeError: the number of tokens is not V, or they are not floating point.
        """
        self._check_length(tokens, self.count_in)
        if not tokens.is_floating_point():
            raise ShapeError(f"tokens are {tokens.dtype}; a weighted mean needs floating point (see `take`)")
        if not self.col.numel() or not tokens.numel():
            return tokens.new_empty((self.count_out, *tokens.shape[1:]), dtype=dtype)
        if self.col is self.keep:  # a selection: nothing is averaged
            return tokens.index_select(0, self.keep).to(dtype or tokens.dtype)
        wide = torch.float64 if tokens.dtype == torch.float64 else torch.float32
        flat = tokens.reshape(self.count_in, -1)
        if self.col.numel() < self.count_in:  # widen only what is read
            flat, col = flat.index_select(0, self.col), torch.arange(self.col.numel(), device=self.col.device)
        else:
            col = self.col
        merged = torch.nn.functional.embedding_bag(
            col, flat.to(wide), self.crow[:-1], mode="sum", per_sample_weights=self.weight.to(wide)
        )
        return merged.to(dtype or tokens.dtype).reshape(self.count_out, *tokens.shape[1:])

    def take(self, values: Tensor, *, dim: int = 0) -> Tensor:
        """Take what the anchors have: position ids, masks, labels; V entries along ``dim`` become V'."""
        self._check_length(values, self.count_in, dim=dim)
        return values.index_select(dim, self.keep)

    def broadcast(self, tokens: Tensor) -> Tensor:
        """Undo the merge: give every input token the value of the output token that it counts most in.

        Args:
            tokens: (V', ...), any dtype.

        Returns:
            Tensor (V, ...).

        Raises:
            ShapeError: the number of tokens is not V', or the plan drops tokens, so that they have no value.
        """
        self._check_length(tokens, self.count_out)
        return tokens.index_select(0, self.origin)

    def compose(self, first: MergePlan) -> MergePlan:
        """Apply this plan to the output of ``first``, also written ``self @ first``.

        Raises:
            ShapeError: ``first`` does not output as many tokens as this plan takes in.
        """
        if first.count_out != self.count_in:
            raise ShapeError(f"the first plan outputs {first.count_out} tokens, the second takes {self.count_in}")
        length = first.sizes[self.col]
        entry = torch.repeat_interleave(torch.arange(self.col.numel(), device=self.col.device), length)
        start = length.cumsum(0) - length
        source = first.crow[self.col[entry]] + torch.arange(entry.numel(), device=entry.device) - start[entry]
        key = self.row[entry] * first.count_in + first.col[source]
        unique, slot = torch.unique(key, return_inverse=True)
        weight = torch.zeros(unique.numel(), dtype=torch.float64, device=key.device)
        weight.index_add_(0, slot, self.weight[entry].double() * first.weight[source].double())
        return MergePlan.from_entries(
            unique // max(first.count_in, 1),
            unique % max(first.count_in, 1),
            weight,
            keep=first.keep[self.keep],
            count_in=first.count_in,
            stochastic=self.stochastic and first.stochastic,
        )

    def __matmul__(self, first: MergePlan) -> MergePlan:
        return self.compose(first)

    def to(self, device: torch.device | str) -> MergePlan:
        """Move the plan to another device."""
        keep = moved(self.keep, device)
        return MergePlan(
            keep=keep,
            crow=moved(self.crow, device),
            col=keep if self.col is self.keep else moved(self.col, device),
            weight=moved(self.weight, device),
            count_in=self.count_in,
            stochastic=self.stochastic,
        )

    def dense(self) -> Tensor:
        """Return the matrix itself, float32 (V', V); for small plans, to look at or to check."""
        matrix = torch.zeros(self.count_out, self.count_in, dtype=torch.float32, device=self.keep.device)
        return matrix.index_put_((self.row, self.col), self.weight, accumulate=True)

    @staticmethod
    def _check_length(values: Tensor, count: int, *, dim: int = 0) -> None:
        if values.dim() == 0 or values.shape[dim] != count:
            raise ShapeError(f"got shape {tuple(values.shape)}; the plan takes {count} tokens along dimension {dim}")
