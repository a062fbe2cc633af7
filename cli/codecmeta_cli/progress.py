"""What `codecmeta extract` and `verify` print while they work."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from codecmeta.batch.outcome import Outcome
from codecmeta.batch.verification import Finding

T = TypeVar("T")


def printable(text: str) -> str:
    """A file name on one line of a terminal: control and undecodable characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class Reporter:
    """A progress bar on a terminal, plain lines elsewhere; with `json`, objects on standard output and nothing else."""

    def __init__(self, *, json: bool, doing: str = "extracting") -> None:
        self._json = json
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn(doing),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)
        self._seen = 0
        self._warned = 0

    def __enter__(self) -> Reporter:
        self._progress.start()
        return self

    def say(self, text: str) -> None:
        """A remark beside the progress."""
        self._console.print(text, style="dim")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit):
            self._console.print("interrupted; run the same command again to do what is left")

    def count(self, inputs: Iterable[T]) -> Iterator[T]:
        """Pass the inputs on and keep the bar's total in step."""
        for item in inputs:
            self._seen += 1
            self._progress.update(self._task, total=self._seen)
            yield item

    def report(self, outcome: Outcome) -> None:
        """Show one outcome."""
        self._progress.advance(self._task)
        if self._json:
            sys.stdout.write(outcome.json() + "\n")
            sys.stdout.flush()
        self._warned += bool(outcome.warnings)
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
        self._progress.advance(self._task)
        if self._json:
            sys.stdout.write(finding.json() + "\n")
            sys.stdout.flush()
        meta = escape(printable(finding.meta))
        if finding.status == "failed":
            self._console.print(f"[red]failed[/] {meta}: {escape(printable(finding.message))} \\[{finding.code}]")
        elif not self._json and not self._console.is_terminal:
            self._console.print(f"sound {meta}")

    def finish(self, counts: Mapping[Any, int], out: Path) -> None:
        """Say what became of all inputs."""
        text = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"
        text += f" ({self._warned} with warnings)" if self._warned else ""
        self._console.print(f"{text}; metadata in {escape(printable(str(out)))}")
