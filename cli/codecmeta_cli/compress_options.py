"""Options that several commands of `compress` take, and what these commands import."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

from codecmeta_cli.console import refuse

MethodName = Annotated[str, typer.Option(help="How tokens are merged; see `compress methods`.")]
Retention = Annotated[
    float | None,
    typer.Option(
        show_default="the method's own",
        help="Retained fraction of the tokens, in (0, 1]: metom 0.3, infomerge 0.1, see `compress methods NAME`.",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        show_default=False,
        help="Set a constant of the method, for example tau_tem=0.85; may be repeated. "
        "`compress methods NAME` lists them.",
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")]


def import_hf(module: str) -> Any:
    """Import a module that needs transformers, or refuse where that is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        refuse("compress", "this needs transformers; run: pip install 'codecmeta[hf]'")
