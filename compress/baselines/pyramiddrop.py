"""PyramidDrop: fewer visual tokens stage by stage through the language model (CVPR 2025).

The reference follows the released code (Cooperx521/PyramidDrop, MIT).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from compress.baselines.baseline import Fidelity
from compress.baselines.inner import Inner, check_fidelity
from compress.budget import floor_guarded, round_half_up
from compress.errors import ConfigError
from compress.stage import Cut, Positions

STAGES = 3


@dataclass(frozen=True, kw_only=True)
class PyramidDrop(Inner):
    """The visual tokens that the last prompt token attends to most, fewer before each of several layers.

    Attention is that of the layer which follows, by its queries and keys of the tokens before they leave. Of the
    tokens that entered, lambda^i are left after the i-th cut, so that ``retention`` is lambda^3: 1/8 for the paper's
    1/2. Fixed, position ids stay; the released code counts them again at every cut.

    Attributes:
        layer_list: decoder layers (from 0) before which tokens leave, ascending; None for three at a quarter, half and
            three quarters of the model: 8, 16 and 24 of 32.
        image_token_ratio_list: share of the tokens that is left after each cut, descending, in place of ``retention``.
        fidelity: ``reference`` rounds counts down and counts positions again.
    """

    retention: float = 0.125
    layer_list: tuple[int, ...] | None = None
    image_token_ratio_list: tuple[float, ...] | None = None
    fidelity: Fidelity = "fixed"
    name: ClassVar[str] = "pyramiddrop"
    looks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fidelity(self.fidelity)
        layers, ratios = self.layer_list, self.image_token_ratio_list
        if layers is not None and (not layers or layers[0] < 1 or any(a >= b for a, b in itertools.pairwise(layers))):
            raise ConfigError(f"layer_list is {layers}; give one or more layer numbers, ascending from 1, or None")
        if ratios is not None and (
            not ratios
            or not 0 < ratios[-1] <= ratios[0] <= 1
            or any(a < b for a, b in itertools.pairwise(ratios))
            or len(ratios) != (STAGES if layers is None else len(layers))
        ):
            raise ConfigError(
                f"image_token_ratio_list is {ratios} for the layers {layers or 'of the model'}; give one share in "
                "(0, 1] per layer, descending"
            )

    @property
    def ratios(self) -> tuple[float, ...]:
        """The share of the tokens that is left after each cut."""
        if self.image_token_ratio_list is not None:
            return self.image_token_ratio_list
        count = STAGES if self.layer_list is None else len(self.layer_list)
        return tuple(self.retention ** (number / count) for number in range(1, count + 1))

    @property
    def share(self) -> float:
        """See `Inner.share`."""
        return self.ratios[-1]

    @property
    def cuts(self) -> tuple[Cut, ...] | None:
        """See `Inner.cuts`."""
        positions: Positions = "contiguous" if self.fidelity == "reference" else "original"
        if self.layer_list is None:
            return None
        return tuple(Cut(layer=layer, scored=(layer,), positions=positions) for layer in self.layer_list)

    def count(self, entered: int, cut: int) -> int:
        """See `Inner.count`; the released code rounds down."""
        share = entered * self.ratios[cut]
        if self.fidelity == "fixed":
            return round_half_up(share)
        return floor_guarded(share) if self.image_token_ratio_list is None else int(share)

    def at_depth(self, depth: int, *, first: int = 1) -> Self:
        """Return this method with its layers chosen for a decoder.

        Args:
            depth: decoder layers of the model.
            first: the first of them before which tokens may leave.

        Raises:
            ConfigError: the decoder is too shallow.
        """
        if self.layer_list is not None:
            return self
        layers = tuple(depth * number // (STAGES + 1) for number in range(1, STAGES + 1))
        if layers[0] < first or len(set(layers)) < STAGES:
            raise ConfigError(
                f"this model has {depth} decoder layers and allows cuts from layer {first} on, too few for {STAGES}; "
                "name others in layer_list"
            )
        return replace(self, layer_list=layers)
