"""Bipartite soft matching: alternate tokens form two sets, and the best edges between them merge (ToMe, ICLR 2023).

Written from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.ops.similarity import unit

TILE = 2**24
"""Similarities held at a time: 64 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """Merges of B sequences of n tokens, r of each.

    Attributes:
        source: int64 (B, r), the tokens that merge away, most similar first.
        target: int64 (B, r), the token that each of them joins.
        stays: int64 (B, n - r), the tokens that stay: those of the first set, then all of the second.
    """

    source: Tensor
    target: Tensor
    stays: Tensor

    def groups(self) -> Tensor:
        """Return for each of the n tokens its place among those that stay, int64 (B, n)."""
        count = self.stays.shape[1] + self.source.shape[1]
        place = torch.empty((len(self.stays), count), dtype=torch.int64, device=self.stays.device)
        place.scatter_(1, self.stays, torch.arange(self.stays.shape[1], device=place.device).expand_as(self.stays))
        return place.scatter_(1, self.source, place.gather(1, self.target))


def match_halves(metric: Tensor, count: int, *, in_order: bool = False, protected: bool = False) -> Matching:
    """Match the first, third, fifth ... token to the most similar of the others, and take the best edges.

    Equal similarities go to the lower index, of the target as of the source.

    Args:
        metric: (B, n, C), whose cosine is the similarity.
        count: r, at most half of the tokens; more is cut.
        in_order: the first set stays in the order of its tokens, in place of falling similarity.
        protected: the first token never merges.
    """
    batch, tokens, _ = metric.shape
    merged = max(0, min(count, (tokens - protected) // 2))
    device = metric.device
    first, second = torch.arange(0, tokens, 2, device=device), torch.arange(1, tokens, 2, device=device)
    if not merged:
        nothing = torch.zeros((batch, 0), dtype=torch.int64, device=device)
        stays = torch.arange(tokens, device=device) if in_order else torch.cat((first, second))
        return Matching(source=nothing, target=nothing, stays=stays.expand(batch, -1))
    direction = unit(metric)
    best, partner = _best_partners(direction[:, ::2], direction[:, 1::2])
    if protected:
        best[:, 0] = -torch.inf
    order = best.sort(dim=1, descending=True, stable=True).indices
    source, rest = order[:, :merged], order[:, merged:]
    target = partner.gather(1, source)
    if in_order:
        rest = rest.sort(dim=1).values
    stays = torch.cat((first[rest], second.expand(batch, -1)), dim=1)
    return Matching(source=first[source], target=second[target], stays=stays)


def _best_partners(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest cosine of each row of a and its first place in b, each (B, n)."""
    if a.device.type == "cpu" and len(a) > 1:  # the similarities of one sequence at a time stay in the cache
        each = [_best_partners(one[None], other[None]) for one, other in zip(a, b, strict=True)]
        return torch.cat([values for values, _ in each]), torch.cat([indices for _, indices in each])
    step = max(1, TILE // (len(a) * b.shape[1]))
    found = [(part @ b.mT).max(dim=2) for part in torch.split(a, step, dim=1)]
    return torch.cat([one.values for one in found], dim=1), torch.cat([one.indices for one in found], dim=1)
