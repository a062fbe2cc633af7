"""STTM: quadtrees over frames, and similar nodes of adjacent frames joined to the earliest (ICCV 2025).

Written from descriptions: the released code (HYUNJS/STTM) has no licence and was not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from compress.baselines.baseline import Choice, Published
from compress.baselines.cells import grid_of
from compress.baselines.inner import CutUnseen
from compress.baselines.rows import Rows
from compress.budget import allocate
from compress.errors import ConfigError
from compress.ops.quadtree import Nodes, Quadtree
from compress.ops.similarity import unit
from compress.ops.transfer import on_device, on_host
from compress.plan import MergePlan
from compress.stage import InnerTokens, Positions, Signals

DEFAULT_TAU_S, DEFAULT_TAU_T = 0.85, 0.7
"""Middles of the ranges that the paper tunes in, 0.75-0.95 and 0.50-0.90."""


def temporal_threshold(tau_s: float) -> float:
    """Return the temporal threshold that goes with a spatial one: the line through the ends of the paper's ranges."""
    return 2 * tau_s - 1


@dataclass(frozen=True, kw_only=True)
class STTM(Published):
    """Nodes of quadtrees that hold similar children stay whole, and nodes of adjacent frames that are similar join.

    A node is the mean of its children. From the root's level down, a node stands where all its children have a cosine
    of at least tau_s with it, and splits where not. Nodes of two adjacent frames, one box within the other, join where
    their cosine is at least tau_t; a group leaves as its nodes' mean at the first token of its earliest node.

    The method has thresholds only. Here the retention decides: tau_s falls from the value at which nothing merges, and
    tau_t = 2 tau_s - 1 with it, until the next step would leave too few tokens; then links join one by one, most
    similar first, until the count is met exactly. Both are reported. Where no links are left, as in a single frame,
    nodes that follow one another in raster order join, most similar first.

    Attributes:
        tau_s: spatial threshold, in place of ``retention``; to be given together with ``tau_t``.
        tau_t: temporal threshold.
        root_level: levels below the node that holds a whole frame at which trees begin.
        weighted: nodes count by their tokens in the mean of a group.
    """

    retention: float = 0.3
    tau_s: float | None = None
    tau_t: float | None = None
    root_level: int = 1
    weighted: bool = False
    name: ClassVar[str] = "sttm"
    released_positions: ClassVar[Positions | None] = "contiguous"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("tau_s", -1, 1), ("tau_t", -1, 1), ("root_level", 0, 64)):
            self._check_range(name, low, high)
        if (self.tau_s is None) != (self.tau_t is None):
            raise ConfigError(f"tau_s is {self.tau_s} and tau_t {self.tau_t}; give both, or none for the retention")

    @property
    def _keeps_all(self) -> bool:
        return super()._keeps_all and self.tau_s is None

    @property
    def _retention_decides(self) -> bool:
        return super()._retention_decides and self.tau_s is None

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        grid, sources = grid_of(signals, tokens.shape[1])
        rows, diagnostics = self.rows(tokens, grid, count)
        return Choice(
            plan=rows.plan()[0],
            nominal=len(rows.keep) if self.tau_s is not None else None,
            sources=sources,
            diagnostics=diagnostics,
        )

    def rows(self, tokens: Tensor, grid: tuple[int, int], count: int) -> tuple[Rows, dict[str, float]]:
        """Merge tokens (T, N, D) of this grid, by the thresholds or down to a count; return the thresholds, too."""
        tree = Quadtree.of(tokens, grid, root_level=self.root_level)
        if self.tau_s is not None and self.tau_t is not None:
            nodes, tau_s, tau_t = Nodes.of(tree, self.tau_s), self.tau_s, self.tau_t
            label = _components(nodes, nodes.similarity >= tau_t)
        else:
            tau_s, nodes = _search(tree, count)
            tau_t, label = _join(nodes, tokens, count)
        diagnostics = {"tau_s": tau_s, "tau_t": tau_t, "nodes": float(len(nodes.first))}
        return self._rows(nodes, label, tokens), diagnostics

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`.

        Children that a node at an odd side lacks are compared as the first node of their level, and groups are left
        apart that a link joins late.
        """
        grid, _ = grid_of(signals, tokens.shape[1])
        tree = Quadtree.of(tokens, grid, root_level=self.root_level, unused_children=True)
        nodes = Nodes.of(tree, DEFAULT_TAU_S if self.tau_s is None else self.tau_s)
        linked = nodes.similarity >= (DEFAULT_TAU_T if self.tau_t is None else self.tau_t)
        return self._rows(nodes, join_as_released(nodes, linked), tokens)

    def _rows(self, nodes: Nodes, label: NDArray[np.int64], tokens: Tensor) -> Rows:
        """Return the groups of nodes, (frame, raster) order of their earliest."""
        _, earliest, group = np.unique(label, return_index=True, return_inverse=True)
        order = np.argsort(earliest)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        group = rank[group.ravel()]
        share = np.bincount(nodes.owner).astype(np.float64) if self.weighted else np.ones(len(nodes.first))
        share /= np.bincount(group, weights=share)[group]
        device = tokens.device
        return Rows(
            keep=on_device(nodes.first[earliest[order]], device),
            row=on_device(group[nodes.owner], device),
            col=torch.arange(len(nodes.owner), device=device),
            weight=on_device((share[nodes.owner] * nodes.weight).astype(np.float32), device),
            count_in=len(nodes.owner),
        )


@dataclass(frozen=True, kw_only=True)
class STTMInner(CutUnseen):
    """The same inside the language model, where the paper has it, over all visual tokens of each video of a prompt.

    Attributes:
        root_level: see `STTM`.
        weighted: likewise.
    """

    retention: float = 0.3
    root_level: int = 1
    weighted: bool = False
    name: ClassVar[str] = "sttm-inner"

    def choose(self, importance: Tensor, hidden: Tensor, kept: int, tokens: InnerTokens) -> MergePlan:
        """See `Inner.choose`; the videos share the count by their sizes."""
        place = tokens.place
        sizes = np.zeros(1, np.int64) if place is None else np.bincount(place[:, 0].cpu(), minlength=len(tokens.grids))
        if place is None or not _is_whole(place, sizes, tokens.grids):
            raise ConfigError(
                "STTM merges over whole grids of tokens, and some have left before, or their places are not known; "
                "use it without a method before the language model"
            )
        method = STTM(root_level=self.root_level, weighted=self.weighted)
        shares = allocate(sizes, kept, lower=1, upper=sizes)
        parts, start = [], 0
        for size, share, grid in zip(sizes.tolist(), shares.tolist(), tokens.grids, strict=True):
            mine = hidden[start : start + size].view(-1, grid[0] * grid[1], hidden.shape[1])
            rows, _ = method.rows(mine, grid, share)
            parts.append(rows.moved(start, count_in=len(hidden)))
            start += size
        return Rows.joined(parts, count_in=len(hidden)).plan()[0]


def _is_whole(place: Tensor, sizes: NDArray[np.int64], grids: Sequence[tuple[int, int]]) -> bool:
    """Return whether all tokens of all frames of every video are there, in (video, frame, raster) order."""
    expected = []
    for video, (size, (rows, cols)) in enumerate(zip(sizes.tolist(), grids, strict=True)):
        token = np.arange(size)
        if size % (rows * cols):
            return False
        within = token % (rows * cols)
        expected.append(np.stack((token * 0 + video, token // (rows * cols), within // cols, within % cols), axis=1))
    return bool((place.cpu().numpy() == np.concatenate(expected)).all())


def earliest_tokens(tree: Quadtree, tokens: Tensor, count: int) -> NDArray[np.int64]:
    """Return the earliest token of each of the ``count`` groups that `STTM` forms, int64 (count,), ascending.

    Args:
        tree: of the tokens.
        tokens: (T, N, D).
        count: at most T * N.
    """
    _, nodes = _search(tree, count)
    _, label = _join(nodes, tokens, count)
    _, earliest = np.unique(label, return_index=True)
    return np.sort(nodes.first[earliest])


def _components(nodes: Nodes, linked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Label the groups that links join, int64 (n,)."""
    size = len(nodes.first)
    edges = (np.ones(int(linked.sum()), np.int8), (nodes.earlier[linked], nodes.later[linked]))
    return np.asarray(connected_components(coo_array(edges, shape=(size, size)), directed=False)[1], np.int64)


def _search(tree: Quadtree, count: int) -> tuple[float, Nodes]:
    """Search the least spatial threshold that leaves at least ``count`` groups, and return its nodes."""
    of_links = np.concatenate([one.ravel() for one in tree.linked.values()])
    # Beyond all of them every token is a node, and nothing is linked.
    steps = np.append(np.unique(np.concatenate((tree.thresholds, (of_links + 1) / 2))), np.inf)
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        tau_s = float(steps[middle])
        enough = tree.count(tau_s) >= count
        if enough:
            nodes = Nodes.of(tree, tau_s)
            linked = nodes.similarity >= temporal_threshold(tau_s)
            enough = len(np.unique(_components(nodes, linked))) >= count
        low, high = (low, middle) if enough else (middle + 1, high)
    tau_s = float(steps[low])
    return min(tau_s, 1.0), Nodes.of(tree, tau_s)


def _join(nodes: Nodes, tokens: Tensor, count: int) -> tuple[float, NDArray[np.int64]]:
    """Join nodes by their links, most similar first, until ``count`` groups are left; return the last similarity."""
    order = np.argsort(-nodes.similarity, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    low, high = 0, len(order)
    while low < high:  # every link joins at most two groups, so that the count falls in steps of one
        middle = (low + high) // 2
        enough = len(np.unique(_components(nodes, rank < middle))) <= count
        low, high = (low, middle) if enough else (middle + 1, high)
    label = _components(nodes, rank < low)
    tau_t = float(nodes.similarity[order[low - 1]]) if low else 1.0
    missing = len(np.unique(label)) - count
    return tau_t, label if missing <= 0 else _join_neighbours(nodes, label, tokens, missing)


def _join_neighbours(nodes: Nodes, label: NDArray[np.int64], tokens: Tensor, times: int) -> NDArray[np.int64]:
    """Join ``times`` groups to ones that follow them in the order of their earliest nodes, most similar first."""
    flat = tokens.flatten(0, 1).float()
    _, earliest, group = np.unique(label, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(earliest))[group.ravel()]
    mean = flat.new_zeros((len(earliest), flat.shape[1]))
    mean.index_add_(0, on_device(rank[nodes.owner], flat.device), flat)
    direction = unit(mean)
    (similar,) = on_host((direction[1:] * direction[:-1]).sum(dim=1))
    joined = np.zeros(len(earliest), dtype=np.int64)
    joined[1:] = 1
    joined[1 + np.argsort(-similar, kind="stable")[:times]] = 0
    return np.cumsum(joined)[rank]


def join_as_released(nodes: Nodes, linked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Join nodes by pointers to the least of what they are linked with, until no pointer leads to another.

    A link whose ends were pointed to different places by then no longer counts.
    """
    pointer = np.arange(len(nodes.first))
    earlier, later = nodes.earlier[linked], nodes.later[linked]
    while True:
        a, b = pointer[earlier], pointer[later]
        np.minimum.at(pointer, np.maximum(a, b), np.minimum(a, b))
        pointer = pointer[pointer]
        if (pointer == pointer[pointer]).all():
            return pointer
