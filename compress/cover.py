"""Cover: of what a video shows first and last, the tokens that those kept stand in for least."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.baselines.baseline import Choice, FrameBudgets
from compress.baselines.cells import grid_of
from compress.baselines.sttm import earliest_tokens
from compress.budget import round_half_up
from compress.errors import ConfigError
from compress.ops.greedy import pick_greedily
from compress.ops.pairwise import Pairwise
from compress.ops.quadtree import Quadtree
from compress.ops.similarity import unit
from compress.ops.transfer import on_device, on_host
from compress.patch_reuse import PatchReuse
from compress.plan import MergePlan
from compress.stage import GopKind, Signals

LEAST_NOVELTY: Final = 1e-6
"""What a token's novelty is multiplied by at least, so that the logarithm of a copy's stays finite."""

LEAST_DIFFERENCE: Final = 1e-5
"""Mean of 1 - cos below which the tokens of a video differ by rounding only."""

ROOT_LEVEL: Final = 1
"""Of the quadtrees, as STTM has it: no node holds a whole frame."""


@dataclass(frozen=True, kw_only=True)
class Cover(FrameBudgets):
    """A greedy cover by first and last views: each token that is kept is the one that the kept ones stand in for least.

    Token j stands in for token i with chance ``k_ij = exp(-(1 - cos(h_i, h_j)) / (reach_content m) - |t_i - t_j| /
    (reach_time T) - |p_i - p_j|^2 / (2 (reach_space S)^2))``, with m the mean of 1 - cos over all pairs of tokens of
    the video, frames t of T and places p on a grid of longer side S. The novelty of token i over the set K of kept
    tokens is the chance that none of them does, ``prod_{j in K} (1 - k_ij)``. The first token kept is the candidate
    whose nearest candidate stands in for it least, each further one that of largest novelty (ties: the lower index).

    Candidates are first views, the earliest tokens of groups that look alike in space and from frame to frame (those of
    STTM: quadtrees over frames, similar nodes of adjacent frames joined), so that nothing that stays is kept a second
    time, from another moment; and last views, tokens of the last frame picked by their novelty within it, without which
    what stays would end with its first view. Together they are as many as the larger one of ``candidates`` and
    ``retention`` says. Tokens leave as they are, so that of retentions up to ``candidates`` the larger one keeps the
    same tokens and more.

    Attributes:
        candidates: share of the tokens among which is chosen, in (0, 1], where the retention is not larger. 1 chooses
            among all.
        last_views: share of the candidates that come from the last frame, in [0, 1].
        reach_content: difference in content over which tokens cease to stand in for each other, as a share of the
            video's mean difference, above 0. Relative, since encoders differ in how much all tokens have in common.
        reach_time: likewise in time, as a share of the video's length.
        reach_space: likewise in space, as a share of the longer side of the grid. Infinity means that it does not
            matter.
        frame_budget: ``own`` ranks the tokens of all frames together, ``packets`` gives every frame what its packet
            size grants (see `FrameBudgets`), known before anything is encoded; then all tokens are candidates.
        gop: what stands for a frame's complexity; here the mean packet since the sampled frame before.
        reuse: inside the vision encoder, patches that differ from an earlier frame by at most so much are not computed
            again (see `PatchReuse.tau`); None computes all.
    """

    candidates: float = 0.15
    last_views: float = 0.1
    reach_content: float = 0.5
    reach_time: float = 1.0
    reach_space: float = 2 / 7
    gop: GopKind = "interval"
    reuse: float | None = None
    name: ClassVar[str] = "cover"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.candidates <= 1:
            raise ConfigError(f"candidates is {self.candidates}; it must be above 0 and at most 1")
        self._check_range("last_views", 0, 1)
        for name in ("reach_content", "reach_time", "reach_space"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0 (infinity for no limit)")
        if self.reuse is not None:
            stage = PatchReuse(tau=self.reuse)
            for name in ("before_encoder", "reuses_patches"):  # a stage that it has only then
                object.__setattr__(self, name, getattr(stage, name))

    def own_budgets(self, frames: int, per_frame: int) -> NDArray[np.int64]:
        """Raise ConfigError: the method's own budgets depend on the tokens."""
        raise ConfigError(
            "frame_budget is 'own', by which Cover needs the tokens themselves, after the encoder; "
            "use frame_budget='packets', which shares it by packet sizes"
        )

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        grid, sources = grid_of(signals, per_frame)
        space = self._space(tokens, grid)
        budgets = None
        if self.frame_budget == "packets":
            budgets, given = self.budgets(tokens, signals)
            sources |= given
            views = np.arange(frames * per_frame)
        else:
            views = self._views(tokens, grid, space, max(count, round_half_up(self.candidates * frames * per_frame)))
        picked = _pick(space.chances(views), count, budgets, frames)
        kept = on_device(views, tokens.device)[picked].sort().values
        plan = MergePlan.selection(kept, count_in=frames * per_frame)
        return Choice(plan=plan, frame_budgets=budgets, sources=sources)

    def _space(self, tokens: Tensor, grid: tuple[int, int]) -> _Space:
        """Place the tokens (T, N, D) of a grid in a space of content, time and place."""
        frames, (rows, cols) = len(tokens), grid
        direction = unit(tokens).flatten(0, 1)
        mean = 1 - direction.mean(dim=0, dtype=torch.float64).square().sum()
        frame, row, col = np.unravel_index(np.arange(frames * rows * cols), (frames, rows, cols))
        scale = math.sqrt(2) * self.reach_space * max(grid)
        return _Space(
            direction=direction,
            content=(self.reach_content * mean.clamp_min(LEAST_DIFFERENCE)).float(),
            time=(frame / (self.reach_time * frames)).astype(np.float32),
            place=(np.stack((row, col), axis=1) / scale).astype(np.float32),
        )

    def _views(self, tokens: Tensor, grid: tuple[int, int], space: _Space, count: int) -> NDArray[np.int64]:
        """Choose ``count`` candidates, int64, ascending."""
        frames, per_frame, _ = tokens.shape
        total = frames * per_frame
        if count == total:
            return np.arange(total)
        closing = min(per_frame, round_half_up(self.last_views * count))
        last = np.empty(0, np.int64)
        if closing:
            (order,) = on_host(_pick(space.chances(np.arange(total - per_frame, total)), closing, None, 1))
            last = total - per_frame + order.astype(np.int64)
        first = np.empty(0, np.int64)
        tree = Quadtree.of(tokens, grid, root_level=ROOT_LEVEL)
        wanted, missing = 0, count - closing
        while missing > 0:  # a last view that is a first one too leaves room for another group
            wanted += missing
            first = np.setdiff1d(earliest_tokens(tree, tokens, wanted), last, assume_unique=True)
            missing = count - closing - len(first)
        return np.sort(np.concatenate((first[: count - closing], last)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Space:
    """Tokens of a video in units in which the exponent of k is ``-(1 - cos) / content - |t| - |p|^2``.

    Attributes:
        direction: float32 (V, D), unit rows.
        content: float32, a scalar on their device.
        time: float32 (V,).
        place: float32 (V, 2).
    """

    direction: Tensor
    content: Tensor
    time: NDArray[np.float32]
    place: NDArray[np.float32]

    def chances(self, tokens: NDArray[np.int64]) -> Pairwise:
        """Hold ``-k_ij`` for some tokens, int64 (n,), ascending: 1 - k_ij itself would round small chances away."""
        device = self.direction.device
        everything = len(tokens) == len(self.direction)
        direction = self.direction if everything else self.direction[on_device(tokens, device)]
        time, place = (on_device(one[tokens], device) for one in (self.time, self.place))

        def between(chosen: slice | Tensor, start: int) -> Tensor:
            away = (1 - direction[chosen] @ direction[start:].T).clamp_min_(0).div_(self.content)
            away += (time[chosen, None] - time[start:]).abs_()
            for axis in range(2):
                away += (place[chosen, axis, None] - place[start:, axis]).square_()
            return away.neg_().exp_().neg_()

        return Pairwise(between, len(direction), device)


def _pick(chances: Pairwise, count: int, budgets: NDArray[np.int64] | None, frames: int) -> Tensor:
    """Pick tokens, int64 (count,), in the order in which they are chosen.

    Args:
        chances: ``-k_ij``.
        count: at least 1.
        budgets: int64 (T,), tokens of each frame, summing to the count; None for any.
        frames: T.
    """
    if budgets is None:
        return pick_greedily(chances, count, combine="sum", change=_log_of_rest)
    nearest = chances.nearest
    total = len(nearest)
    left = on_device(budgets, nearest.device).clone()
    novelty = torch.zeros(total, dtype=torch.float64, device=nearest.device)
    novelty.view(frames, -1).masked_fill_((left == 0)[:, None], -torch.inf)
    picked = torch.empty(count, dtype=torch.int64, device=nearest.device)
    picked[0] = (nearest + novelty).argmax()
    for i in range(1, count):
        last = picked[i - 1 : i]
        novelty += _log_of_rest(chances.row(last))
        novelty.index_fill_(0, last, -torch.inf)
        left.index_add_(0, last // (total // frames), left.new_full((1,), -1))
        novelty.view(frames, -1).masked_fill_((left == 0)[:, None], -torch.inf)
        picked[i] = novelty.argmax()
    return picked


def _log_of_rest(chances: Tensor) -> Tensor:
    """Return ``log(1 - k)`` of ``-k``, a new tensor, at least the logarithm of `LEAST_NOVELTY`."""
    return chances.clamp_min(LEAST_NOVELTY - 1).log1p_()
