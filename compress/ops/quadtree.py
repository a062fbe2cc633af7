"""Quadtrees over the tokens of frames: pooled levels, nodes that stay whole, and similar nodes of adjacent frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.ops.similarity import unit
from compress.ops.transfer import on_device, on_device_together, on_host


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """Nodes of one level; those of an odd side's first row or column hold half as many children.

    Attributes:
        shape: rows and columns of nodes.
        parent: int64 (n,), node of the next coarser level that holds each node; zeros at the root.
        children: nodes that each parent of the next coarser level has of this one, int64 (parents,).
    """

    shape: tuple[int, int]
    parent: NDArray[np.int64]
    children: NDArray[np.int64]


def build_levels(rows: int, cols: int) -> list[Level]:
    """Return the levels of a grid, from single tokens to one node.

    2 x 2 nodes form one of the next level; where a side is odd, its first row or column stays apart.
    """
    levels = []
    while rows * cols > 1:
        above = (-(-rows // 2), -(-cols // 2))
        row, col = ((np.arange(side) + side % 2) // 2 for side in (rows, cols))
        parent = (row[:, None] * above[1] + col[None]).ravel()
        levels.append(Level(shape=(rows, cols), parent=parent, children=np.bincount(parent)))
        rows, cols = above
    levels.append(Level(shape=(1, 1), parent=np.zeros(1, np.int64), children=np.ones(1, np.int64)))
    return levels


@dataclass(frozen=True, kw_only=True, eq=False)
class Quadtree:
    """The quadtrees of all frames of a video, with every similarity that cutting and linking them can read.

    Attributes:
        levels: from single tokens to the root's level.
        whole: per level but the first, float64 (T, n): least similarity of a node to its children, -inf for the only
            child's parent, which is the same box.
        linked: (finer level, coarser level, whether the finer node lies in the later frame) -> float64 (T - 1, n of the
            finer): similarity of each finer node and the node of the adjacent frame whose box contains it.
    """

    levels: list[Level]
    whole: list[NDArray[np.float64]]
    linked: dict[tuple[int, int, bool], NDArray[np.float64]]

    @staticmethod
    def of(tokens: Tensor, grid: tuple[int, int], *, root_level: int, unused_children: bool = False) -> Quadtree:
        """Pool the tokens of frames and compare nodes.

        Args:
            tokens: (T, N, D).
            grid: rows and columns, N = rows * cols.
            root_level: levels below the single node at which trees begin; less where a grid has fewer.
            unused_children: as in released code, a node of fewer than four children is also compared with the first
                node of their level, and one of one child with that child.
        """
        levels = build_levels(*grid)
        levels = levels[: max(1, len(levels) - root_level)]
        direction = _pool_directions(tokens, levels)
        start = np.cumsum([0, *(len(level.parent) for level in levels)])
        pairs = {
            (fine, coarse): (
                start[fine] + np.arange(len(levels[fine].parent)),
                start[coarse] + holders(levels, fine, coarse),
            )
            for fine, coarse in itertools.combinations_with_replacement(range(len(levels)), 2)
        }
        child, parent = (
            np.concatenate([pairs[n, n + 1][i] for n in range(len(levels) - 1)] or [start[:0]]) for i in (0, 1)
        )
        corner = np.concatenate(
            [np.full(len(levels[n].children), start[n]) for n in range(len(levels) - 1)] or [start[:0]]
        )
        # One transfer, without a wait; indexing by arrays would take one for each.
        places = on_device_together(
            child, parent, corner, *itertools.chain.from_iterable(pairs.values()), device=tokens.device
        )
        child_there, parent_there, corner_there = places[:3]
        pairs_there = list(zip(places[3::2], places[4::2], strict=True))
        inside: list[Tensor] = []
        across: list[list[Tensor]] = [[] for _ in range(2 * len(pairs))]
        # Frames one by one stay in the cache of a CPU; an accelerator takes them all at once.
        step = 1 if tokens.device.type == "cpu" else len(direction)
        for part in torch.split(direction, step):
            upper = part[:, start[1] :]
            to_parent = (part[:, child_there] * part[:, parent_there]).sum(2)
            inside.append(torch.cat((to_parent, (part[:, corner_there] * upper).sum(2)), dim=1))
        for before, after in zip(torch.split(direction[:-1], step), torch.split(direction[1:], step), strict=True):
            similar = after @ before.mT
            for number, (fine, coarse) in enumerate(pairs_there):
                across[2 * number].append(similar[:, fine, coarse])
                across[2 * number + 1].append(similar[:, coarse, fine])
        empty = direction.new_zeros((0, 1))
        found = on_host(torch.cat(inside), *(torch.cat(one) if one else empty for one in across))
        names = [(*pair, forward) for pair in pairs for forward in (True, False)]
        linked = {name: one for name, one in zip(names, found[1:], strict=True) if name[0] != name[1] or name[2]}
        return Quadtree(levels=levels, whole=_wholeness(levels, found[0], unused_children), linked=linked)

    @property
    def frames(self) -> int:
        """T."""
        return len(next(iter(self.linked.values()))) + 1

    @cached_property
    def thresholds(self) -> NDArray[np.float64]:
        """The similarities of nodes to their children, ascending: where the number of nodes changes."""
        values = np.unique(np.concatenate([np.zeros(0), *(one.ravel() for one in self.whole)]))
        return np.asarray(values[np.isfinite(values)])

    def cut(self, tau: float) -> list[NDArray[np.bool_]]:
        """Return the nodes that stand, bool (T, n) per level: each holds children similar to it by at least tau."""
        stands: list[NDArray[np.bool_]] = []
        reached = np.ones((self.frames, len(self.levels[-1].parent)), dtype=bool)
        for above in range(len(self.levels) - 1, 0, -1):
            stays = reached & (self.whole[above - 1] >= tau)
            stands.append(stays)
            reached = (reached & ~stays)[:, self.levels[above - 1].parent]
        stands.append(reached)
        return stands[::-1]

    def count(self, tau: float) -> int:
        """Count the nodes of `cut`."""
        return sum(int(one.sum()) for one in self.cut(tau))


def holders(levels: list[Level], fine: int, coarse: int) -> NDArray[np.int64]:
    """Return the node of a coarser level that holds each node of a finer one."""
    holder = np.arange(len(levels[fine].parent))
    for level in levels[fine:coarse]:
        holder = level.parent[holder]
    return holder


def _pool_directions(tokens: Tensor, levels: list[Level]) -> Tensor:
    """Average children to parents and return the directions of the nodes of all levels, float32 (T, n, D)."""
    pooled = [tokens.float()]
    for level in levels[:-1]:
        count = on_device(level.children, tokens.device)
        total = pooled[0].new_zeros((len(tokens), len(count), tokens.shape[2]))
        total.index_add_(1, on_device(level.parent, tokens.device), pooled[-1])
        pooled.append(total / count[:, None])
    return torch.cat([unit(one) for one in pooled], dim=1)


def _wholeness(levels: list[Level], found: NDArray[np.float64], unused_children: bool) -> list[NDArray[np.float64]]:
    """Return `Quadtree.whole` from similarities of all nodes to their parents, and of the corners to all parents."""
    below = sum(len(level.parent) for level in levels[:-1])
    to_parent, to_corner = found[:, :below], found[:, below:]
    whole, low, first = [], 0, 0
    for level in levels[:-1]:
        count = len(level.children)
        least = np.full((len(found), count), np.inf)
        np.minimum.at(least.T, level.parent, to_parent[:, low : low + len(level.parent)].T)
        if unused_children:
            corner = to_corner[:, first : first + count]
            least = np.where(level.children < 4, np.minimum(least, corner), least)
        else:
            least[:, level.children == 1] = -np.inf
        whole.append(least)
        low, first = low + len(level.parent), first + count
    return whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Nodes:
    """Nodes that stand, in the order of frames and, in a frame, of their first token.

    Attributes:
        owner: int64 (T * N,), node that each token belongs to.
        weight: float64 (T * N,), of each token in its node's mean.
        first: int64 (n,), first token of each node.
        earlier: int64 (m,), node of each link in the earlier frame.
        later: int64 (m,), node in the frame after it.
        similarity: float64 (m,).
    """

    owner: NDArray[np.int64]
    weight: NDArray[np.float64]
    first: NDArray[np.int64]
    earlier: NDArray[np.int64]
    later: NDArray[np.int64]
    similarity: NDArray[np.float64]

    @staticmethod
    def of(tree: Quadtree, tau: float) -> Nodes:
        """Cut the trees at ``tau`` and list the links of what stands."""
        levels, frames = tree.levels, tree.frames
        per_frame = len(levels[0].parent)
        stands = tree.cut(tau)
        holder = np.arange(per_frame)
        share = np.ones(per_frame)
        first = np.full((frames, per_frame), -1)
        weight = np.ones((frames, per_frame))
        firsts = []  # of the nodes of a level, the first token
        for number, stays in enumerate(stands):
            begin = np.full(len(levels[number].parent), per_frame)
            np.minimum.at(begin, holder, np.arange(per_frame))
            firsts.append(begin)
            mine = stays[:, holder]
            first = np.where(mine, begin[holder] + per_frame * np.arange(frames)[:, None], first)
            weight = np.where(mine, share, weight)
            share = share / levels[number].children[levels[number].parent][holder]
            holder = levels[number].parent[holder]
        anchors, owner = np.unique(first.ravel(), return_inverse=True)
        ends: list[list[NDArray[np.int64]]] = [[], []]
        similarity = []
        for (fine, coarse, forward), values in tree.linked.items():
            above = holders(levels, fine, coarse)
            small, large = (slice(1, None), slice(None, -1)) if forward else (slice(None, -1), slice(1, None))
            frame, node = np.nonzero(stands[fine][small] & stands[coarse][large][:, above])
            similarity.append(values[frame, node])
            inner = (frame + forward) * per_frame + firsts[fine][node]
            outer = (frame + (not forward)) * per_frame + firsts[coarse][above[node]]
            ends[0].append(outer if forward else inner)
            ends[1].append(inner if forward else outer)
        earlier, later = (np.searchsorted(anchors, np.concatenate(one)) for one in ends)
        return Nodes(
            owner=owner.ravel(),
            weight=weight.ravel(),
            first=anchors,
            earlier=earlier,
            later=later,
            similarity=np.concatenate(similarity),
        )
