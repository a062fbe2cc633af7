"""The command line `compress`: shorten the visual tokens of videos, list the methods, count operations."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from codecmeta_cli import compress_accuracy, compress_bench, compress_compare, compress_run, compress_serve
from codecmeta_cli.command_group import CommandGroup
from codecmeta_cli.console import make_table, open_console, refuse
from codecmeta_cli.output import guard_output

app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Shorten the visual tokens of Video-LLMs with what the video codec already knows, without training.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        from codecmeta import __version__

        typer.echo(f"compress {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Shorten the visual tokens of Video-LLMs with what the video codec already knows, without training."""


app.command()(compress_run.run)
app.command()(compress_run.ask)
app.command()(compress_compare.compare)


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(show_default=False, help="A method: its constants, with what --set takes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per method.")] = False,
) -> None:
    """List the methods: stages, signals, exactness, source, licence, what they combine with; or the fields of one."""
    import json

    from compress.errors import ConfigError
    from compress.methods import METHODS, build, find
    from compress.settings import list_settings

    try:
        entries = [find(name)] if name is not None else list(METHODS.values())
    except ConfigError as error:
        refuse("compress", error)
    if as_json:
        for entry in entries:
            described = {
                "name": entry.name,
                "summary": entry.summary,
                "stages": entry.stages,
                "signals": entry.signals,
                "source": entry.source,
                "budget": entry.budget,
                "query_agnostic": entry.query_agnostic,
                "licence": entry.licence,
                "combines": entry.combines,
                "fields": {setting.name: setting.value for setting in list_settings(build(entry.name))},
            }
            print(json.dumps(described))  # noqa: T201
        return
    console = open_console()
    if name is not None:
        (entry,) = entries
        console.print(
            f"[bold]{entry.name}[/]  {entry.summary}\n[dim]{entry.source} · budget: {entry.budget} · "
            f"{'never looks at the question' if entry.query_agnostic else 'depends on the question'} · "
            f"combines with: {entry.combines} · licence of the original code: {entry.licence}[/]",
            highlight=False,
        )
        table = make_table("--set", "takes", "default")
        for setting in list_settings(build(entry.name)):
            table.add_row(setting.name, setting.kind, setting.value)
        console.print(table)
        return
    table = make_table(
        "method", "what it does", "stages", "signals", "budget", "question", "combines with", "source", "licence"
    )
    for entry in entries:
        table.add_row(
            f"[bold]{entry.name}[/]",
            entry.summary,
            "\n".join(entry.stages),
            "\n".join(entry.signals),
            entry.budget,
            "not read" if entry.query_agnostic else "read",
            entry.combines,
            entry.source,
            entry.licence,
        )
    console.print(table)
    console.print(
        "compress run takes methods with the stage before_llm, with --model also those with before_encoder; compress "
        "ask takes all.",
        style="dim",
        highlight=False,
    )


@app.command()
def flops(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per row.")] = False,
) -> None:
    """Print the papers' FLOPs tables next to ours."""
    import json

    from compress.flops import paper_rows, tera

    rows = paper_rows()
    if as_json:
        for row in rows:
            print(  # noqa: T201
                json.dumps(
                    {
                        "paper": row.paper,
                        "host": row.host,
                        "method": row.method,
                        "tokens": float(row.tokens),
                        "tflops": float(row.computed / 10**12),
                        "share": float(row.share),
                        "printed_tflops": row.printed,
                        "printed_share": row.printed_share,
                        "agrees": row.agrees,
                        "agrees_rounded": row.agrees_rounded,
                    }
                )
            )
        return
    table = make_table("paper", "model", "method", numbers=("tokens", "ours T", "paper T", "ours %", "paper %", ""))
    for row in rows:
        decimals = len(row.printed.partition(".")[2])
        table.add_row(
            row.paper,
            row.host,
            row.method,
            f"{float(row.tokens):g}",
            tera(row.computed, decimals=decimals),
            row.printed,
            f"{float(row.share):.1f}",
            row.printed_share or "",
            "[green]=[/]" if row.agrees else "[yellow]≈[/]" if row.agrees_rounded else "[red]differs[/]",
        )
    console = open_console()
    console.print(table)
    console.print(
        "T: 10¹² multiply-accumulates of the prefill over visual tokens (InfoMerge, eqs. 13-17), Qwen2-7B.\n"
        "≈: the paper's share is the quotient of its own rounded T.",
        style="dim",
    )


app.command()(compress_bench.bench)
app.command("eval")(compress_bench.evaluate)
app.command()(compress_accuracy.accuracy)
app.command()(compress_serve.serve_args)
app.command()(compress_serve.serve)


def main() -> None:
    """Entry point of the script `compress`."""
    try:
        with guard_output("compress"):
            app()
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        sys.stderr.write(f"compress: this needs {error.name}: pip install 'codecmeta[compress]'\n")
        sys.exit(2)
