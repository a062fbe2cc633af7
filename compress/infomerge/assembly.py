"""Assembly of InfoMerge's plan from its decisions: which tokens leave, and what each is the mean of."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.infomerge.dtm import Assignments
from compress.ops.transfer import concatenated, on_device, on_device_together
from compress.plan import MergePlan

KINDS = ("salient", "substituted", "context")


@dataclass(frozen=True, kw_only=True)
class PositionMeans:
    """Positions that the mean over their segment stands for.

    Attributes:
        segment: int64 (R,), ascending.
        position: int64 (R,), ascending within a segment.
        bounds: int64 (K + 1,), where the entries of each segment begin.
        table: int64 (K, N), index of a position's mean, or -1.
    """

    segment: NDArray[np.int64]
    position: NDArray[np.int64]
    bounds: NDArray[np.int64]
    table: NDArray[np.int64]

    @staticmethod
    def of(replaced: NDArray[np.bool_], bounds: NDArray[np.int64]) -> PositionMeans:
        """List the positions that any token in ``replaced`` (L, N) needs."""
        needed = np.logical_or.reduceat(replaced, bounds[:-1], axis=0)
        segment, position = np.nonzero(needed)
        table = np.full(needed.shape, -1)
        table[segment, position] = np.arange(len(segment))
        return PositionMeans(
            segment=segment,
            position=position,
            bounds=np.searchsorted(segment, np.arange(len(needed) + 1)),
            table=table,
        )

    def members(
        self, index: NDArray[np.int64], bounds: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """List the tokens that means average: for each of ``index`` its place and the flat token, one per frame."""
        segment = self.segment[index]
        length = np.diff(bounds)[segment]
        place = np.repeat(np.arange(len(index)), length)
        local = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
        frame = bounds[segment][place] + local
        return place, frame * self.table.shape[1] + self.position[index][place]

    def features(self, tokens: Tensor, bounds: NDArray[np.int64]) -> Tensor:
        """Compute the means (eq. 29), float32 (R, D), always of the original tokens (L, N, D)."""
        if not len(self.segment):
            return tokens.new_zeros((0, tokens.shape[2]), dtype=torch.float32)
        _, member = self.members(np.arange(len(self.segment)), bounds)
        length = on_device(np.diff(bounds)[self.segment], tokens.device)
        wide = tokens.flatten(0, 1).index_select(0, on_device(member, tokens.device)).float()
        return torch.segment_reduce(wide, "mean", lengths=length, axis=0, unsafe=True)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Tokens that anchors take in; entries of the plan whose row only the device knows.

    Attributes:
        slot: int64 (n,), place of each pair of token and group of anchors in `Assignments.anchor`.
        count: int64 (n,), tokens that the pair stands for: those replaced at one position go together.
        pair: int64 (e,), the pair of each entry.
        column: int64 (e,), flat token of each entry.
        share: float64 (e,), tokens that the entry stands for.
    """

    slot: NDArray[np.int64]
    count: NDArray[np.int64]
    pair: NDArray[np.int64]
    column: NDArray[np.int64]
    share: NDArray[np.float64]


def collect_pool(
    pool: NDArray[np.bool_],
    replaced: NDArray[np.bool_],
    own: list[NDArray[np.bool_]],
    assignments: Assignments,
    means: PositionMeans,
    bounds: NDArray[np.int64],
) -> Pool:
    """Collect all tokens that join an anchor, once per group of anchors of their segment.

    Args:
        pool: bool (L, N), tokens that ATS did not take.
        replaced: bool (L, N), those that a mean stands for.
        own: for each segment bool (groups, P_k * N), tokens that a group leaves out, its own anchors.
        assignments: from `assign_tokens`.
        means: from `PositionMeans.of`.
        bounds: int64 (K + 1,), where segments begin.
    """
    per_frame = pool.shape[1]
    plain_slots, plain_columns, mean_slots, mean_indices, mean_counts = [], [], [], [], []
    for k, (start, stop) in enumerate(itertools.pairwise(bounds)):
        groups = len(own[k])
        if not groups:
            continue
        stride = int(assignments.stride[k])
        joins = pool[start:stop].ravel() & ~own[k]
        stands = replaced[start:stop].ravel()
        group, token = np.nonzero(joins & ~stands)
        plain_slots.append(int(assignments.tokens[k]) + token * stride + group)
        plain_columns.append(start * per_frame + token)
        positions = means.position[means.bounds[k] : means.bounds[k + 1]]
        count = (joins & stands).reshape(groups, stop - start, per_frame).sum(axis=1)[:, positions]
        group, mean = np.nonzero(count)
        mean_slots.append(int(assignments.means[k]) + mean * stride + group)
        mean_indices.append(means.bounds[k] + mean)
        mean_counts.append(count[group, mean])
    plain_slot, plain_column = concatenated(plain_slots), concatenated(plain_columns)
    mean_slot, mean_index, mean_count = (concatenated(x) for x in (mean_slots, mean_indices, mean_counts))
    place, member = means.members(mean_index, bounds)
    length = np.diff(bounds)[means.segment[mean_index]]
    return Pool(
        slot=np.concatenate((plain_slot, mean_slot)),
        count=np.concatenate((np.ones_like(plain_slot), mean_count)),
        pair=np.concatenate((np.arange(len(plain_slot)), len(plain_slot) + place)),
        column=np.concatenate((plain_column, member)),
        share=np.concatenate((np.ones(len(plain_slot)), (mean_count / length)[place])),
    )


