"""Trees of tokens that repeat from frame to frame (FlashVID's TSTM)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.ops.similarity import unit


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """The trees of one segment of F frames of N tokens; a token that joins no other is the root of its own.

    Attributes:
        root: int64 (F, N), flat index of every token's root, or -1 for tokens that take no part.
        is_root: bool (F, N).
        size: float32 (F, N), tokens of the tree below each root.
        divisor: float32 (F, N), divisor of the sum of a tree.
    """

    root: Tensor
    is_root: Tensor
    size: Tensor
    divisor: Tensor

    @property
    def roots(self) -> Tensor:
        """int64 (R,), flat indices of all roots, ascending."""
        return self.is_root.flatten().nonzero().squeeze(1)

    def values(self, tokens: Tensor) -> Tensor:
        """Compute the values of the roots, float32 (R, D)."""
        roots = self.roots
        root = self.root.flatten()
        member = (root >= 0).nonzero().squeeze(1)
        flat = tokens.flatten(0, 1)
        total = torch.zeros((len(roots), flat.shape[1]), dtype=torch.float32, device=flat.device)
        total.index_add_(0, torch.searchsorted(roots, root[member]), flat[member].float())
        return total.div_(self.divisor.flatten()[roots, None])


def grow_trees(tokens: Tensor, free: Tensor, *, tau: float, least: int, released: bool = False) -> Trees:
    """Link every free token to its best match among the free tokens of the frame before.

    Args:
        tokens: (F, N, D).
        free: bool (F, N), tokens that take part.
        tau: a link's cosine exceeds it.
        least: tokens of the segment, those that are not free included, that must stay unlinked; the weakest links are
            given up for that.
        released: divide a tree's sum by one more than its root's direct children, as the released code does; let all
            tokens of a segment of one frame take part; give up links by a threshold.
    """
    frames, per_frame, _ = tokens.shape
    device = tokens.device
    place = torch.arange(frames * per_frame, device=device).view(frames, per_frame)
    one = torch.ones((frames, per_frame), dtype=torch.float32, device=device)
    if frames == 1 and released:
        return Trees(root=place, is_root=torch.ones_like(free), size=one, divisor=one)
    linked = torch.zeros_like(free)
    parent = torch.zeros_like(place)
    if frames > 1:
        cosine = _cosines_to_the_frame_before(tokens, released=released)
        cosine.masked_fill_(~(free[1:, :, None] & free[:-1, None, :]), -1.0)
        strength, index = cosine.max(dim=2)
        strength = torch.nn.functional.pad(strength, (0, 0, 1, 0), value=-1.0)
        parent[1:] = place[:-1].gather(1, index)
        linked = _links(strength, tau, least, released=released)
    root = place.clone()
    for frame in range(1, frames):
        root[frame] = torch.where(linked[frame], root.flatten()[parent[frame]], place[frame])
    root = torch.where(free, root, -1)
    member = root.flatten()[root.flatten() >= 0]
    size = torch.zeros(frames * per_frame, dtype=torch.float32, device=device)
    size.index_add_(0, member, torch.ones_like(member, dtype=torch.float32))
    divisor = size.clone()
    if released:
        divisor = one.flatten().clone()
        child = parent[linked]
        divisor.index_add_(0, child, torch.ones_like(child, dtype=torch.float32))
    return Trees(root=root, is_root=free & ~linked, size=size.view_as(one), divisor=divisor.view_as(one))


def _cosines_to_the_frame_before(tokens: Tensor, *, released: bool) -> Tensor:
    """Compute cosines of every token to all of the frame before, float32 (F - 1, N, N)."""
    if tokens.device.type == "cpu" and not released:  # two frames at a time stay in the cache
        pairs = itertools.pairwise(map(unit, tokens))
        return torch.stack([here @ before.T for before, here in pairs])
    wide = tokens.float()
    direction = wide / wide.norm(p=2, dim=2, keepdim=True) if released else unit(tokens)
    return torch.einsum("bnd,bmd->bnm", direction[1:], direction[:-1])


def _links(strength: Tensor, tau: float, least: int, *, released: bool) -> Tensor:
    """Return the links that hold, bool (F, N)."""
    linked = strength > tau
    most = strength.numel() - least
    if released:
        if int((~linked).sum()) < least:
            threshold = strength.flatten().topk(most).values[-1]
            linked = strength > max(float(threshold), -1.0 + 1e-6)
        return linked
    order = strength.flatten().sort(descending=True, stable=True).indices
    allowed = torch.zeros_like(linked).flatten().index_fill_(0, order[: max(most, 0)], True)
    return linked & allowed.view_as(linked)
