"""Time per stage of a model, by CUDA events on an accelerator and by the wall clock elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from compress.models.adapters.adapter import Adapter

TOWER, PROJECTOR, DECODER, RPM, COMPRESS = "tower", "projector", "prefill", "rpm", "compress"


class StageTimer:
    """Timer that adds up the time of named stages; nothing waits for an accelerator before `read`.

    Attributes:
        device: where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._spans: list[tuple[str, Any, Any, str | None]] = []
        self._running: list[str] = []

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        # Not that of the current device, which need not be the model's.
        event.record(torch.cuda.current_stream(self.device))
        return event

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = self._mark()
        try:
            yield
        finally:
            self._spans.append((name, start, self._mark(), self._running[-1] if self._running else None))

    @contextmanager
    def watch(self, adapter: Adapter) -> Iterator[None]:
        """Time tower, projector and decoder of a model; the tower with the hooks put on before, the decoder without.

        Inside a session, so that what its hooks prepare for the tower counts there, less the planning, and what they
        do before the decoder does not count as prefill.
        """
        parts = {DECODER: adapter.language_model}
        for name, attribute in ((TOWER, "tower"), (PROJECTOR, "projector"), (TOWER, "visual")):
            if hasattr(adapter, attribute):
                parts[name] = getattr(adapter, attribute)
        handles = []
        for name, module in parts.items():
            handles += self._watch_module(name, module, hooks_too=name == TOWER)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watch_module(self, name: str, module: nn.Module, *, hooks_too: bool) -> list[Any]:
        started: list[Any] = []

        def begin(*_: Any) -> None:
            self._running.append(name)
            started.append(self._mark())

        def end(*_: Any) -> None:
            self._running.pop()
            self._spans.append((name, started.pop(), self._mark(), self._running[-1] if self._running else None))

        return [module.register_forward_pre_hook(begin, prepend=hooks_too), module.register_forward_hook(end)]

    def read(self) -> dict[str, float]:
        """Return seconds per stage since the last reading; those of a module without the stages inside it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds: dict[str, float] = {}
        for name, start, end, around in self._spans:
            span = end - start if isinstance(start, float) else start.elapsed_time(end) / 1000
            seconds[name] = seconds.get(name, 0.0) + span
            if around is not None:
                seconds[around] = seconds.get(around, 0.0) - span
        self._spans, self._running = [], []
        return seconds
