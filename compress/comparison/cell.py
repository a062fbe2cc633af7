"""Figures of one method at one retention on one video."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

Status = Literal["done", "failed", "omitted"]

EVERYTHING: Final = "all tokens"
ANOTHER: Final = "another clip"
CONTROLS: Final = (EVERYTHING, ANOTHER)
"""Rows that check the measurement of answers: all tokens through the same hooks, and another video's tokens."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A line of `compress compare --json`: a method at a retention on a video.

    Attributes:
        video: path of the .npz below the input folder, without its suffix; None for a method that is omitted.
        status: ``done``, ``failed``, or ``omitted`` for a method that cannot work here.
        message: why not, and what differs from what was requested.
        method: its name, or one of `CONTROLS`; None where the video itself failed.
        retention: nominal retained fraction; None likewise.
        frames: T, frames of tokens.
        tokens_in: V.
        tokens_out: V', those that enter the language model.
        tokens_inner: those after the last merge inside it, mean over questions; as tokens_out without one.
        patches: share of patches that the encoder sees, or that merging inside it left.
        seconds: of planning and merging, signals apart, median over calls; None for a control.
        macs: multiply-accumulates of the prefill over visual tokens (InfoMerge, eqs. 13-16).
        macs_full: the same without compression.
        assignment_error: see `compress.comparison.reconstruction`.
        local_error: likewise.
        linear_error: likewise.
        moving_coverage: share of what moves that is kept, see `compress.comparison.coverage`; None if nothing moves.
        residual_coverage: likewise of high residual.
        temporal_coverage: share of frames of which something is kept.
        longest_gap: frames in the longest run of which nothing is kept.
        kl: nats per question, KL of the answers over all tokens and over those that are kept.
        agreement: share of questions whose likeliest first word is the same; None without a model.
        sources: what the marks of motion and residual, and the method's own signals, come from.
    """

    video: str | None
    status: Status
    message: str = ""
    method: str | None = None
    retention: float | None = None
    frames: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_inner: float = 0.0
    patches: float | None = None
    seconds: float | None = None
    macs: float | None = None
    macs_full: float | None = None
    assignment_error: float | None = None
    local_error: float | None = None
    linear_error: float | None = None
    moving_coverage: float | None = None
    residual_coverage: float | None = None
    temporal_coverage: float | None = None
    longest_gap: int | None = None
    kl: tuple[float, ...] = ()
    agreement: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def kl_summary(self) -> dict[str, float | None]:
        """Median, mean and 90th percentile of `kl`; None without questions."""
        return summarise_divergence(self.kl)

    def to_json(self) -> str:
        """Return one line of ASCII, whatever the file names hold."""
        return json.dumps({**dataclasses.asdict(self), **self.kl_summary}, allow_nan=False)


def summarise_divergence(kl: tuple[float, ...]) -> dict[str, float | None]:
    """Return median, mean and 90th percentile (linear interpolation) in nats; None for no question."""
    if not kl:
        return {"kl_median": None, "kl_mean": None, "kl_p90": None}
    middle, high = np.percentile(kl, [50, 90])
    return {"kl_median": float(middle), "kl_mean": float(np.mean(kl)), "kl_p90": float(high)}
