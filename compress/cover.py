"""Cover: the tokens that what is already kept stands in for least, over content, time and place."""

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
from compress.errors import ConfigError
from compress.ops.pairwise import Pairwise
from compress.ops.similarity import unit
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import GopKind, Signals

LEAST_NOVELTY: Final = 1e-6
"""What a token's novelty is multiplied by at least, so that the logarithm of a copy's stays finite."""

LEAST_DIFFERENCE: Final = 1e-5
"""Mean of 1 - cos below which the tokens of a video differ by rounding only."""


@dataclass(frozen=True, kw_only=True)
class Cover(FrameBudgets):
    """A greedy cover of the video: each token that is kept is the one that the kept ones stand in for least.

    Token j stands in for token i with chance ``k_ij = exp(-(1 - cos(h_i, h_j)) / (reach_content m) - |t_i - t_j| /
    (reach_time T) - |p_i - p_j|^2 / (2 (reach_space S)^2))``, with m the mean of 1 - cos over all pairs of tokens of
    the video, frames t of T and places p on a grid of longer side S. The novelty of token i over the set K of kept
    tokens is the chance that none of them does, ``prod_{j in K} (1 - k_ij)``.
    The first token is the one whose nearest token stands in for it least, each further one that of largest novelty
    (ties: the lower index). Tokens leave as they are, so that a larger retention keeps the same tokens and more.

    Attributes:
        reach_content: difference in content over which tokens cease to stand in for each other, as a share of the
            video's mean difference, above 0. Relative, since encoders differ in how much all tokens have in common.
        reach_time: likewise in time, as a share of the video's length.
        reach_space: likewise in space, as a share of the longer side of the grid. Infinity means that it does not
            matter.
        frame_budget: ``own`` ranks the tokens of all frames together, ``packets`` gives every frame what its packet
            size grants (see `FrameBudgets`), known before anything is encoded.
        gop: what stands for a frame's complexity; here the mean packet since the sampled frame before.
    """

    reach_content: float = 0.5
    reach_time: float = 1.0
    reach_space: float = 2 / 7
    gop: GopKind = "interval"
    name: ClassVar[str] = "cover"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("reach_content", "reach_time", "reach_space"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0 (infinity for no limit)")

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
        budgets = None
        if self.frame_budget == "packets":
            budgets, given = self.budgets(tokens, signals)
            sources |= given
        chances = self._chances(unit(tokens).flatten(0, 1), frames, grid)
        picked = _pick(chances, count, budgets, frames)
        plan = MergePlan.selection(picked.sort().values, count_in=frames * per_frame)
        return Choice(plan=plan, frame_budgets=budgets, sources=sources)

    def _chances(self, direction: Tensor, frames: int, grid: tuple[int, int]) -> Pairwise:
        """Hold ``-k_ij`` for unit rows (V, D) of T frames: 1 - k_ij itself would round small chances away."""
        rows, cols = grid
        side = max(grid)
        frame, row, col = np.unravel_index(np.arange(frames * rows * cols), (frames, rows, cols))
        # Distances in units in which the exponent is -(1 - cos) / content - |t| - |p|^2.
        mean = 1 - direction.mean(dim=0, dtype=torch.float64).square().sum()
        content = (self.reach_content * mean.clamp_min(LEAST_DIFFERENCE)).float()
        time = on_device((frame / (self.reach_time * frames)).astype(np.float32), direction.device)
        scale = math.sqrt(2) * self.reach_space * side
        place = on_device((np.stack((row, col), axis=1) / scale).astype(np.float32), direction.device)

        def between(chosen: slice | Tensor, start: int) -> Tensor:
            away = (1 - direction[chosen] @ direction[start:].T).clamp_min_(0).div_(content)
            away += (time[chosen, None] - time[start:]).abs_()
            for axis in range(2):
                away += (place[chosen, axis, None] - place[start:, axis]).square_()
            return away.neg_().exp_().neg_()

        return Pairwise(between, len(direction), direction.device)


def _pick(chances: Pairwise, count: int, budgets: NDArray[np.int64] | None, frames: int) -> Tensor:
    """Pick tokens, int64 (count,), in the order in which they are chosen.

    Args:
        chances: ``-k_ij``.
        count: at least 1.
        budgets: int64 (T,), tokens of each frame, summing to the count; None for any.
        frames: T.
    """
    nearest = chances.nearest
    total = len(nearest)
    left = None if budgets is None else on_device(budgets, nearest.device).clone()
    novelty = torch.zeros(total, dtype=torch.float64, device=nearest.device)
    if left is not None:
        novelty.view(frames, -1).masked_fill_((left == 0)[:, None], -torch.inf)
    picked = torch.empty(count, dtype=torch.int64, device=nearest.device)
    picked[0] = (nearest + novelty).argmax()
    for i in range(1, count):
        last = picked[i - 1 : i]
        novelty += chances.row(last).clamp_min_(LEAST_NOVELTY - 1).log1p_()
        novelty.index_fill_(0, last, -torch.inf)
        if left is not None:
            left.index_add_(0, last // (total // frames), left.new_full((1,), -1))
            novelty.view(frames, -1).masked_fill_((left == 0)[:, None], -torch.inf)
        picked[i] = novelty.argmax()
    return picked
