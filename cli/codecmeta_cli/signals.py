"""Signals that end a run: partial output is removed first."""

from __future__ import annotations

import signal


def end_like_interrupted() -> None:
    """Make SIGTERM and SIGHUP unwind the program, as Ctrl-C does; the exit code is that of the signal."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        # nohup ignores it
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
