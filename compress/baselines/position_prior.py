"""Prior of position for D2Pruner: the attention that each place of a frame receives, whatever it shows."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.attach import Attachable
from compress.errors import ConfigError, ShapeError
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import Compression, Cut, InnerTokens


class PositionPrior(Attachable):
    """Meter of the attention that the last prompt token pays to each place of a frame; it changes nothing.

    Attach it to a model, read many videos with a generic prompt, and give the result to ``D2Pruner(prior=...)``::

        meter = PositionPrior(K=2)
        with meter.attach(model):
            for inputs in prompts:
                model.generate(**inputs, max_new_tokens=1)
        method = D2Pruner(K=2, prior=meter.prior)

    Args:
        K: D2Pruner's layer; the attention is that of the layer before.

    Raises:
        ConfigError: K is below 1.
    """

    def __init__(self, *, K: int = 2) -> None:
        if K < 1:
            raise ConfigError(f"K is {K}; the layer before it is read, so that at least 1 is allowed")
        self.layers = (K - 1,)
        self.merge_layer = K
        self.cuts = (Cut(layer=K, scored=self.layers),)
        self._grid: tuple[int, int] | None = None
        self._total = torch.zeros(0, dtype=torch.float64)
        self._frames = torch.zeros(0, dtype=torch.float64)

    @property
    def prior(self) -> tuple[float, ...]:
        """Mean attention of each place of a frame, row by row.

        Raises:
            ConfigError: a place was not seen; read a whole video first.
        """
        if not self._frames.numel() or not bool((self._frames > 0).all()):
            raise ConfigError("no video was read in which every place of a frame has a token; read one, unshortened")
        return tuple((self._total / self._frames).tolist())

    @planned
    def inside_llm(self, scores: Tensor, hidden: Tensor, tokens: InnerTokens | None = None) -> Compression:
        """Add up attention by place; see `compress.stage.InsideLLM`.

        Raises:
            ShapeError: places are not known, or frames of one video have another grid than those before.
        """
        if tokens is None or tokens.place is None or len(set(tokens.grids)) != 1:
            raise ShapeError("the prior needs the places of tokens, in frames of one grid")
        (grid,) = set(tokens.grids)
        if self._grid not in (None, grid):
            raise ShapeError(f"frames of {grid[0]} x {grid[1]} tokens follow {self._grid}; measure one grid at a time")
        if self._grid is None:
            self._grid = grid
            self._total = torch.zeros(grid[0] * grid[1], dtype=torch.float64)
            self._frames = torch.zeros_like(self._total)
        place = tokens.place.cpu()
        place = place[:, 2] * grid[1] + place[:, 3]
        self._total.index_add_(0, place, scores.detach().reshape(-1, len(place)).mean(dim=0).double().cpu())
        self._frames.index_add_(0, place, torch.ones(len(place), dtype=torch.float64))
        plan = MergePlan.identity(len(hidden), device=hidden.device)
        return Compression(method="position-prior", plan=plan, frames=0, nominal=len(hidden))
