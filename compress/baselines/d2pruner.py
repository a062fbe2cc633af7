"""D2Pruner: attention without its bias of position, then an independent set of what differs (AAAI 2026).

Written from summaries, unverified: the authors' code cannot be retrieved, and what the summaries leave open is a field.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from compress.baselines.inner import Inner, most_important
from compress.budget import floor_guarded
from compress.errors import ConfigError, ShapeError
from compress.ops.similarity import unit
from compress.plan import MergePlan
from compress.stage import Cut, InnerTokens

PAPER_LAYER = 2
TILE = 2**23


@dataclass(frozen=True, kw_only=True)
class D2Pruner(Inner):
    """The most important tokens as pivots, then a maximal independent set of the others, in order of importance.

    Importance is the attention of the last prompt token at layer K - 1, divided by that which a position receives
    whatever it shows. Two tokens are neighbours where their similarity, semantic and spatial, exceeds theta.

    Attributes:
        K: the decoder layer (from 0) before which tokens leave; None for 2, or the first that the model allows.
        pivot_share: share of the tokens that stay which is taken by importance alone.
        theta: similarity above which two tokens are neighbours.
        alpha: weight of the semantic similarity; 1 leaves the spatial one out (the paper's, for understanding).
        debias: by the ``prior``, by the mean over the ``frames`` of this video, or ``off``.
        prior: attention that each position of a frame receives on average, row by row, (rows * cols,); it belongs to
            a model and a grid, and `PositionPrior` measures it. Without one attention counts as it is, and the result
            says so.
        epsilon: added to it.
        semantic: the cosine of hidden states as it is, ``shifted`` to (1 + cos) / 2, or stretched from its least to
            its largest value (``minmax``). Not in the summaries: how the paper normalises it.
        spatial: of two places at distance d in the grid, ``gaussian`` exp(-d^2 / 2 sigma^2), or ``inverse``
            1 / (1 + d). Not in the summaries.
        sigma: of ``gaussian``, in tokens.
        frames: tokens of different frames are never near (``separate``), or frames count as further places in time
            (``joined``). Not in the summaries: the paper is about images.
        pivots_block: neighbours of pivots leave too. Not in the summaries.
        fill: where the independent set is too small, the most ``important`` others make up the count, or ``none``.
    """

    retention: float = 0.1
    K: int | None = None
    pivot_share: float = 0.7
    theta: float = 0.8
    alpha: float = 1.0
    debias: Literal["prior", "frames", "off"] = "prior"
    prior: tuple[float, ...] | None = None
    epsilon: float = 1e-7
    semantic: Literal["cosine", "shifted", "minmax"] = "cosine"
    spatial: Literal["gaussian", "inverse"] = "gaussian"
    sigma: float = 1.0
    frames: Literal["separate", "joined"] = "separate"
    pivots_block: bool = False
    fill: Literal["important", "none"] = "important"
    name: ClassVar[str] = "d2pruner"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.K is not None and self.K < 1:
            raise ConfigError(f"K is {self.K}; the layer before it is read, so that at least 1 is allowed")
        for name, allowed in (
            ("debias", ("prior", "frames", "off")),
            ("semantic", ("cosine", "shifted", "minmax")),
            ("spatial", ("gaussian", "inverse")),
            ("frames", ("separate", "joined")),
            ("fill", ("important", "none")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(allowed)}")
        for name, low, high in (("pivot_share", 0, 1), ("alpha", 0, 1), ("theta", -1, 1)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed is [{low}, {high}]")
        if self.sigma <= 0 or self.epsilon <= 0:
            raise ConfigError(f"sigma is {self.sigma} and epsilon {self.epsilon}; both must be above 0")
        if self.prior is not None and (not self.prior or min(self.prior) < 0):
            raise ConfigError("prior holds a negative value or nothing; give attention, one value per place of a frame")

    @property
    def cuts(self) -> tuple[Cut, ...] | None:
        """See `Inner.cuts`."""
        return None if self.K is None else (Cut(layer=self.K, scored=(self.K - 1,)),)

    def at_depth(self, depth: int, *, first: int = 1) -> Self:
        """Return this method with its layer chosen: 2, or the first that the model allows."""
        return self if self.K is not None else replace(self, K=min(max(PAPER_LAYER, first), depth - 1))

    def sources(self, tokens: InnerTokens) -> dict[str, str]:
        """See `Inner.sources`."""
        if self.debias == "off":
            return {"prior": "off"}
        if self.debias == "frames":
            return {"prior": "mean of each place over the frames"}
        return {"prior": "none (none given)" if self.prior is None else "given"}

    def choose(self, importance: Tensor, hidden: Tensor, kept: int, tokens: InnerTokens) -> MergePlan:
        """See `Inner.choose`."""
        importance = self._debiased(importance, tokens)
        order = most_important(importance, len(importance))
        pivots = floor_guarded(self.pivot_share * kept)
        free = torch.ones(len(order), dtype=torch.bool, device=hidden.device)
        free[:pivots] = False
        neighbours = _Neighbours(self, unit(hidden).index_select(0, order), self._places(tokens, order))
        if self.pivots_block:
            for number in range(pivots):
                free &= ~neighbours.of(torch.tensor(number, device=hidden.device))
        chosen = torch.zeros_like(free)
        chosen[:pivots] = True
        for _ in range(kept - pivots):
            first = free.to(torch.uint8).argmax()  # 0, a token that is not free, once none is left
            chosen |= torch.nn.functional.one_hot(first, len(order)).bool() & free
            free &= ~neighbours.of(first)
            free &= ~chosen
        ranked = chosen.to(torch.uint8).sort(descending=True, stable=True).indices
        count = kept if self.fill == "important" else int(chosen.sum())
        return MergePlan.selection(order[ranked[:count]].sort().values, count_in=len(order))

    def _debiased(self, importance: Tensor, tokens: InnerTokens) -> Tensor:
        """Divide attention by that which its place receives anyway."""
        if self.debias == "off" or (self.debias == "prior" and self.prior is None):
            return importance
        if tokens.place is None:
            if self.prior is None or len(self.prior) != len(importance):
                raise ShapeError(
                    f"the places of {len(importance)} tokens are not known; give a prior of as many values, or places"
                )
            return importance / (importance.new_tensor(self.prior) + self.epsilon)
        video, _, row, col = tokens.place.unbind(1)
        width = importance.new_tensor([cols for _, cols in tokens.grids], dtype=torch.int64)[video]
        place = row * width + col
        if self.debias == "frames":
            size = max(rows * cols for rows, cols in tokens.grids)
            place = video * size + place
            total = importance.new_zeros(size * len(tokens.grids)).index_add_(0, place, importance)
            count = torch.zeros_like(total).index_add_(0, place, torch.ones_like(importance))
            return importance / ((total / count.clamp_min(1))[place] + self.epsilon)
        assert self.prior is not None  # checked above
        if any(rows * cols != len(self.prior) for rows, cols in tokens.grids):
            raise ShapeError(f"the prior holds {len(self.prior)} values; frames of this prompt have {tokens.grids}")
        return importance / (importance.new_tensor(self.prior)[place] + self.epsilon)

    def _places(self, tokens: InnerTokens, order: Tensor) -> Tensor | None:
        """Return the places in the order of importance; None where they do not count."""
        if self.alpha == 1:
            return None
        if tokens.place is None:
            raise ShapeError(f"alpha is {self.alpha}, but the places of the tokens are not known; 1 needs none")
        return tokens.place.index_select(0, order)


class _Neighbours:
    """Neighbours of tokens in order of importance."""

    def __init__(self, method: D2Pruner, features: Tensor, place: Tensor | None) -> None:
        self._method = method
        self._features = features
        self._place = place
        self._low, self._range = 0.0, 1.0
        if method.semantic == "shifted":
            self._low, self._range = -1.0, 2.0
        elif method.semantic == "minmax":
            step = max(1, TILE // len(features))
            least, most = [], []
            for start in range(0, len(features), step):
                cosines = features[start : start + step] @ features.T
                least.append(cosines.amin())
                own = torch.arange(len(cosines), device=cosines.device)
                cosines[own, own + start] = -torch.inf
                most.append(cosines.amax())
            self._low = float(torch.stack(least).min())
            self._range = max(float(torch.stack(most).max()) - self._low, 1e-12)

    def of(self, number: Tensor) -> Tensor:
        """Return which tokens are neighbours of one, bool (n,), itself perhaps among them."""
        method = self._method
        feature = self._features.index_select(0, number[None])[0]
        similarity = method.alpha * ((self._features @ feature - self._low) / self._range)
        if self._place is not None:
            similarity = similarity + (1 - method.alpha) * self._near(number)
        return similarity > method.theta

    def _near(self, number: Tensor) -> Tensor:
        """Return the spatial similarity of all tokens to one, float32 (n,)."""
        assert self._place is not None  # the caller's condition
        method, step = self._method, (self._place - self._place.index_select(0, number[None])).float()
        axes = step[:, 1:] if method.frames == "joined" else step[:, 2:]
        squared = axes.square().sum(dim=1)
        near = torch.exp(squared / (-2 * method.sigma**2)) if method.spatial == "gaussian" else 1 / (1 + squared.sqrt())
        apart = step[:, 0] != 0
        if method.frames == "separate":
            apart = apart | (step[:, 1] != 0)
        return near.masked_fill(apart, 0)
