"""The command `compress accuracy`: how much of a model's accuracy each method keeps."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

import typer

from codecmeta_cli.compress_models import NEED_HF, refuse

Split = Literal["val", "test", "stress", "gops"]

WIDE = 150
"""Columns of a table that is not printed on a terminal."""
SHOWN = 0.1
"""Retention whose accuracy per family is printed; the lowest one where it was not measured."""


def accuracy(
    methods: Annotated[
        str,
        typer.Option(
            help="Methods or groups, separated by commas: default (method,baseline), stage, published, ablation, all."
        ),
    ] = "default",
    retention: Annotated[
        str, typer.Option(help="Retained fractions, separated by commas.")
    ] = "0.5,0.3,0.2,0.15,0.1,0.05",
    clips: Annotated[int, typer.Option("--slice", min=1, help="Clips, the first so many of the split.")] = 500,
    split: Annotated[Split, typer.Option(help="Scenes: choose settings on val, report test.")] = "test",
    out: Annotated[
        Path | None, typer.Option(show_default=False, help="Write a JSON line per method and retention.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(show_default=False, help="Draw accuracy against retention: .png, .pdf or .svg.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(show_default=False, help="Write the tables as Markdown.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")] = "cpu",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="Processes; one per core, at most 8 on an accelerator."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(show_default=False, help="Folder of another model of the benchmark.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(show_default=False, help="Folder for clips and answers; ~/.cache/codecmeta/accuracy.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The JSON lines on standard output, and nothing else.")
    ] = False,
) -> None:
    """Measure how much of the demo model's accuracy the methods keep at each retention.

    Clips are rendered, encoded and extracted into the cache on the first run. An interrupted run goes on where it
    stopped.

    Exit code: 0 all measured, 1 a method failed, 2 wrong usage.
    """
    from compress.errors import CompressError
    from compress.picture import require_matplotlib
    from compress.target import PICTURES, check_target

    measure, results = _import("measure"), _import("results")
    from compress.models.answer import check_device

    try:
        job = measure.Job(
            cache=cache or _import("clips").default_cache(),
            split=split,
            methods=_import("methods").choose(methods),
            retentions=_fractions(retention),
            weights=weights,
            device=device,
        )
        check_device(device)
        for option, path, endings in (("--out", out, ()), ("--plot", plot, PICTURES), ("--markdown", markdown, ())):
            if path is not None:
                check_target(option, path, endings=endings)
        if plot is not None:
            require_matplotlib()
        workers = jobs or measure.default_workers(device)
        with _Progress(clips) as progress:
            found = measure.measure(job, clips, workers=workers, progress=progress.show)
        rows = results.tabulate(job, found, measure.describe(job, found))
        _write(rows, out=out, plot=plot, markdown=markdown)
    except CompressError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or 'the cache'} cannot be used: {error.strerror or error}")
    except measure.MeasurementError as error:
        print(f"compress: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1) from error
    if as_json:
        for row in rows:
            print(row.to_json())  # noqa: T201
        return
    _print(rows)


def _import(name: str) -> Any:
    """Import a module of the benchmark, or refuse where transformers is missing."""
    try:
        return importlib.import_module(f"compress.accuracy.{name}")
    except ModuleNotFoundError as error:
        if error.name == "transformers":
            refuse(NEED_HF)
        raise


def _write(rows: Sequence[Any], *, out: Path | None, plot: Path | None, markdown: Path | None) -> None:
    if out is not None:
        out.write_text("".join(f"{row.to_json()}\n" for row in rows), encoding="ascii")
    if markdown is not None:
        markdown.write_text(_import("table").write_markdown(rows), encoding="utf-8")
    if plot is not None:
        _import("plot").draw(rows, plot)


def _print(rows: Sequence[Any]) -> None:
    from rich.console import Console

    table = _import("table")
    console = Console()
    console = console if console.is_terminal else Console(width=WIDE)
    about = rows[0].about
    full = rows[0].macro.accuracy.value
    console.print(
        f"{about['questions']} questions about {about['clips']} clips of the split {about['split']}; "
        f"the model with all its tokens answers {100 * full:.1f} % rightly",
        highlight=False,
    )
    console.print(table.overview(rows))
    retentions = {row.retention for row in rows if row.retention < 1}
    if retentions:
        console.print(table.families(rows, SHOWN if SHOWN in retentions else min(retentions)))
    console.print(table.NOTE, style="dim", highlight=False)


def _fractions(text: str) -> tuple[float, ...]:
    from compress.budget import check_retention
    from compress.errors import ConfigError

    try:
        shares = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"{text!r} are no retained fractions; write --retention 0.3,0.1") from error
    for share in shares:
        check_retention(share)
    return shares


class _Progress:
    """A bar on a terminal, a line now and then elsewhere; on standard error."""

    steps = 20

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._total = total
        self._console = Console(stderr=True, highlight=False)
        self._bar: Any = Progress(
            TextColumn("clips"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)
        self._told = 0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._console.print("interrupted; run the same command again to do what is left")

    def show(self, done: int) -> None:
        """So many clips are done."""
        self._bar.update(self._task, completed=done)
        if not self._console.is_terminal and done * self.steps // self._total > self._told:
            self._told = done * self.steps // self._total
            self._console.print(f"{done} of {self._total} clips")
