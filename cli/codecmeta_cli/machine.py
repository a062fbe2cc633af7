"""Machine commands: what is installed, and compiling kernels in advance."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from codecmeta_cli.console import refuse


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per fact on standard output.")] = False,
) -> None:
    """Show what is installed and compiled here, and the consequence of each missing piece.

    Exit code: 0, or 1 where something is missing that a plain extraction needs.
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from codecmeta.batch.doctor import examine

    facts = list(examine())
    if as_json:
        for fact in facts:
            typer.echo(json.dumps(asdict(fact)))
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        styles = {"ok": "green", "missing": "red", "absent": "yellow"}
        group = ""
        for fact in facts:
            table.add_row(
                Text(fact.group if fact.group != group else "", style="bold"),
                fact.name,
                Text(fact.state, style=styles[fact.state]),
                Text(f"{fact.value}{f': {fact.cost}' if fact.cost else ''}"),
            )
            group = fact.group
        Console(highlight=False).print(table)
    if any(fact.state == "missing" for fact in facts):
        raise typer.Exit(1)


def warmup(
    cpu: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Compile for all processors of a level: x86-64, x86-64-v2, x86-64-v3, x86-64-v4; or for this one.",
        ),
    ] = "native",
    cache: Annotated[
        str | None,
        typer.Option(metavar="DIR", show_default="numba's own", help="Folder of the machine code, for any machine."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, show_default="all cores", help="Processes that compile.")] = None,
) -> None:
    """Compile all kernels before the first video.

    Prints the environment in which they are found as shell lines: eval "$(codecmeta warmup ...)". Exit code: 0 all
    compiled, 1 some could not be, 2 wrong usage.
    """
    from codecmeta.errors import UsageError
    from codecmeta_cli.signals import end_like_interrupted

    end_like_interrupted()
    environment = {} if cache is None else {"NUMBA_CACHE_DIR": os.path.abspath(cache)}  # noqa: PTH100
    try:
        from codecmeta.batch.cpu_levels import choose_cpu

        environment |= choose_cpu(cpu)
    except UsageError as error:
        refuse("codecmeta", error)
    if cache is not None:
        _check_writable(cache)
    # numba reads it when it is imported, here and in the workers
    os.environ.update(environment)
    from codecmeta.batch.engines import usable_cores
    from codecmeta.batch.warmup import compile_kernels

    problems = 0
    for warmed in compile_kernels(processes=jobs or usable_cores(), remark=lambda text: None):
        problems += bool(warmed.problem)
        text = f"not compiled: {warmed.problem}" if warmed.problem else f"{warmed.seconds:.1f} s"
        typer.echo(f"{warmed.name}: {text}", err=True)
    for name, value in environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    if problems:
        raise typer.Exit(1)


def _check_writable(folder: str) -> None:
    """Refuse a folder into which nothing can be compiled, before minutes go into it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        refuse("codecmeta", f"--cache {folder}: {error.strerror or error}; give a folder that can be written")
