"""FastV: after the first layers of the language model, only the visual tokens that are attended to (ECCV 2024).

Written from the paper; the authors' code carries no licence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.baselines.inner import CutOnce
from compress.errors import ConfigError
from compress.stage import Cut, Query

PAPER_LAYER = 2


@dataclass(frozen=True, kw_only=True)
class FastV(CutOnce):
    """The visual tokens of most attention, from layer K on.

    The paper ranks tokens by the attention that they receive on average from all tokens; the released code by that of
    the last token.

    Attributes:
        query: whose attention counts, ``all`` or ``last``; None for the paper's, or with ``fidelity="reference"`` the
            code's.
    """

    query: Query | None = None
    name: ClassVar[str] = "fastv"
    looks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.query not in (None, "last", "text", "all"):
            raise ConfigError(f"query is {self.query!r}; choose from last, text, all")

    @property
    def cuts(self) -> tuple[Cut, ...] | None:
        """See `Inner.cuts`."""
        if self.K is None:
            return None
        query: Query = "last" if self.fidelity == "reference" else "all"
        return (Cut(layer=self.K, scored=(self.K - 1,), query=self.query or query),)

    def paper_layer(self, depth: int) -> int:
        """Return 2, whatever the depth."""
        return PAPER_LAYER
