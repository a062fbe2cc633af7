"""The end of a command that cannot do what it was asked for."""

from __future__ import annotations

from typing import NoReturn

import typer


def refuse(code: int, message: str) -> NoReturn:
    """Say why on standard error, in one line, and leave with an exit code."""
    from codecmeta_cli.progress import printable

    # a file may have put control characters into it
    typer.echo(f"codecmeta: {printable(message)}", err=True)
    raise typer.Exit(code)
