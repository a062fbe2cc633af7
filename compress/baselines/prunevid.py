"""PruneVid, outer part: static positions averaged over segments, static and moving tokens clustered (ACL 2025).

Written from descriptions: the released code (CC BY-NC-SA 4.0) was not read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.baselines.baseline import Choice, Published
from compress.baselines.noise import Noise, released_clusters
from compress.baselines.rows import Rows
from compress.budget import allocate, floor_guarded
from compress.errors import ConfigError
from compress.ops.density_peaks import cluster_by_peaks
from compress.ops.similarity import unit
from compress.ops.transfer import on_device, on_host
from compress.stage import Segment, Signals

KINDS = ("dynamic", "static")

NEIGHBOURS = 7
FEWEST = 14
"""Tokens up to which a group is not clustered."""
DEFAULT_RATIO = 0.5

Clusterer = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Tokens (n, D) and a number of clusters -> centres, and the place among them of each token's nearest."""


@dataclass(frozen=True, kw_only=True)
class PruneVid(Published):
    """Clusters of static positions, one set per segment, and clusters of the other tokens of every frame.

    The frames' means are clustered by density peaks, and the longest run of frames of every cluster is a segment; other
    frames join the neighbouring segment, so that no segment has a single frame. A position whose tokens have a mean
    pairwise cosine above tau within the segment is static; its tokens are averaged over it. Static tokens of a segment
    and the others of every frame are clustered by density peaks and leave as their clusters' means.

    The method has thresholds only. Here the retention decides: all groups keep the same share, which is reported as
    ``cluster_ratio``, and a clip so static that its groups hold too few tokens raises tau as far as needed.

    Attributes:
        tau: similarity above which a position is static.
        cluster_ratio: share of a group that its clusters are, for groups of more than 14 tokens, in place of
            ``retention``; the released code takes 0.5.
        temporal_segment_ratio: clusters of frames, as a share of the frames.
        runs: of each cluster of frames only the ``longest`` run of two frames or more is a segment, or ``all`` of them
            are. *Not in the descriptions.*
    """

    retention: float = 0.3
    tau: float = 0.8
    cluster_ratio: float | None = None
    temporal_segment_ratio: float = 0.25
    runs: Literal["longest", "all"] = "longest"
    name: ClassVar[str] = "prunevid"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("tau", -1, 1), ("cluster_ratio", 1e-6, 1), ("temporal_segment_ratio", 0, 1)):
            self._check_range(name, low, high)
        self._check_choice("runs", ("longest", "all"))

    @property
    def _keeps_all(self) -> bool:
        return super()._keeps_all and self.cluster_ratio is None

    @property
    def _retention_decides(self) -> bool:
        return super()._retention_decides and self.cluster_ratio is None

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""

        def cluster(features: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
            return cluster_by_peaks(features, wanted, neighbours=NEIGHBOURS)

        bounds = self._segments(tokens, cluster)
        similar = pairwise_similarity(tokens, bounds)
        tau, nominal = self.tau, None
        if self.cluster_ratio is None:
            tau = self._threshold(similar, np.diff(bounds), count)
            room = _rooms(similar > tau, np.diff(bounds))
            least = room > 0
            shares = allocate(room, count, lower=least if least.sum() <= count else 0, upper=room)
        else:
            room = _rooms(similar > tau, np.diff(bounds))
            shares = np.where(room > FEWEST, np.maximum(_floors(room, self.cluster_ratio), 1), room)
            nominal = int(shares.sum())
        rows, kind = _merge(tokens, bounds, similar > tau, shares, cluster)
        order = rows.keep.argsort()
        group = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds) + 1)
        static = np.concatenate([[True, *[False] * length] for length in np.diff(bounds).tolist()])
        return Choice(
            plan=rows.plan()[0],
            nominal=nominal,
            kind=kind[order],
            kinds=KINDS,
            segments=tuple(
                Segment(
                    start=start,
                    frames=stop - start,
                    salient=int(shares[(group == number) & ~static].sum()),
                    context=int(shares[(group == number) & static].sum()),
                )
                for number, (start, stop) in enumerate(itertools.pairwise(bounds.tolist()))
            ),
            diagnostics={"tau": tau, "cluster_ratio": float(shares.sum() / room.sum())},
        )

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`."""
        if len(tokens) < NEIGHBOURS:
            raise ConfigError(f"the released code fails on {len(tokens)} frames; it takes at least {NEIGHBOURS}")
        draws = Noise(noise)

        def cluster(features: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
            return released_clusters(features, wanted, neighbours=NEIGHBOURS, noise=draws)

        wide = tokens.float()
        bounds = self._segments(wide, cluster)
        static = pairwise_similarity(wide, bounds) > self.tau
        room = _rooms(static, np.diff(bounds))
        ratio = DEFAULT_RATIO if self.cluster_ratio is None else self.cluster_ratio
        shares = np.where(room > FEWEST, _floors(room, ratio), room)
        return _merge(wide, bounds, static, shares, cluster)[0]

    def _segments(self, tokens: Tensor, cluster: Clusterer) -> NDArray[np.int64]:
        """Return where segments begin, int64 (K + 1,)."""
        frames = len(tokens)
        clusters = max(1, floor_guarded(self.temporal_segment_ratio * frames))
        means = tokens.sum(dim=1, dtype=torch.float32) / tokens.shape[1]
        _, label = cluster(means, clusters)
        return refine_segments(label.cpu().numpy(), longest=self.runs == "longest")

    def _threshold(self, similar: NDArray[np.float64], lengths: NDArray[np.int64], count: int) -> float:
        """Find the least threshold from tau on at which the groups hold at least ``count`` tokens."""
        steps = np.concatenate(([self.tau], np.unique(similar[similar > self.tau])))
        low, high = 0, len(steps) - 1
        while low < high:
            middle = (low + high) // 2
            enough = _rooms(similar > steps[middle], lengths).sum() >= count
            low, high = (low, middle) if enough else (middle + 1, high)
        return float(steps[low])


def _floors(room: NDArray[np.int64], ratio: float) -> NDArray[np.int64]:
    """Return the share of each group, rounded down as by `floor_guarded`."""
    return np.array([floor_guarded(n * ratio) for n in room.tolist()], np.int64)


def refine_segments(label: NDArray[np.int64], *, longest: bool = True) -> NDArray[np.int64]:
    """Refine clusters of frames to segments of at least two frames, where there are two.

    The longest run of every cluster stays, the first of equal ones, if it has two frames or more. The frames between
    two that stay join the longer, the earlier of equal ones; those before the first and after the last join those.

    Args:
        label: int64 (T,), cluster of each frame.
        longest: whether only the longest run of a cluster stays, or all of two frames or more.

    Returns:
        Where segments begin, int64 (K + 1,).
    """
    edges = np.concatenate(([0], np.flatnonzero(np.diff(label)) + 1, [len(label)]))
    lengths = np.diff(edges)
    stays = []
    for one in np.unique(label):
        runs = np.flatnonzero(label[edges[:-1]] == one)
        runs = runs[lengths[runs].argmax()][None] if longest else runs
        stays += runs[lengths[runs] > 1].tolist()
    stays.sort()
    starts = [0]
    for before, after in itertools.pairwise(stays):
        starts.append(int(edges[before + 1] if lengths[after] > lengths[before] else edges[after]))
    return np.array([*starts, len(label)], np.int64)


def pairwise_similarity(tokens: Tensor, bounds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average the cosines of all pairs of frames of each segment at each position, float64 (K, N).

    ``(|sum of directions|^2 - L) / (L (L - 1))`` of L frames; -1 for a single one, whose positions are never static.
    """
    found = []
    for start, stop in itertools.pairwise(bounds.tolist()):
        length = stop - start
        total = sum(unit(tokens[t]) for t in range(start + 1, stop)) + unit(tokens[start])
        # Tokens without a direction are similar to nothing, so that they do not count with themselves either.
        own = sum((unit(tokens[t]).square().sum(dim=1) > 0.5).float() for t in range(start, stop))
        both = total.square().sum(dim=1) - own
        found.append(both / (length * (length - 1)) if length > 1 else torch.full_like(both, -1))
    return on_host(torch.stack(found))[0]


def _rooms(static: NDArray[np.bool_], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the tokens of every group: of each segment the static ones, then the others of each of its frames."""
    held = static.sum(axis=1)
    return np.concatenate([[n, *[static.shape[1] - n] * length] for n, length in zip(held, lengths, strict=True)])


def _merge(
    tokens: Tensor,
    bounds: NDArray[np.int64],
    static: NDArray[np.bool_],
    shares: NDArray[np.int64],
    cluster: Clusterer,
) -> tuple[Rows, Tensor]:
    """Cluster every group down to its share; return the rows in the order of groups, and the kind of each."""
    per_frame, total = tokens.shape[1], tokens.shape[0] * tokens.shape[1]
    device = tokens.device
    parts: list[Rows] = []
    kinds: list[int] = []
    share = iter(shares.tolist())
    for number, (start, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        still, moving = (on_device(np.flatnonzero(mask), device) for mask in (static[number], ~static[number]))
        groups = [(list(range(start, stop)), still), *(([t], moving) for t in range(start, stop))]
        for place, (frames, where) in enumerate(groups):
            wanted = next(share)
            if not wanted:
                continue
            centre = nearest = torch.arange(len(where), device=device)
            if wanted < len(where):
                features = sum(tokens[t, where].float() for t in frames[1:]) + tokens[frames[0], where].float()
                centre, nearest = cluster(features / len(frames), wanted)
            size = torch.zeros(len(centre), dtype=torch.float32, device=device)
            size.index_add_(0, nearest, torch.ones_like(nearest, dtype=torch.float32))
            offset = torch.tensor(frames, device=device)[:, None] * per_frame
            parts.append(
                Rows(
                    keep=frames[0] * per_frame + where[centre],
                    row=nearest.repeat(len(frames)),
                    col=(offset + where).flatten(),
                    weight=(1 / (size * len(frames)))[nearest].repeat(len(frames)),
                    count_in=total,
                )
            )
            kinds += [int(place == 0)] * len(centre)
    return Rows.joined(parts, count_in=total), torch.tensor(kinds, dtype=torch.uint8, device=device)
