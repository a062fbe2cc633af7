"""The command `compress compare`: methods next to each other on a user's own videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codecmeta_cli.compress_options import Device, import_hf
from codecmeta_cli.compress_run import Density, Meta, Model, RandomWeights
from codecmeta_cli.console import ProgressBar, make_table, open_console, printable, refuse

if TYPE_CHECKING:
    from rich.console import Console

    from compress.comparison import Asked, Cell, VideoComparison


def compare(
    meta: Meta,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas, or all; see `compress methods`.")] = "all",
    retention: Annotated[str, typer.Option(help="Retained fractions, separated by commas.")] = "0.5,0.3,0.15,0.1,0.05",
    model: Model = None,
    random_weights: RandomWeights = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            show_default=False,
            help="The question; --model demo asks each of its clips the clip's own questions without one.",
        ),
    ] = None,
    density: Density = "auto",
    repeats: Annotated[int, typer.Option(min=1, help="Calls of a method, of which the median time counts.")] = 3,
    html: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            help="Write one self-contained page: table, curves, and pictures of the tokens that each method keeps.",
        ),
    ] = None,
    device: Device = "cpu",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON object per video, method and retention on standard output, and nothing else there."
        ),
    ] = False,
) -> None:
    """Compare methods on your own videos: tokens, time, operations, reconstruction and coverage of each.

    Without a model the tokens are those of an embedded, weight-free encoder, and methods that work inside a model are
    left out, with the reason. With --model and --prompt they are the model's, and how far the distribution of the first
    word of its answer moves is measured too.

    Exit code: 0 all done, 1 a method or a video failed, 2 wrong usage, 3 the page cannot be written.
    """
    from codecmeta_cli.signals import end_like_interrupted
    from compress.comparison import Job, choose_methods
    from compress.comparison import compare as compare_videos
    from compress.errors import ConfigError, OutputError
    from compress.records import find_metas
    from compress.settings import parse_retentions
    from compress.target import check_target

    end_like_interrupted()
    found: list[VideoComparison] = []
    try:
        names, omitted = choose_methods(methods, asked=model is not None or random_weights is not None)
        retentions = parse_retentions("--retention", retention)
        count = len(find_metas(meta))
        if html is not None:
            check_target("--html", html)
        asked = _open(model, random_weights, prompt, device)
        job = Job(methods=names, retentions=retentions, asked=asked, map=density, device=device, repeats=repeats)
        if as_json:
            _print_lines(omitted)
        with ProgressBar("comparing", total=count * len(names) * len(retentions), resumable=False) as progress:
            for video in compare_videos(meta, job, progress=progress.reach):
                found.append(video)
                if as_json:
                    _print_lines(video.cells)
                elif not progress.is_shown:
                    progress.say_plain(f"{video.video}: {_count(video)}")
    except OutputError as error:
        refuse("compress", error, code=3)
    except ConfigError as error:
        refuse("compress", error)
    if html is not None:
        _write_page(html, found, omitted, about=_describe(job, found))
    if not as_json:
        _print(open_console(), found, omitted)
    raise typer.Exit(int(any(cell.status == "failed" for video in found for cell in video.cells)))


def _open(model: str | None, random_weights: str | None, prompt: str | None, device: str) -> Asked | None:
    """Open the model, or return None for a comparison without one."""
    from compress.comparison import Asked
    from compress.errors import ConfigError

    if model is None and random_weights is None:
        if prompt is not None:
            raise ConfigError("--prompt is a question to a model; give --model too")
        return None
    opening = import_hf("compress.models.opening")
    if prompt is None and model != opening.DEMO:
        raise ConfigError("a model is compared by its answer to a question; give --prompt TEXT")
    if prompt is not None:
        import_hf("compress.models.answer").check_question(prompt)
    opened, tokenizer = opening.open_model(checkpoint=model, random_config=random_weights, device=device)
    return Asked(model=opened, tokenizer=tokenizer, name=model or random_weights or "", prompt=prompt)


def _print_lines(cells: Sequence[Cell]) -> None:
    for cell in cells:
        print(cell.to_json(), flush=True)  # noqa: T201


def _count(video: VideoComparison) -> str:
    failed = [cell for cell in video.cells if cell.status == "failed"]
    if video.pictures is None:
        return f"failed, {failed[0].message}"
    return f"{len(video.cells) - len(failed)} compared, {len(failed)} failed"


def _describe(job: Any, found: Sequence[VideoComparison]) -> str:
    count = len([video for video in found if video.pictures is not None])
    encoder = "the embedded encoder" if job.asked is None else f"the model {job.asked.name}"
    asked = "" if job.asked is None or job.asked.prompt is None else f", asked {job.asked.prompt!r}"
    return (
        f"{count} video{'s' * (count != 1)}, {len(job.methods)} methods, tokens of {encoder}{asked}. "
        "Figures are medians over the videos."
    )


def _write_page(path: Path, found: Sequence[VideoComparison], omitted: Sequence[Cell], *, about: str) -> None:
    from compress.comparison.page import render_comparison
    from compress.token_file import write_whole

    page = render_comparison(found, omitted, title="compress compare", about=about)
    try:
        write_whole(path, page.encode("utf-8"))
    except OSError as error:
        refuse("compress", f"{path}: {error.strerror or error}", code=3)


def _print(console: Console, found: Sequence[VideoComparison], omitted: Sequence[Cell]) -> None:
    from rich.markup import escape

    from compress.comparison.summary import reasons_to_omit, shown_columns, tabulate

    rows = tabulate(cell for video in found for cell in video.cells)
    columns = shown_columns(rows)
    table = make_table("method", numbers=("%", *(column.title.replace(" %", "") for column in columns)))
    previous = None
    for row in rows:
        if previous not in (None, row.method) and not table.rows[-1].end_section:
            table.add_section()
        name = f"[bold]{row.method}[/]" if row.method != previous else ""
        if row.failures:
            name += f" [red]failed on {len(row.failures)} of {len(row.failures) + row.videos}[/]"
        table.add_row(name, f"{100 * row.retention:g}", *(column.write(row.figures[column.key]) for column in columns))
        previous = row.method
    console.print(table)
    console.print(
        " · ".join(f"{column.title.replace(' %', '')}: {column.says}" for column in columns), style="dim",
        highlight=False,
    )  # fmt: skip
    console.print("medians over videos; errors, coverage and shares in per cent", style="dim", highlight=False)
    seen = dict.fromkeys(failure for row in rows for failure in row.failures)
    seen |= dict.fromkeys(f"{one.video}: {one.cells[0].message}" for one in found if one.pictures is None)
    for failure in seen:
        console.print(f"[red]{escape(printable(failure, longest=2000))}[/]", highlight=False, soft_wrap=True)
    for message, names in reasons_to_omit((video.cells for video in found), omitted).items():
        console.print(f"not compared: {', '.join(names)}: {message}", style="dim", highlight=False)
