"""Comparison methods: one retention, exact counts, and planning that the caller's settings never change.

A method fills in `Baseline.choose`. One that was published with code also fills in `Published.released`, which follows
that code, quirks included; ``fidelity`` says which of the two decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.baselines.rows import Rows
from compress.budget import allocate, check_retention, count_tokens
from compress.errors import ConfigError, ShapeError
from compress.metom.btm import BTM
from compress.ops.saliency import distance_to_frame_mean
from compress.ops.similarity import check_finite
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import (
    Compression,
    GopKind,
    Positions,
    Segment,
    Signals,
    VideoSignals,
    check_signal,
    check_tokens,
)

Fidelity = Literal["fixed", "reference"]
"""The method as it is defined, or as its released code runs, quirks included."""

FrameBudget = Literal["own", "packets"]
"""Tokens per frame by the method's own rule, or by the packet sizes of the video (MeToM's budget)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Decision of a method about one video.

    Attributes:
        plan: over all tokens.
        nominal: tokens that were asked for, where it is not the retention that decides.
        positions: position ids of the tokens that leave, where they are not the method's.
        kind: uint8 (V',), index into ``kinds``, or None.
        kinds: names of the kinds of token.
        frame_budgets: int64 (T,), tokens granted to each frame, where the method has such budgets.
        segments: in order, where the method has them.
        sources: signal -> where it came from.
        diagnostics: named arrays and numbers.
    """

    plan: MergePlan
    nominal: int | None = None
    positions: Positions | None = None
    kind: Tensor | None = None
    kinds: tuple[str, ...] = ()
    frame_budgets: NDArray[np.int64] | None = None
    segments: tuple[Segment, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    diagnostics: Mapping[str, NDArray[np.generic] | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Baseline(Attachable):
    """A method before the language model that serves for comparison.

    Attributes:
        retention: share of the tokens that leave, in (0, 1].
        positions: position ids of the tokens that leave.
        name: of the method.
        reads: the signals that it reads.
        looks: whether the tokens themselves decide; they are then checked.

    Raises:
        ConfigError: a field is outside its range.
    """

    retention: float = 0.1
    positions: Positions = "original"
    name: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    looks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_retention(self.retention)
        self._check_choice("positions", ("original", "contiguous"))

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that `before_llm` reads: none where every token stays, so that none is measured."""
        return () if self._keeps_all else self.reads

    @property
    def _keeps_all(self) -> bool:
        return self.retention == 1

    @planned
    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """Shorten the tokens of a video.

        Args:
            tokens: (T, N, D), any float dtype.
            signals: what is known of the video; a signal that is missing has a fall-back, named in the result.

        Returns:
            The plan, exactly ``round(retention T N)`` tokens in (frame, raster) order.

        Raises:
            ShapeError: sizes do not match, or tokens or signals are not finite.
            ConfigError: the retention leaves no token.
        """
        frames, per_frame, _ = check_tokens(tokens)
        count = self.nominal(frames, per_frame)
        if self._keeps_all or (count == frames * per_frame and self._retention_decides):
            choice = Choice(plan=MergePlan.identity(count, device=tokens.device))
        else:
            if self.looks or self._follows_released_code:
                check_finite(tokens)
            choice = self._decide(tokens.detach(), signals, count)
        return Compression(
            method=self.name,
            plan=choice.plan,
            frames=frames,
            nominal=count if choice.nominal is None else choice.nominal,
            kind=choice.kind,
            kinds=choice.kinds,
            frame_budgets=choice.frame_budgets,
            segments=choice.segments,
            positions=choice.positions or self.positions,
            sources=choice.sources,
            diagnostics=choice.diagnostics,
        )

    def nominal(self, frames: int, per_frame: int) -> int:
        """Count the tokens that the retention asks for of T frames of N tokens."""
        return count_tokens(self.retention, frames * per_frame)

    @property
    def _follows_released_code(self) -> bool:
        return False

    @property
    def _retention_decides(self) -> bool:
        """Whether the count follows from the retention."""
        return not self._follows_released_code

    def _decide(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        return self.choose(tokens, signals, count)

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """Decide which ``count`` tokens leave, fewer than all, and what they are the mean of.

        Args:
            tokens: (T, N, D), finite.
            signals: as given.
            count: at least 1.
        """
        raise NotImplementedError

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        if getattr(self, name) not in allowed:
            raise ConfigError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(allowed)}")

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{name} is {value}; allowed is [{low:g}, {high:g}]")


@dataclass(frozen=True, kw_only=True)
class Published(Baseline):
    """A published method.

    Attributes:
        fidelity: ``fixed`` is the method as defined, with exact counts and stable ties; ``reference`` does what the
            released code does, in float32.
        released_positions: what the released code does to position ids; None for what the adapters do.
    """

    fidelity: Fidelity = "fixed"
    released_positions: ClassVar[Positions | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("fidelity", ("fixed", "reference"))

    @property
    def _keeps_all(self) -> bool:
        return self.retention == 1 and self.fidelity == "fixed"

    @property
    def _follows_released_code(self) -> bool:
        return self.fidelity == "reference"

    def _decide(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        if self.fidelity == "fixed":
            return self.choose(tokens, signals, count)
        plan, repeated = self.released(tokens, signals).plan()
        return Choice(
            plan=plan,
            positions=self.released_positions,
            sources=self._sources_of(signals),
            diagnostics={"repeated": float(repeated)} if repeated else {},
        )

    def _sources_of(self, signals: Signals) -> dict[str, str]:
        """Return where the signals of a released run come from."""
        return {"saliency": saliency_source(signals)} if "saliency" in self.reads else {}

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """Return what the released code emits.

        Args:
            tokens: (T, N, D).
            signals: as given.
            noise: the uniform numbers that the code draws, in the order in which it draws them; None for zeros.

        Raises:
            ConfigError: the code fails on such a video.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class FrameBudgets(Baseline):
    """A method that grants every frame some tokens.

    Attributes:
        frame_budget: tokens of each frame by the method's ``own`` rule, or by ``packets``: a quarter of the mean
            budget for every frame, the rest by the square root of its complexity c_t (see `BTM`).
        gop: measure of c_t, see `GopKind`.
    """

    frame_budget: FrameBudget = "own"
    gop: GopKind = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("frame_budget", ("own", "packets"))
        self._check_choice("gop", ("mean", "total", "packet", "interval"))

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that `before_llm` reads."""
        read = super().signals
        return (*read, "packet_size") if self.frame_budget == "packets" and not self._keeps_all else read

    def plan_frames(self, meta: VideoSignals, *, tokens_per_frame: int) -> NDArray[np.int64]:
        """Compute the tokens of each frame from metadata only, before anything is encoded.

        Args:
            meta: the video's metadata.
            tokens_per_frame: N.

        Returns:
            int64 (T,).

        Raises:
            ConfigError: the method's own budgets depend on the tokens.
        """
        size = meta.gop_packet_size(kind=self.gop)
        if self.frame_budget == "packets":
            return BTM(retention=self.retention).frame_budgets(size, tokens_per_frame=tokens_per_frame)
        return self.own_budgets(len(size), tokens_per_frame)

    def own_budgets(self, frames: int, per_frame: int) -> NDArray[np.int64]:
        """Grant every frame the same number, as far as it divides; earlier frames get the remainder."""
        return share_evenly(count_tokens(self.retention, frames * per_frame), frames, per_frame)

    def budgets(self, tokens: Tensor, signals: Signals) -> tuple[NDArray[np.int64], dict[str, str]]:
        """Return the tokens of each frame, int64 (T,), and where the packet sizes come from."""
        frames, per_frame, _ = tokens.shape
        if self.frame_budget == "own":
            return self.own_budgets(frames, per_frame), {}
        missing = signals.packet_size is None
        size = (
            np.ones(frames)
            if signals.packet_size is None
            else check_signal("packet_size", signals.packet_size, (frames,))
        )
        shares = BTM(retention=self.retention).frame_budgets(size, tokens_per_frame=per_frame)
        return shares, {"packet_size": "uniform (none given)" if missing else "given"}


def share_evenly(total: int, bins: int, upper: int) -> NDArray[np.int64]:
    """Share ``total`` units over bins of at most ``upper``, as evenly as possible; lower bins get the remainder."""
    return allocate(np.ones(bins), total, upper=upper)


def spread(count: int, places: int) -> NDArray[np.int64]:
    """Spread indices evenly over the places, int64 (count,): ``floor((i + 1/2) places / count)``."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * places // (2 * max(count, 1))


def saliency_of(tokens: Tensor, signals: Signals) -> Tensor:
    """Return the given saliency, float32 (T, N), or its fall-back, the distance to the frame's mean token.

    Raises:
        ShapeError: the shape differs, or a value is not finite.
    """
    if signals.saliency is None:
        return distance_to_frame_mean(tokens)
    saliency = signals.saliency.detach().to(tokens.device).float()
    if saliency.shape != tokens.shape[:2]:
        raise ShapeError(f"saliency has shape {tuple(saliency.shape)}; these tokens take {tuple(tokens.shape[:2])}")
    if not bool(torch.isfinite(saliency).all()):
        raise ShapeError("saliency holds NaN or infinity; all values must be finite")
    return saliency


def saliency_source(signals: Signals) -> str:
    """Return where the saliency comes from."""
    return "distance to frame mean (none given)" if signals.saliency is None else signals.saliency_source
