"""Compressor that times what a method does and keeps what it decided, inside a session or without a model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from compress.attach import Attachable
from compress.methods import STAGES
from compress.plan import MergePlan
from compress.stage import BeforeLLM, Compression, Signals

Decided = TypeVar("Decided")


@dataclass(kw_only=True, eq=False)
class Log:
    """What a method did to a video.

    Attributes:
        seconds: of every call, by stage; signals were measured before.
        tokens: (T, N, D), what it was given before the language model.
        grid: rows and columns of these.
        patches: share of the patches that merging before or inside the encoder left.
        compression: what it decided before the language model.
        inside: what it decided inside it, per cut and prompt.
        cut_layers: the decoder layers before which it did, ascending.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    tokens: Tensor | None = None
    grid: tuple[int, int] | None = None
    patches: float = 1.0
    compression: Compression | None = None
    inside: dict[int, list[Compression]] = field(default_factory=dict)
    cut_layers: tuple[int, ...] = ()

    @property
    def plans(self) -> list[MergePlan]:
        """From all tokens to those that are left at the end, per prompt; one where no prompt matters."""
        assert self.compression is not None  # a video was shortened
        plans = [self.compression.plan]
        for cut in sorted(self.inside):
            before = plans if len(plans) == len(self.inside[cut]) else plans * len(self.inside[cut])
            plans = [one.plan @ other for one, other in zip(self.inside[cut], before, strict=True)]
        return plans

    @property
    def spent(self) -> float:
        """Seconds of one call of every stage, medians."""
        return sum(statistics.median(calls) for calls in self.seconds.values())


class Watched(Attachable):
    """A method with its log; it has the stages and fields of the method, and always the one before the language model.

    Args:
        method: what is watched.
        repeats: calls per decision, of which the median counts.
        log: to be filled; None for a new one.
    """

    def __init__(self, method: Any, *, repeats: int = 1, log: Log | None = None) -> None:
        self.method = method
        self.repeats = repeats
        self.log = log or Log()
        watched = {
            "before_encoder": self._before_encoder,
            "inside_encoder": self._inside_encoder,
            "inside_llm": self._inside_llm,
        }
        for stage in STAGES:
            if hasattr(method, stage) and stage != "before_llm":
                # From Python 3.12 on, isinstance() with a protocol asks for attributes without __getattr__.
                setattr(self, stage, watched.get(stage, getattr(method, stage)))
        for name in ("layers", "merge_layer", "cuts", "decode_layer"):
            if hasattr(method, name):
                setattr(self, name, getattr(method, name))
        if hasattr(method, "at_depth"):
            self.at_depth = self._at_depth

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "method":
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return getattr(self.method, name)

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that the method reads before the language model."""
        from compress.models.session.session import signals_read

        known = {one.name for one in fields(Signals)}
        read = signals_read(self.method) if isinstance(self.method, BeforeLLM) else ()
        return tuple(name for name in read if name in known)

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """Plan as the method does; a method without this stage keeps all tokens."""
        log = self.log
        log.tokens, log.grid = tokens, signals.grid

        def decide() -> Compression:
            if not isinstance(self.method, BeforeLLM):
                count = tokens.shape[0] * tokens.shape[1]
                plan = MergePlan.identity(count, device=tokens.device)
                return Compression(method="none", plan=plan, frames=tokens.shape[0], nominal=count)
            found = self.method.before_llm(tokens, signals)
            found.apply(tokens)
            return found

        log.compression = self._timed("before_llm", decide, tokens.device)
        return log.compression

    def _before_encoder(self, density: Any) -> Compression:
        found: Compression = self._timed("before_encoder", lambda: self.method.before_encoder(density))
        self.log.patches = found.plan.retention
        return found

    def _inside_encoder(self, state: Any) -> Any:
        found = self._timed(
            f"inside_encoder {state.block}", lambda: self.method.inside_encoder(state), state.hidden.device
        )
        if found is not None:
            self.log.patches = len(found.keep) / (state.frames * state.patches)
        return found

    def _inside_llm(self, scores: Tensor, hidden: Tensor, *shown: Any) -> Compression:
        cut = shown[0].cut if shown else 0
        stage = f"inside_llm {cut}"
        found: Compression = self._timed(stage, lambda: self.method.inside_llm(scores, hidden, *shown), hidden.device)
        self.log.inside.setdefault(cut, []).append(found)
        cuts = getattr(self.method, "cuts", None)
        self.log.cut_layers = (self.method.merge_layer,) if cuts is None else tuple(one.layer for one in cuts)
        return found

    def _at_depth(self, depth: int, *, first: int = 1) -> Watched:
        return Watched(self.method.at_depth(depth, first=first), repeats=self.repeats, log=self.log)

    def _timed(self, stage: str, decide: Callable[[], Decided], device: torch.device | None = None) -> Decided:
        for _ in range(self.repeats):
            _wait(device)
            start = time.perf_counter()
            found = decide()
            _wait(device)
            self.log.seconds.setdefault(stage, []).append(time.perf_counter() - start)
        return found


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
