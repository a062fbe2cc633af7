"""Density peaks: tokens that are both crowded and far from anything more crowded (Rodriguez and Laio 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

SAME = 4e-6
"""Squared distances below this share of the squared norms are rounding of a GEMM: the tokens count as equal."""

BLOCK = 1024
"""Tokens from which on a processor multiplies pairs once, in tiles of so many."""

CENTRING = 1e-12
"""The same for what centring leaves of tokens that all agree, as a share of the squared norm of their mean."""


def log_peak_scores(tokens: Tensor, candidate: Tensor, *, neighbours: int) -> Tensor:
    """Score tokens by log density + log distance to the nearest denser token, per frame (InfoMerge, eqs. 31-33).

    Distances are Euclidean over sqrt(D). Everything stays in logarithms: exp underflows float32 beyond a squared
    distance of 87, and only the order counts. Of two equally dense tokens the lower position counts as denser.

    Args:
        tokens: float32 (F, N, D).
        candidate: bool (F, N); the others are not scored and count as no token's neighbour. Each frame has at least
            one.
        neighbours: K_nn, the nearest tokens that a density averages over, the token itself included; clipped to the
            smallest number of candidates, ``candidate.sum(1).min()``, which the caller must not exceed.

    Returns:
        float32 (F, N), -inf where there is no candidate, and for tokens equal to a denser one.
    """
    width = tokens.shape[2]
    member = candidate.float()
    mean = (member[:, None] @ tokens) / member.sum(dim=1)[:, None, None]
    centred = tokens - mean
    power = centred.square().sum(dim=2)
    rounding = CENTRING * mean.square().sum(dim=2)[..., None]
    distance = _doubled_products(centred)
    del centred
    for rows in _row_blocks(distance):
        block = distance[:, rows]
        both = power[:, rows, None] + power[:, None, :]
        block.neg_().add_(both)  # symmetric to the bit: mutual neighbours are equally dense
        equal = block <= both.mul_(SAME).add_(rounding)
        block.div_(width).masked_fill_(equal, 0)
    distance.diagonal(dim1=1, dim2=2).zero_()
    absent = ~candidate
    distance.masked_fill_(absent[:, None, :], torch.inf)

    density = -distance.topk(neighbours, dim=2, largest=False).values.mean(dim=2)
    density = density.masked_fill(absent, -torch.inf)
    order = density.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(tokens.shape[1], device=tokens.device).expand_as(order))
    # The densest token has no denser one; what counts is how far the others are.
    densest = order[:, :1, None].expand(-1, -1, tokens.shape[1])
    farthest = distance.gather(1, densest).masked_fill(absent[:, None, :], 0).amax(dim=2)
    for rows in _row_blocks(distance):
        distance[:, rows].masked_fill_(rank[:, None, :] >= rank[:, rows, None], torch.inf)
    nearest = distance.amin(dim=2)
    separation = torch.where(rank > 0, nearest, farthest).sqrt()
    return (density + separation.log()).masked_fill(absent, -torch.inf)


def _row_blocks(pairs: Tensor) -> list[slice]:
    """Return the rows of (F, N, N) pairs that are worked on at a time: a processor's caches hold few of many tokens."""
    count = pairs.shape[1]
    step = BLOCK if pairs.device.type == "cpu" else max(count, 1)
    return [slice(start, start + step) for start in range(0, count, step)]


def _doubled_products(tokens: Tensor) -> Tensor:
    """Return twice the products of all pairs of tokens, float32 (F, N, N), symmetric to the bit."""
    count = tokens.shape[1]
    if tokens.device.type != "cpu" or count <= BLOCK:
        product = tokens @ tokens.mT
        return product + product.mT
    doubled = tokens.new_empty((len(tokens), count, count))
    for row in range(0, count, BLOCK):  # every pair is multiplied once
        for col in range(row, count, BLOCK):
            tile = tokens[:, row : row + BLOCK] @ tokens[:, col : col + BLOCK].mT
            tile = tile + tile.mT if row == col else tile.mul_(2)
            doubled[:, row : row + BLOCK, col : col + BLOCK] = tile
            doubled[:, col : col + BLOCK, row : row + BLOCK] = tile.mT
    return doubled


def cluster_by_peaks(tokens: Tensor, count: int, *, neighbours: int) -> tuple[Tensor, Tensor]:
    """Cluster tokens around their density peaks; ties go to the lower position.

    Args:
        tokens: float32 (n, D).
        count: of clusters, 1 to n.
        neighbours: of a density, the token itself included; clipped to n.

    Returns:
        The centres, int64 (count,), ascending; and for each token the place of the nearest centre among them, int64
        (n,), its own place for a centre.
    """
    everyone = torch.ones((1, len(tokens)), dtype=torch.bool, device=tokens.device)
    score = log_peak_scores(tokens[None], everyone, neighbours=min(neighbours, len(tokens)))[0]
    centres = score.sort(descending=True, stable=True).indices[:count].sort().values
    offsets = tokens - tokens.mean(dim=0)
    middle = offsets[centres]
    nearest = (middle.square().sum(dim=1) - 2 * offsets @ middle.T).argmin(dim=1)
    nearest[centres] = torch.arange(len(centres), device=tokens.device)
    return centres, nearest
