"""MeToM as one method: RPM before the encoder, BTM before and MATM inside the language model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.metom.btm import BTM, Fold
from compress.metom.matm import MATM, Average, Query
from compress.metom.rpm import RPM
from compress.ops.regions import Connectivity
from compress.stage import Compression, GopKind, Positions, Signals, VideoSignals


@dataclass(frozen=True, kw_only=True)
class MeToM(Attachable):
    """Metadata-guided token merging: the three stages with all their fields.

    Exactly the retention enters the language model, at its original positions; `literal` gives the letter of the paper.

    Attributes:
        retention: tokens that enter the language model, as a fraction of all (BTM's budget).
        tau: see `RPM`; likewise target_keep and connectivity.
        target_keep: see `RPM`.
        connectivity: see `RPM`.
        m_min: see `BTM`; likewise the fields up to positions.
        tau_tem: see `BTM`.
        window: see `BTM`.
        rounds: see `BTM`.
        fold: see `BTM`.
        mu: see `BTM`.
        refill: see `BTM`.
        gop: see `BTM`.
        positions: see `BTM`.
        layers: see `MATM`; likewise the rest.
        merge_percent: see `MATM`.
        average: see `MATM`.
        query: see `MATM`.

    Raises:
        ConfigError: a field is outside its range.
    """

    retention: float = 0.3
    tau: float | None = None
    target_keep: float | None = None
    connectivity: Connectivity = 4
    m_min: int | None = None
    tau_tem: float = 0.9
    window: int | None = None
    rounds: int = 1
    fold: Fold = "mean"
    mu: float = 0.6
    refill: bool = True
    gop: GopKind = "mean"
    positions: Positions = "original"
    layers: tuple[int, ...] | None = None
    merge_percent: float = 50.0
    average: Average = "mean"
    query: Query = "last"

    @classmethod
    def literal(cls, **fields: Any) -> MeToM:
        """MeToM to the letter of its paper: the budget an upper bound, the tokens that leave renumbered without gaps.

        Args:
            fields: see the class.
        """
        return cls(**{"refill": False, "positions": "contiguous", **fields})

    def __post_init__(self) -> None:
        # Each stage checks its own fields.
        _ = self.rpm, self.btm, self.matm

    @property
    def rpm(self) -> RPM:
        """The stage before the encoder."""
        return RPM(tau=self.tau, target_keep=self.target_keep, connectivity=self.connectivity)

    @property
    def btm(self) -> BTM:
        """The stage before the language model."""
        return BTM(
            retention=self.retention,
            m_min=self.m_min,
            tau_tem=self.tau_tem,
            window=self.window,
            rounds=self.rounds,
            fold=self.fold,
            mu=self.mu,
            refill=self.refill,
            gop=self.gop,
            positions=self.positions,
        )

    @property
    def matm(self) -> MATM:
        """The stage inside the language model."""
        return MATM(layers=self.layers, merge_percent=self.merge_percent, average=self.average, query=self.query)

    @property
    def merge_layer(self) -> int | None:
        """The decoder layer before which MATM merges; None while it depends on the model."""
        return self.matm.merge_layer

    def at_depth(self, depth: int, *, first: int = 1) -> MeToM:
        """See `MATM.at_depth`."""
        return replace(self, layers=self.matm.at_depth(depth, first=first).layers)

    def plan_frames(self, meta: VideoSignals, *, tokens_per_frame: int) -> NDArray[np.int64]:
        """See `BTM.plan_frames`."""
        return self.btm.plan_frames(meta, tokens_per_frame=tokens_per_frame)

    def before_encoder(self, density: Tensor | NDArray[np.float32]) -> Compression:
        """See `RPM.before_encoder`."""
        return self.rpm.before_encoder(density)

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """See `BTM.before_llm`."""
        return self.btm.before_llm(tokens, signals)

    def inside_llm(self, scores: Tensor, hidden: Tensor) -> Compression:
        """See `MATM.inside_llm`."""
        return self.matm.inside_llm(scores, hidden)
