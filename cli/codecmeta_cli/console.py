"""Console output of both commands: text fit for a terminal, refusals, tables and the progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.table import Table

WIDE = 170
"""Columns of a table that is not printed on a terminal."""

_PACE_SECONDS = 60.0
_DRAW_SECONDS = 0.1


def printable(text: str, *, longest: int | None = None) -> str:
    """Return a text on one line of a terminal, whatever a file put into it.

    Args:
        text: control and undecodable characters become escapes.
        longest: number of characters; the middle of a longer text is omitted. None for any length.
    """
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    if longest is None or len(clean) <= longest:
        return clean
    half = (longest - 1) // 2
    return f"{clean[:half]}…{clean[-half:]}"


def refuse(command: str, error: Exception | str, *, code: int = 2) -> NoReturn:
    """End a command with a reason on standard error.

    Args:
        command: its name, with which the message begins.
        error: why.
        code: exit code; 2 for wrong usage.
    """
    typer.echo(f"{command}: {printable(str(error))}", err=True)
    raise typer.Exit(code)


def open_console(*, wide: int = WIDE) -> Console:
    """Open standard output: as wide as the terminal, or wide enough where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=wide)


def make_table(*texts: str, numbers: Sequence[str] = ()) -> Table:
    """Make an empty table; columns of text fold, those of numbers do not."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for text in texts:
        table.add_column(text, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


class ProgressBar:
    """Bar on standard error, if that is a terminal, with failures and pace; a line every minute elsewhere.

    Attributes:
        is_shown: whether there is a bar, so that lines about every single piece would be too much.

    Args:
        doing: what is being done, in one word.
        total: number of pieces; None while that is unknown.
        resumable: an interrupted command resumes when it is run again.
    """

    def __init__(self, doing: str, *, total: int | Callable[[], int | None] | None, resumable: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._total = total if callable(total) else lambda: total
        self._interrupted = "interrupted" + ("; run the same command again to do what is left" if resumable else "")
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.is_shown = self._console.is_terminal
        self._bar = Progress(
            TextColumn(doing),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            console=self._console,
            transient=True,
            disable=not self.is_shown,
            # what goes to a file or a pipe must not be drawn above the bar instead
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("", total=None, pace="")
        self._done = self._failed = 0
        self._begin = self._paced = time.monotonic()
        self._drawn = float("-inf")

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit):
            self.say(self._interrupted)

    def advance(self, *, failed: bool = False) -> None:
        """Count one more piece as done."""
        self._failed += failed
        self.reach(self._done + 1)

    def reach(self, done: int) -> None:
        """Set the number of pieces that are done."""
        self._done = done
        now, total = time.monotonic(), self._total()
        if self.is_shown:
            if now - self._drawn < _DRAW_SECONDS and done != total:
                return
            self._drawn = now
            pace = _pace(done, total, self._failed, now - self._begin)
            self._bar.update(self._task, completed=done, total=total, pace=pace)
        elif now - self._paced > _PACE_SECONDS:
            self._paced = now
            pace = _pace(done, total, self._failed, now - self._begin)
            self.say(f"{done} of {'?' if total is None else total}: {pace}")

    def say(self, text: str, *, style: str | None = None) -> None:
        """Print a line above the bar; its markup counts."""
        self._console.print(text, style=style)

    def say_plain(self, text: str) -> None:
        """Print any text as one line, even if it comes from a file."""
        self._console.print(printable(text, longest=2000), markup=False)


def _pace(done: int, total: int | None, failed: int, seconds: float) -> str:
    """Return failures, pieces per second and the remaining time."""
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
