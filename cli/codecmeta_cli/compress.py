"""The command line `compress`: shorten the visual tokens of videos, list the methods, count operations."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from codecmeta_cli import compress_accuracy, compress_models
from codecmeta_cli.compress_tables import RunProgress, make_table, open_console, print_reports
from codecmeta_cli.output import guard_output

if TYPE_CHECKING:
    from compress.runner import VideoReport

Map = Literal[
    "auto", "none", "innovation", "carried", "texture", "bits", "texture-coded", "texture-innovation", "texture-bits"
]

app = typer.Typer(
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


app.command()(compress_models.bench)
app.command("eval")(compress_models.evaluate)
app.command()(compress_accuracy.accuracy)


@app.command()
def run(
    meta: Annotated[Path, typer.Option(help="Folder of .npz files from `codecmeta extract`, or one of them.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", show_default="tokens", help="Output folder; it mirrors the input folder."),
    ] = None,
    method: Annotated[str, typer.Option(help="How tokens are merged; see `compress methods`.")] = "metom",
    retention: Annotated[
        float | None,
        typer.Option(
            show_default="the method's own",
            help="Retained fraction of the tokens, in (0, 1]: metom 0.3, infomerge 0.1, see `compress methods NAME`.",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            show_default=False,
            help="Set a constant of the method, for example tau_tem=0.85; may be repeated. "
            "`compress methods NAME` lists them.",
        ),
    ] = None,
    density: Annotated[
        Map,
        typer.Option(
            "--map",
            help="By what the density of patches is measured (docs/methods.md). auto takes the map that was chosen on "
            "validation clips, or what the record has; with none nothing merges before the encoder.",
        ),
    ] = "auto",
    plot: Annotated[bool, typer.Option("--plot", help="Draw kept and merged tokens of each video as PNG.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            help="Write one self-contained page over all videos, with pictures as --plot draws them.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do everything again.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="Ask this Hugging Face checkpoint (name or folder) instead; demo is a small one that comes along.",
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(show_default=False, help="What to ask the model.")] = None,
    random_weights: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", show_default=False, help="As --model, but an architecture with random weights."),
    ] = None,
    new_tokens: Annotated[
        int | None, typer.Option(min=1, show_default="128", help="Longest answer of the model, in tokens.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object per video on standard output, and nothing else there."),
    ] = False,
) -> None:
    """Shorten the tokens of every video under a folder.

    Per video it writes NAME.safetensors (tokens, plan, positions) and NAME.json (report). Running the same
    command again does only what is missing or stale. With a model it prints answers and writes nothing.

    Exit code: 0 all done, 1 some videos failed, 2 wrong usage, 3 the output cannot be written.
    """
    from codecmeta_cli.signals import end_like_interrupted
    from compress.errors import ConfigError, OutputError
    from compress.methods import build, retained_fraction
    from compress.report import render_page
    from compress.runner import Job, find_metas
    from compress.runner import run as run_job
    from compress.settings import parse_assignments
    from compress.target import check_target
    from compress.token_file import write_whole

    end_like_interrupted()
    try:
        if model is not None or random_weights is not None or prompt is not None:
            files = {"--out": out is not None, "--plot": plot, "--html": html is not None, "--overwrite": overwrite}
            if idle := [option for option, given in files.items() if given]:
                raise ConfigError(f"a model prints its answers and writes no files; leave out {', '.join(idle)}")
            compress_models.answer(
                meta,
                model=model,
                random_weights=random_weights,
                prompt=prompt,
                method=method,
                retention=retention,
                settings=parse_assignments(assignments or []),
                map=density,
                device=device,
                new_tokens=128 if new_tokens is None else new_tokens,
                as_json=as_json,
            )
        if new_tokens is not None:
            raise ConfigError("--new-tokens is for answers; give --model or --random-weights, and --prompt")
        chosen = build(method, retention=retention, settings=parse_assignments(assignments or []))
        job = Job(
            method=chosen,
            name=method,
            retention=retained_fraction(chosen),
            map=density,
            device=device,
            plot=plot or (html is not None and find_spec("matplotlib") is not None),
            overwrite=overwrite,
        )
        count = len(find_metas(meta))
        if html is not None:
            check_target("--html", html)
    except ConfigError as error:
        _refuse(error)
    reports: list[VideoReport] = []
    try:
        with RunProgress(count, hidden=as_json) as progress:
            for report in run_job(meta, "tokens" if out is None else out, job):
                reports.append(report)
                progress.advance(report)
                if as_json:
                    print(report.to_json(), flush=True)  # noqa: T201
    except OutputError as error:
        _refuse(error, code=3)
    except ConfigError as error:
        _refuse(error)
    if html is not None:
        page = render_page(reports, title=f"compress run: {method}, retention {job.retention:g}")
        try:
            write_whole(html, page.encode("utf-8"))
        except OSError as error:
            _refuse(ConfigError(f"{html}: {error.strerror or error}"), code=3)
    if not as_json:
        print_reports(open_console(), reports)
    raise typer.Exit(int(any(report.status == "failed" for report in reports)))


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
        _refuse(error)
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
    console.print("compress run takes methods with the stage before_llm.", style="dim", highlight=False)


@app.command()
def flops(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per row.")] = False,
) -> None:
    """Print the papers' FLOPs tables beside ours."""
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


def _refuse(error: Exception, *, code: int = 2) -> NoReturn:
    """Say why on standard error and leave, with 2 for wrong usage."""
    print(f"compress: {error}", file=sys.stderr)  # noqa: T201
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the script `compress`."""
    try:
        with guard_output("compress"):
            app()
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        sys.exit(f"compress: this needs {error.name}: pip install 'codecmeta[compress]'")
