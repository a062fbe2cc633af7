"""What `codecmeta extract` and `verify` print while they work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from codecmeta.batch.outcome import Outcome
from codecmeta.batch.verification import Finding

_PACE_SECONDS = 60.0


def printable(text: str) -> str:
    """A file name on one line of a terminal: control and undecodable characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class _Pace(ProgressColumn):
    """Videos per second, failures, and the time that is left."""

    def render(self, task: Task) -> Text:
        return Text(_pace(task.completed, task.total, task.fields["failed"], task.elapsed or 0.0))


def _pace(done: float, total: float | None, failed: int, seconds: float) -> str:
    parts = [f"{failed} failed"] if failed else []
    if done and seconds > 0:
        rate = done / seconds
        parts.append(f"{rate:.3g}/s")
        if total is not None:
            parts.append(f"{_duration(max(total - done, 0) / rate)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


class Reporter:
    """A progress bar on a terminal, plain lines elsewhere; with `json`, objects on standard output and nothing else.

    Args:
        json: objects on standard output.
        total: how many videos there are, None while that is unknown.
        doing: what is done with them.
    """

    def __init__(self, *, json: bool, total: Callable[[], int | None], doing: str = "extracting") -> None:
        self._json = json
        self._total = total
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn(doing),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Pace(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, failed=0)
        self._done = self._failed = self._warned = self._without = 0
        self._begin = self._paced = time.monotonic()

    def __enter__(self) -> Reporter:
        self._progress.start()
        return self

    def _advance(self, *, failed: bool) -> None:
        """Count one more; without a terminal, say every minute how far it is."""
        self._done += 1
        self._failed += failed
        if self._console.is_terminal:
            self._progress.update(self._task, completed=self._done, total=self._total(), failed=self._failed)
        elif (now := time.monotonic()) - self._paced > _PACE_SECONDS:
            self._paced = now
            total = self._total()
            pace = _pace(self._done, total, self._failed, now - self._begin)
            self._console.print(f"{self._done} of {'?' if total is None else total}: {pace}")

    def say(self, text: str) -> None:
        """Print a remark above the progress."""
        self._console.print(text, style="dim")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit):
            self._console.print("interrupted; run the same command again to do what is left")

    def report(self, outcome: Outcome) -> None:
        """Show one outcome."""
        self._advance(failed=outcome.status == "failed")
        if self._json:
            sys.stdout.write(outcome.json() + "\n")
            sys.stdout.flush()
        self._warned += bool(outcome.warnings)
        self._without += outcome.status != "failed" and outcome.residual is None
        source = escape(printable(outcome.source))
        notes = "".join(f"; {escape(printable(text))}" for text in outcome.warnings)
        if outcome.status == "failed":
            self._console.print(f"[red]failed[/] {source}: {escape(printable(outcome.message))} \\[{outcome.code}]")
        elif outcome.status == "done" and not self._json and not self._console.is_terminal:
            counts = (("frame", outcome.frames), ("packet", outcome.packets), ("GoP", outcome.gops))
            facts = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts)
            residual = outcome.residual or "none"
            self._console.print(f"done {source}: {facts}, residual {residual}, {outcome.seconds:.1f} s{notes}")
        elif outcome.status == "done" and notes:
            self._console.print(f"[yellow]done[/] {source}{notes}")

    def report_finding(self, finding: Finding) -> None:
        """Show what the check of a record found."""
        self._advance(failed=finding.status == "failed")
        if self._json:
            sys.stdout.write(finding.json() + "\n")
            sys.stdout.flush()
        meta = escape(printable(finding.meta))
        if finding.status == "failed":
            self._console.print(f"[red]failed[/] {meta}: {escape(printable(finding.message))} \\[{finding.code}]")
        elif not self._json and not self._console.is_terminal:
            self._console.print(f"sound {meta}")

    def finish(self, counts: Mapping[Any, int], out: Path, *, residuals: bool = False) -> None:
        """Print the counts of all inputs.

        Args:
            counts: by status.
            out: the folder of the records.
            residuals: whether they were to have one, so that those without are counted.
        """
        text = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"
        text += f" ({self._warned} with warnings)" if self._warned else ""
        if residuals and self._without:
            text += f" ({self._without} without a residual; --residual proxy makes one for any codec)"
        self._console.print(f"{text}; metadata in {escape(printable(str(out)))}")
