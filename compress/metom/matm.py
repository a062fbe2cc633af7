"""MATM: merging of the visual tokens that the prompt attends to least, between two decoder layers (MeToM)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from compress.attach import Attachable
from compress.budget import round_half_up
from compress.errors import ConfigError, ShapeError
from compress.ops.absorption import Average, absorb
from compress.ops.similarity import check_all_finite
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import Compression

Query = Literal["last", "text"]


@dataclass(frozen=True, kw_only=True)
class MATM(Attachable):
    """Multi-layer attention token merging.

    A token's importance is the attention that it receives, averaged over ``layers`` (over heads before that). The
    least important ``merge_percent`` per cent merge, each into the most similar token that stays, right after the last
    of the layers. Tokens that stay keep their position ids.

    Attributes:
        layers: decoder layers (from 0) whose attention counts, ascending; None for three around the middle of the
            model, which `at_depth` names.
        merge_percent: R, in [0, 100]; at least one token stays.
        average: a token and those that join it become their plain ``mean``, or halve one after the other in order of
            position (``sequential``, as HoliTom's code does).
        query: whose attention counts, that of the ``last`` prompt token or the mean of all ``text`` tokens after the
            video; the adapter applies it when it measures the scores.

    Raises:
        ConfigError: a field is outside its range.
    """

    layers: tuple[int, ...] | None = None
    merge_percent: float = 50.0
    average: Average = "mean"
    query: Query = "last"

    def __post_init__(self) -> None:
        if self.layers is not None and (
            not self.layers
            or self.layers[0] < 0
            or any(a >= b for a, b in zip(self.layers, self.layers[1:], strict=False))
        ):
            raise ConfigError(
                f"layers is {self.layers}; give one or more layer numbers, ascending from 0, or None for the middle"
            )
        if not 0 <= self.merge_percent <= 100:
            raise ConfigError(f"merge_percent is {self.merge_percent}; allowed is [0, 100]")
        if self.average not in ("mean", "sequential"):
            raise ConfigError(f"average is {self.average!r}; choose from 'mean' and 'sequential'")
        if self.query not in ("last", "text"):
            raise ConfigError(f"query is {self.query!r}; choose from 'last' and 'text'")

    @property
    def merge_layer(self) -> int | None:
        """The decoder layer before which the tokens merge; None while it depends on the model."""
        return None if self.layers is None else self.layers[-1] + 1

    def at_depth(self, depth: int, *, first: int = 1) -> MATM:
        """Return this method with its layers chosen for a decoder: 13, 14 and 15 of 28, as in the paper.

        Args:
            depth: decoder layers of the model.
            first: the first of them before which tokens may merge.

        Raises:
            ConfigError: no layer is allowed.
        """
        if self.layers is not None:
            return self
        middle = depth // 2
        layers = tuple(layer for layer in (middle - 1, middle, middle + 1) if 0 <= layer < depth - 1)
        if not layers or layers[-1] + 1 < first:
            raise ConfigError(
                f"this model has {depth} decoder layers and allows merging from layer {first} on; "
                "a merge around the middle needs a deeper one"
            )
        return replace(self, layers=layers)

    @planned
    def inside_llm(self, scores: Tensor, hidden: Tensor) -> Compression:
        """Merge n visual tokens.

        Args:
            scores: (len(layers), n), attention received at each layer, mean over heads; or (n,), already averaged.
                Any number of layers where ``layers`` is None.
            hidden: (n, D), the residual stream before layer ``merge_layer``, any float dtype.

        Returns:
            The plan; tokens that stay are in their order.

        Raises:
            ShapeError: sizes do not match, or values are not finite.
        """
        if hidden.dim() != 2 or not hidden.is_floating_point():
            raise ShapeError(
                f"hidden has shape {tuple(hidden.shape)} and dtype {hidden.dtype}; allowed is float (n, D)"
            )
        count = hidden.shape[0]
        layers = len(scores) if self.layers is None and scores.dim() == 2 else len(self.layers or ())
        if scores.shape not in ((count,), (layers, count)):
            raise ShapeError(
                f"scores have shape {tuple(scores.shape)}; {count} tokens at {layers} layers take "
                f"{(layers, count)} or {(count,)}"
            )
        merged = min(round_half_up(self.merge_percent / 100 * count), count - 1) if count else 0
        if merged <= 0:
            plan = MergePlan.identity(count, device=hidden.device)
            return Compression(method="matm", plan=plan, frames=0, nominal=count)
        check_all_finite({"visual tokens": hidden, "scores of visual tokens": scores.reshape(-1, count).T})
        importance = scores.reshape(-1, count).float().mean(dim=0)
        order = importance.sort(descending=True, stable=True).indices
        keep = order[: count - merged].sort().values
        plan = absorb(hidden, keep, average=self.average)
        return Compression(method="matm", plan=plan, frames=0, nominal=count - merged)
