"""Screen of `codecmeta status`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from codecmeta.batch.folder_status import FolderStatus
from codecmeta.batch.outcome import Outcome
from codecmeta.batch.summary import Share
from codecmeta_cli.console import printable


def print_status(status: FolderStatus, folder: Path | str) -> None:
    """Print the state of a folder on one screen."""
    console = Console(highlight=False, soft_wrap=True)
    missing = "unknown: no listing has ended" if status.missing is None else f"{status.missing}"
    rows = [
        ("folder", printable(str(folder))),
        ("videos", "unknown" if status.inputs is None else f"{status.inputs}"),
        ("done", f"{status.done}{f' ({status.tally.warned} with warnings)' if status.tally.warned else ''}"),
        *((f"  {state}", f"{count}") for state, count in status.tally.verdicts.items()),
        ("failed", f"{status.failed}"),
        *((f"  {code}", f"{count}") for code, count in status.tally.failed.most_common()),
        ("missing", f"{missing}{f' ({status.gone} were done, and their records are gone)' if status.gone else ''}"),
    ]
    if status.stale:
        rows.append(("stale", f"{status.stale} were done with other options or versions"))
    rows += [(f"run {shard}", ended) for shard, ended in status.ends.items()]
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(name, style="bold"), Text(value))
    console.print(grid)
    if status.done:
        console.print(_shares("codec", status.tally.codecs))
        console.print(_shares("residual", status.tally.residuals))


def print_advice(status: FolderStatus) -> None:
    """Print what to do where videos are missing."""
    if status.unfinished:
        console = Console(highlight=False, soft_wrap=True)
        console.print("To extract what is missing, run the same extract command again.")


def print_failures(failures: Iterable[Outcome]) -> None:
    """Print one line per failure: its code, the video, the reason."""
    console = Console(highlight=False, soft_wrap=True)
    for outcome in failures:
        console.print(Text(printable(f"{outcome.code}  {outcome.source}  {outcome.message}")))


def _shares(name: str, shares: Mapping[str, Share]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(name)
    for title in ("videos", "hours", "GB of video", "GB of records"):
        table.add_column(title, justify="right")
    for key, share in sorted(shares.items(), key=lambda item: -item[1].videos):
        sizes = (share.source_bytes / 1e9, share.meta_bytes / 1e9)
        table.add_row(printable(key), f"{share.videos}", f"{share.hours:.2f}", *(f"{size:.3f}" for size in sizes))
    return table
