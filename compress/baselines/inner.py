"""Comparison methods inside the language model: exact counts of the visual tokens that are left after each cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from compress.attach import Attachable
from compress.baselines.baseline import Fidelity
from compress.budget import check_retention, round_half_up
from compress.errors import ConfigError, ShapeError
from compress.ops.similarity import check_all_finite
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import Compression, Cut, InnerTokens

UNSEEN_LAYER = 2
"""The layer before which STTM, and what it calls ToMe, merge."""


@dataclass(frozen=True, kw_only=True)
class Inner(Attachable):
    """A method that cuts once or several times inside the language model.

    Attributes:
        retention: share of the visual tokens that is left after the last cut, in (0, 1].
        name: of the method.
        looks: whether the residual stream itself decides, or is merged; it is then checked.

    Raises:
        ConfigError: a field is outside its range.
    """

    retention: float = 0.5
    name: ClassVar[str] = ""
    looks: ClassVar[bool] = True
    _looks_up: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_retention(self.retention)

    @property
    def share(self) -> float:
        """The share that is left in the end."""
        return self.retention

    @property
    def cuts(self) -> tuple[Cut, ...] | None:
        """Where it cuts, and by which attention; None while that depends on the model."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The decoder layers whose attention it reads."""
        return None if self.cuts is None else tuple(sorted({layer for cut in self.cuts for layer in cut.scored}))

    @property
    def merge_layer(self) -> int | None:
        """The decoder layer before which it first cuts."""
        return None if self.cuts is None else self.cuts[0].layer

    def count(self, entered: int, cut: int) -> int:
        """Count the tokens that are left after a cut, of those that entered the language model; at least one is."""
        return round_half_up(self.share * entered)

    @planned
    def inside_llm(self, scores: Tensor, hidden: Tensor, tokens: InnerTokens | None = None) -> Compression:
        """Choose among n visual tokens.

        Args:
            scores: (layers, n) or (n,), attention received, as the cut asks for it.
            hidden: (n, D), the residual stream, any float dtype.
            tokens: what else is known; None for the first cut.

        Returns:
            The plan; tokens that stay are in their order.

        Raises:
            ShapeError: sizes do not match, or scores or values that decide are not finite.
        """
        if hidden.dim() != 2 or not hidden.is_floating_point():
            raise ShapeError(
                f"hidden has shape {tuple(hidden.shape)} and dtype {hidden.dtype}; allowed is float (n, D)"
            )
        n = hidden.shape[0]
        if scores.dim() not in (1, 2) or scores.shape[-1] != n or not (scores.numel() or (n and not self._looks_up)):
            raise ShapeError(f"scores have shape {tuple(scores.shape)}; {n} tokens take {(1, n)} or {(n,)}, n > 0")
        tokens = InnerTokens(cut=0, entered=n) if tokens is None else tokens
        kept = min(max(self.count(tokens.entered, tokens.cut), 1), n)
        if kept == n:
            plan = MergePlan.identity(n, device=hidden.device)
        else:
            importance = scores.detach().reshape(-1, n).float().sum(dim=0) / max(scores.numel() // n, 1)
            deciding = {"scores of visual tokens": importance[:, None]}
            check_all_finite(deciding | ({"visual tokens": hidden} if self.looks else {}))
            plan = self.choose(importance, hidden.detach(), kept, tokens)
        return Compression(method=self.name, plan=plan, frames=0, nominal=kept, sources=self.sources(tokens))

    def choose(self, importance: Tensor, hidden: Tensor, kept: int, tokens: InnerTokens) -> MergePlan:
        """Decide which ``kept`` tokens stay, fewer than all: by default the most important; the others leave.

        Args:
            importance: float32 (n,), finite.
            hidden: (n, D).
            kept: at least 1.
            tokens: what else is known.
        """
        keep = most_important(importance, kept).sort().values
        return MergePlan.selection(keep, count_in=len(importance))

    def sources(self, tokens: InnerTokens) -> dict[str, str]:
        """Return where signals come from, where that needs to be said."""
        return {}


@dataclass(frozen=True, kw_only=True)
class CutOnce(Inner):
    """A method that cuts once, by the attention of the layer before.

    Attributes:
        K: the decoder layer (from 0) before which tokens leave; None for the paper's, see `at_depth`.
        R: share of the visual tokens that leaves, in [0, 1), in place of ``retention``.
        fidelity: ``fixed`` is the method as defined, with exact counts and stable ties; ``reference`` does what the
            released code does.
    """

    K: int | None = None
    R: float | None = None
    fidelity: Fidelity = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.K is not None and self.K < 1:
            raise ConfigError(f"K is {self.K}; the layer before it is read, so that at least 1 is allowed")
        if self.R is not None and not 0 <= self.R < 1:
            raise ConfigError(f"R is {self.R}; the share that leaves must lie in [0, 1)")
        check_fidelity(self.fidelity)

    @property
    def share(self) -> float:
        """See `Inner.share`."""
        return self.retention if self.R is None else 1 - self.R

    @property
    def cuts(self) -> tuple[Cut, ...] | None:
        """See `Inner.cuts`."""
        return None if self.K is None else (Cut(layer=self.K, scored=(self.K - 1,)),)

    def count(self, entered: int, cut: int) -> int:
        """See `Inner.count`; the released code rounds halves to even."""
        return round(self.share * entered) if self.fidelity == "reference" else super().count(entered, cut)

    def at_depth(self, depth: int, *, first: int = 1) -> Self:
        """Return this method with its layer chosen for a decoder.

        Args:
            depth: decoder layers of the model.
            first: the first of them before which tokens may leave.
        """
        if self.K is not None:
            return self
        chosen: dict[str, Any] = {"K": min(max(self.paper_layer(depth), first), depth - 1)}
        return replace(self, **chosen)

    def paper_layer(self, depth: int) -> int:
        """Return the paper's K in a decoder of this depth."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class CutUnseen(Inner):
    """A method that cuts once and reads no attention: the tokens themselves decide, so that no question matters.

    Attributes:
        K: the decoder layer (from 0) before which tokens merge; None for 2, or the first that the model allows.
    """

    K: int | None = None
    _looks_up: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.K is not None and self.K < 1:
            raise ConfigError(f"K is {self.K}; before layer 0 the method without -inner merges, inside at least 1")

    @property
    def cuts(self) -> tuple[Cut, ...] | None:
        """See `Inner.cuts`."""
        return None if self.K is None else (Cut(layer=self.K, scored=()),)

    def at_depth(self, depth: int, *, first: int = 1) -> Self:
        """Return this method with its layer chosen for a decoder."""
        if self.K is not None:
            return self
        chosen: dict[str, Any] = {"K": min(max(UNSEEN_LAYER, first), depth - 1)}
        return replace(self, **chosen)


def most_important(importance: Tensor, count: int) -> Tensor:
    """Return the most important tokens, int64 (count,), in that order; of equal ones the first."""
    return importance.sort(descending=True, stable=True).indices[:count]


def check_fidelity(fidelity: str) -> None:
    """Raise ConfigError unless the name is one of the two."""
    if fidelity not in ("fixed", "reference"):
        raise ConfigError(f"fidelity is {fidelity!r}; choose from fixed, reference")
