"""Job clock: the seconds that count towards a job's time limit, as its worker reports them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event

from codecmeta.simd.numba_cache import COMPILING

Write = Callable[[float | None], None]
"""Receives the seconds used so far when the clock starts or continues, and None when it pauses."""


class JobClock(event.Listener):  # type: ignore[misc]
    """Clock that runs while a job runs, except while this or another process compiles a kernel for it."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._used = 0.0
        self._began = 0.0
        self._compiling = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what this process does inside the block."""
        self._begin()
        with event.install_listener(COMPILING, self):
            yield

    def on_start(self, event: object) -> None:
        """Pause at the first of several nested compilations."""
        self._compiling += 1
        if self._compiling == 1:
            self._used += time.monotonic() - self._began
            self._write(None)

    def on_end(self, event: object) -> None:
        """Continue when all of them are compiled."""
        self._compiling -= 1
        if self._compiling == 0:
            self._begin()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._write(self._used)
