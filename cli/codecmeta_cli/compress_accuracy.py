"""The command `compress accuracy`: how much of a model's accuracy each method keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from codecmeta_cli.compress_options import Device, import_hf
from codecmeta_cli.console import ProgressBar, open_console, refuse

Split = Literal["val", "test", "stress", "gops"]

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
    device: Device = "cpu",
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

    Exit code: 0 all measured, 1 a method failed, 2 wrong usage, 3 the figures cannot be written.
    """
    from compress.errors import CompressError, OutputError
    from compress.picture import require_matplotlib
    from compress.settings import parse_retentions
    from compress.target import PICTURES, check_target

    measure, results = _import("measure"), _import("results")
    from compress.video import check_device

    try:
        job = measure.Job(
            cache=cache or _import("clips").default_cache(),
            split=split,
            methods=_import("methods").choose(methods),
            retentions=parse_retentions("--retention", retention),
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
        with ProgressBar("clips", total=clips) as progress:
            found = measure.measure(job, clips, workers=workers, progress=progress.reach)
        rows = results.tabulate(job, found, measure.describe(job, found))
    except OutputError as error:
        refuse("compress", error, code=3)
    except CompressError as error:
        refuse("compress", error)
    except OSError as error:
        refuse("compress", f"{error.filename or 'the cache'} cannot be used: {error.strerror or error}")
    except measure.MeasurementError as error:
        refuse("compress", error, code=1)
    try:
        _write(rows, out=out, plot=plot, markdown=markdown)
    except OSError as error:
        refuse("compress", f"the figures cannot be written: {error.strerror or error}", code=3)
    if as_json:
        for row in rows:
            print(row.to_json())  # noqa: T201
        return
    _print(rows)


def _import(name: str) -> Any:
    """Import a module of the benchmark."""
    return import_hf(f"compress.accuracy.{name}")


def _write(rows: Sequence[Any], *, out: Path | None, plot: Path | None, markdown: Path | None) -> None:
    from compress.token_file import write_whole

    if out is not None:
        write_whole(out, "".join(f"{row.to_json()}\n" for row in rows).encode("ascii"))
    if markdown is not None:
        write_whole(markdown, _import("table").write_markdown(rows).encode("utf-8"))
    if plot is not None:
        _import("plot").draw(rows, plot)


def _print(rows: Sequence[Any]) -> None:
    table = _import("table")
    console = open_console()
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
