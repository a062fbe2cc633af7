"""Unified STTC: one pool of attended tokens unlike each other, refilled with clusters of the rest (CVPR 2026).

From summaries, unverified: no code is published and the paper was not read. What the summaries leave open is a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compress.baselines.baseline import Baseline, Choice, saliency_of, saliency_source
from compress.budget import round_half_up
from compress.ops.density_peaks import cluster_by_peaks
from compress.ops.similarity import unit
from compress.plan import MergePlan
from compress.stage import Signals

KINDS = ("retained", "refilled")

BLOCK = 512
"""Candidates that are compared with the pool at a time."""


@dataclass(frozen=True, kw_only=True)
class UnifiedSTTC(Baseline):
    """Global retention pool by attention and dissimilarity, and density-peak clusters of what it leaves.

    Candidates of all frames come in order of their contribution, the attention that they receive. One enters the pool
    if its cosine to every token of the pool is below tau, until the pool holds the share 1 - cluster_share of the
    budget. The rest of the budget is clusters of the recycled tokens, each the mean of its tokens at its centre. The
    result is in the order of frames and places.

    Attributes:
        tau: similarity from which on a candidate is rejected.
        cluster_share: share of the budget that is clusters.
        k: neighbours of a density. *Not in the summaries.*
        recycle: clusters are made of all ``unselected`` tokens, or of ``rejected`` candidates only, as far as they
            suffice. *The summaries suggest the first.*
        exhausted: if too few candidates pass, the pool is filled by ``contribution``, or left short in favour of more
            ``clusters``. *Not in the summaries.*
        distance: of the clustering, Euclidean over the root of the width (``scaled``) or ``plain``. *Not in the
            summaries.*
    """

    tau: float = 0.7
    cluster_share: float = 0.3
    k: int = 7
    recycle: Literal["unselected", "rejected"] = "unselected"
    exhausted: Literal["contribution", "clusters"] = "contribution"
    distance: Literal["scaled", "plain"] = "scaled"
    name: ClassVar[str] = "unified-sttc"
    reads: ClassVar[tuple[str, ...]] = ("saliency",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("tau", -1, 1.0001), ("cluster_share", 0, 1), ("k", 1, 2**31)):
            self._check_range(name, low, high)
        self._check_choice("recycle", ("unselected", "rejected"))
        self._check_choice("exhausted", ("contribution", "clusters"))
        self._check_choice("distance", ("scaled", "plain"))

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        flat = tokens.flatten(0, 1)
        device = flat.device
        order = saliency_of(tokens, signals).flatten().sort(descending=True, stable=True).indices
        wanted = count - round_half_up(count * self.cluster_share)
        taken, looked = select_dissimilar(flat, order, tau=self.tau, count=wanted)
        if self.exhausted == "contribution":
            free = (~taken)[order].nonzero().squeeze(1)[: wanted - int(taken.sum())]
            taken = taken.index_fill(0, order[free], True)
        pool = taken.nonzero().squeeze(1)
        clusters = count - len(pool)
        recycled = ~taken
        if self.recycle == "rejected":
            recycled = recycled & looked
            missing = clusters - int(recycled.sum())
            if missing > 0:
                free = (~taken & ~recycled)[order].nonzero().squeeze(1)[:missing]
                recycled = recycled.index_fill(0, order[free], True)
        rest = recycled.nonzero().squeeze(1)
        anchor, member, weight = [pool], [pool], [torch.ones(len(pool), dtype=torch.float32, device=device)]
        if clusters:
            features = flat[rest].float()
            if self.distance == "plain":  # clustering divides by the root of the width
                features = features * flat.shape[1] ** 0.5
            centres, nearest = cluster_by_peaks(features, clusters, neighbours=self.k)
            size = torch.zeros(clusters, dtype=torch.float32, device=device)
            size.index_add_(0, nearest, torch.ones_like(nearest, dtype=torch.float32))
            anchor.append(rest[centres[nearest]])
            member.append(rest)
            weight.append(1 / size[nearest])
        of, col, share = torch.cat(anchor), torch.cat(member), torch.cat(weight)
        keep = of[of == col].sort().values  # every anchor is among its own members
        plan = MergePlan.from_entries(torch.searchsorted(keep, of), col, share, keep=keep, count_in=len(flat))
        return Choice(
            plan=plan,
            kind=(~taken[keep]).to(torch.uint8),
            kinds=KINDS,
            sources={"saliency": saliency_source(signals)},
            diagnostics={"pool": float(len(pool))},
        )


def select_dissimilar(tokens: Tensor, order: Tensor, *, tau: float, count: int) -> tuple[Tensor, Tensor]:
    """Take candidates in order, each if its cosine to every token taken before it is below tau, until there are enough.

    Blocks of candidates are compared with the pool at once. Within a block, rounds take those that no earlier open
    candidate resembles and reject what resembles them, which gives the same tokens as one candidate after the other.

    Args:
        tokens: (V, D).
        order: int64 (V,), the candidates.
        tau: see above.
        count: tokens to take.

    Returns:
        bool (V,), the tokens that are taken; and those that were looked at.
    """
    taken = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    looked = torch.zeros_like(taken)
    pool = unit(tokens[:0])
    for start in range(0, len(order), BLOCK):
        if len(pool) >= count:
            break
        candidate = order[start : start + BLOCK]
        direction = unit(tokens[candidate])
        is_open = torch.ones(len(candidate), dtype=torch.bool, device=tokens.device)
        if len(pool):
            is_open = (direction @ pool.T).amax(dim=1) < tau
        alike = (direction @ direction.T >= tau).tril(-1)  # [later, earlier]
        chosen = torch.zeros_like(is_open)
        while bool(is_open.any()):
            new = is_open & ~(alike & is_open).any(dim=1)
            chosen |= new
            is_open &= ~new & ~(alike & new).any(dim=1)
        chosen &= chosen.cumsum(0) <= count - len(pool)
        pool = torch.cat((pool, direction[chosen]))
        taken[candidate[chosen]] = True
        last = int(chosen.nonzero()[-1]) + 1 if len(pool) == count else len(candidate)
        looked[candidate[:last]] = True
    return taken, looked