def assemble(
    salient: NDArray[np.bool_],
    substituted: NDArray[np.bool_],
    salient_means: PositionMeans,
    anchors: NDArray[np.int64],
    anchor_means: NDArray[np.int64],
    means: PositionMeans,
    pool: Pool,
    assignments: Assignments,
    bounds: NDArray[np.int64],
    *,
    mu: float,
    device: torch.device,
) -> tuple[MergePlan, NDArray[np.uint8]]:
    """Build the plan, in order of flat index, and the kind of each token that leaves (index into `KINDS`).

    Args:
        salient: bool (L, N), tokens taken by ATS.
        substituted: bool (L, N), those of them that leave as the mean of their position.
        salient_means: the means of the substituted ones.
        anchors: int64 (B,), flat indices of the anchors, ascending.
        anchor_means: int64 (B,), the mean in ``means`` that stands for an anchor, or -1.
        means: means that DTM works with.
        pool: what joins the anchors.
        assignments: which anchor it joins.
        bounds: int64 (K + 1,), where segments begin.
        mu: weight of an anchor that takes tokens in (eq. 34).
        device: where the tokens are.
    """
    per_frame = salient.shape[1]
    flat = np.flatnonzero(salient)
    keep = np.sort(np.concatenate((flat, anchors)))
    kind = np.full(len(keep), KINDS.index("context"), np.uint8)
    replaced = substituted.ravel()[flat]
    kind[np.searchsorted(keep, flat)] = replaced

    as_is, as_mean = flat[~replaced], flat[replaced]
    segment = np.searchsorted(bounds, as_mean // per_frame, side="right") - 1
    mean = salient_means.table[segment, as_mean % per_frame]
    place, member = salient_means.members(mean, bounds)
    length = np.diff(bounds)[segment]
    fixed_row = np.searchsorted(keep, np.concatenate((as_is, as_mean[place])))
    fixed_column = np.concatenate((as_is, member))
    fixed_weight = np.concatenate((np.ones(len(as_is)), (1 / length)[place]))

    plain = np.flatnonzero(anchor_means < 0)
    merged = np.flatnonzero(anchor_means >= 0)
    place, member = means.members(anchor_means[merged], bounds)
    length = np.diff(bounds)[means.segment[anchor_means[merged]]]
    self_anchor = np.concatenate((plain, merged[place]))
    self_column = np.concatenate((anchors[plain], member))
    self_share = np.concatenate((np.ones(len(plain)), (1 / length)[place]))

    # What the host knows is moved to the device in two transfers.
    row_of_anchor = np.searchsorted(keep, anchors)
    known_row = np.concatenate((fixed_row, row_of_anchor[self_anchor]))
    known_column = np.concatenate((fixed_column, self_column, pool.column))
    keep_there, row_of_anchor_there, known_row_there, column, self_there, slot, count, pair = on_device_together(
        keep, row_of_anchor, known_row, known_column, self_anchor, pool.slot, pool.count, pool.pair, device=device
    )
    fixed, own, others = on_device_together(
        fixed_weight.astype(np.float32),
        self_share.astype(np.float32),
        (pool.share * (1 - mu)).astype(np.float32),
        device=device,
    )
    joined = assignments.anchor[slot]
    taken = torch.zeros(len(anchors), dtype=torch.int64, device=device).index_add_(0, joined, count)
    # An anchor that takes nothing in keeps all its weight.
    own = own * (1 - (1 - mu) * taken.clamp(max=1).float())[self_there]
    entry_anchor = joined[pair]
    others = others / taken[entry_anchor]
    plan = MergePlan.from_entries(
        torch.cat((known_row_there, row_of_anchor_there[entry_anchor])),
        column,
        torch.cat((fixed, own, others)),
        keep=keep_there,
        count_in=salient.size,
    )
    return plan, kind
