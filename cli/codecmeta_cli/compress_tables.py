"""What `compress` shows of a run: its progress, and tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from compress.runner import VideoReport

STAGES = ("load", "density", "encode", "compress", "save", "plot")
WIDE = 150
"""Columns of a table that is not printed on a terminal."""


def print_reports(console: Console, reports: Sequence[VideoReport]) -> None:
    """One table over all videos, then what there is to say about single ones."""
    from rich.markup import escape

    from compress.picture import printable

    shown = [stage for stage in STAGES if any(stage in report.seconds for report in reports)]
    table = make_table(
        "video", numbers=("frames", "tokens in", "out", "retained", "per frame", "patches", "pairs", *shown)
    )
    for report in reports:
        name = escape(printable(report.video, longest=60))
        if report.status == "failed":
            table.add_row(name, "[red]failed[/]")
            continue
        patches = report.merges.get("patches_encoded")
        pairs = report.merges.get("pairs")
        table.add_row(
            name + (" [dim](done before)[/]" if report.status == "kept" else ""),
            str(report.frames),
            str(report.tokens_in),
            str(report.tokens_out),
            f"{100 * report.tokens_out / report.tokens_in:.1f} %",
            f"{min(report.budgets)}-{max(report.budgets)}",
            "-" if patches is None else f"{100 * patches / report.merges['patches_in']:.1f} %",
            "-" if pairs is None else f"{pairs:g}",
            *(f"{report.seconds[stage]:.2f}" if stage in report.seconds else "-" for stage in shown),
        )
    console.print(table)
    console.print(
        "per frame: tokens that leave · patches: share that the encoder sees after RPM · "
        "pairs: tokens merged across frames · stages in seconds",
        style="dim",
    )
    for report in reports:
        if report.message:
            style = "red" if report.status == "failed" else "yellow"
            console.print(
                f"[{style}]{escape(printable(report.video, longest=200))}[/]: "
                f"{escape(printable(report.message, longest=2000))}",
                highlight=False,
                soft_wrap=True,
            )


class RunProgress:
    """A bar on a terminal, a line per video otherwise, on standard error."""

    def __init__(self, total: int, *, hidden: bool) -> None:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        self._hidden = hidden
        self._console = Console(stderr=True)
        self._bar = Progress(
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=hidden or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("compress", total=total)

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, report: VideoReport) -> None:
        """One more video is done."""
        from compress.picture import printable

        self._bar.advance(self._task)
        if not (self._hidden or self._console.is_terminal):
            result = f"{report.tokens_in} -> {report.tokens_out} tokens" if report.frames else report.message
            line = f"{printable(report.video, longest=200)}: {report.status}, {printable(result, longest=2000)}"
            print(line, file=sys.stderr)  # noqa: T201


def open_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def make_table(*texts: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table; columns of text fold, those of numbers do not."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for text in texts:
        table.add_column(text, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table
