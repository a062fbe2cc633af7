"""The commands of `compress` that work on many videos: `run` writes tokens, `ask` prints answers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from codecmeta_cli.compress_options import Assignments, Device, MethodName, Retention, import_hf
from codecmeta_cli.console import ProgressBar, open_console, printable, refuse
from codecmeta_cli.run_options import EngineName, Timeout

Map = Literal[
    "auto", "none", "innovation", "carried", "texture", "bits", "texture-coded", "texture-innovation", "texture-bits"
]
Density = Annotated[
    Map,
    typer.Option(
        "--map",
        help="By what the density of patches is measured (docs/methods.md). auto takes the map that was chosen on "
        "validation clips, or what the record has; with none nothing merges before the encoder.",
    ),
]
Meta = Annotated[Path, typer.Option(help="Folder of records from `codecmeta extract`, packed or not, or one of them.")]
Model = Annotated[
    str | None,
    typer.Option(
        show_default=False,
        help="Hugging Face checkpoint, name or folder; demo is a small one that comes along.",
    ),
]
RandomWeights = Annotated[
    str | None,
    typer.Option(
        metavar="CONFIG",
        show_default=False,
        help="Instead of --model: an architecture with random weights, config.json or a name, such as qwen2.5-vl-tiny; "
        "an unknown name lists all.",
    ),
]


def run(
    meta: Meta,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Output folder; it mirrors the input folder.")] = "tokens",
    method: MethodName = "metom",
    retention: Retention = None,
    assignments: Assignments = None,
    density: Density = "auto",
    model: Model = None,
    random_weights: RandomWeights = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw kept and merged tokens of each video as PNG.")] = False,
    embeddings: Annotated[
        bool,
        typer.Option(
            "--embeddings",
            help="Also write NAME.npy, what a server that takes embeddings is given in place of the video (with "
            "--model, --set positions=contiguous).",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            help="Write one self-contained page over all videos, with pictures as --plot draws them.",
        ),
    ] = None,
    device: Device = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do everything again.")] = False,
    engine: EngineName = "local",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="0, with Ray all",
            help="Workers, each of which loads the model; 0 works in this process. With --engine ray and a device "
            "cuda, a worker has a GPU.",
        ),
    ] = None,
    timeout: Timeout = 900.0,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object per video on standard output, and nothing else there."),
    ] = False,
    prompt: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Shorten the tokens of every video under a folder.

    The tokens are those of an embedded, weight-free encoder, or with --model those that its language model would be
    given. Per video it writes NAME.safetensors (tokens, plan, positions) and NAME.json (report). Running the same
    command again does only what is missing or stale. `compress ask` answers questions. With --jobs or --engine ray,
    several workers share the videos.

    Exit code: 0 all done, 1 some videos failed, 2 wrong usage, 3 the output cannot be written.
    """
    from codecmeta_cli.compress_tables import print_reports
    from codecmeta_cli.signals import end_like_interrupted
    from compress.errors import ConfigError, OutputError
    from compress.methods import build, retained_fraction
    from compress.records import find_metas
    from compress.report import render_page
    from compress.runner import Job
    from compress.settings import parse_assignments
    from compress.target import check_target
    from compress.token_file import write_whole
    from compress.video import EmbeddedShortener

    end_like_interrupted()
    if prompt is not None:
        refuse("compress", "run writes tokens and answers no question; ask it by: compress ask --prompt TEXT")
    reports = []
    try:
        if model is None and random_weights is None:
            if embeddings:
                raise ConfigError("--embeddings are those of a model; give one with --model")
            shortener = EmbeddedShortener(device=device)
        else:
            shortener = import_hf("compress.models.shortener").ModelShortener(
                checkpoint=model, random_config=random_weights, device=device, embeddings=embeddings
            )
        chosen = build(method, retention=retention, settings=parse_assignments(assignments or []))
        job = Job(
            method=chosen,
            name=method,
            retention=retained_fraction(chosen),
            shortener=shortener,
            map=density,
            plot=plot or (html is not None and find_spec("matplotlib") is not None),
            overwrite=overwrite,
            elsewhere=engine == "ray",
        )
        count = len(find_metas(meta))
        if html is not None:
            check_target("--html", html)
        with ProgressBar("compressing", total=count) as progress:
            for report in _start_run(meta, out, job, engine=engine, jobs=jobs, timeout=timeout, device=device):
                reports.append(report)
                progress.advance(failed=report.status == "failed")
                if as_json:
                    print(report.to_json(), flush=True)  # noqa: T201
                elif not progress.is_shown:
                    result = f"{report.tokens_in} -> {report.tokens_out} tokens" if report.frames else report.message
                    progress.say_plain(f"{report.video}: {report.status}, {result}")
    except OutputError as error:
        refuse("compress", error, code=3)
    except ConfigError as error:
        refuse("compress", error)
    if html is not None:
        page = render_page(reports, title=f"compress run: {method}, retention {job.retention:g}")
        try:
            write_whole(html, page.encode("utf-8"))
        except OSError as error:
            refuse("compress", f"{html}: {error.strerror or error}", code=3)
    if not as_json:
        print_reports(open_console(), reports)
    raise typer.Exit(int(any(report.status == "failed" for report in reports)))


def _start_run(
    meta: Path, out: str, job: Any, *, engine: EngineName, jobs: int | None, timeout: float, device: str
) -> Iterator[Any]:
    """Start a run in this process, or on an engine."""
    if engine == "local" and not jobs:
        from compress.runner import run as run_job

        return run_job(meta, out, job)
    from codecmeta.batch.engines import choose_engine, usable_cores
    from codecmeta.errors import UsageError
    from compress.errors import ConfigError
    from compress.parallel_run import run_parallel

    on_gpu = device.startswith("cuda")
    try:
        chosen = choose_engine(
            engine,
            jobs=jobs,
            timeout=timeout or None,
            memory=None if engine == "ray" else 0,
            modules=("compress.parallel_run",),
            gpus=int(engine == "ray" and on_gpu),
        )
    except UsageError as error:
        raise ConfigError(str(error)) from error
    # on Ray a task has one core
    threads = 1 if engine == "ray" else max(usable_cores() // (jobs or 1), 1)
    return run_parallel(meta, out, job, chosen, threads=None if on_gpu else threads)


def ask(
    meta: Meta,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The question.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VIDEO...]",
            show_default=False,
            help="Videos, as `codecmeta extract` takes them, whose records are written to --meta meanwhile; "
            "without them, the records that are there.",
        ),
    ] = None,
    model: Model = None,
    random_weights: RandomWeights = None,
    method: MethodName = "metom",
    retention: Retention = None,
    assignments: Assignments = None,
    density: Density = "auto",
    device: Device = "cpu",
    new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object per video on standard output, and nothing else there."),
    ] = False,
) -> None:
    """Ask a model about every video under a folder, over shortened tokens, and print its answers.

    Given videos, a worker process extracts what is missing of their records, with the defaults of `codecmeta extract`,
    while the model answers about those that are there.

    Exit code: 0 all answered, 1 some videos failed, 2 wrong usage, 3 their records cannot be written.
    """
    from codecmeta_cli.signals import end_like_interrupted
    from compress.errors import ConfigError, OutputError
    from compress.methods import build, retained_fraction
    from compress.records import find_metas
    from compress.settings import parse_assignments

    end_like_interrupted()
    failed = False
    try:
        compressor = build(method, retention=retention, settings=parse_assignments(assignments or []))
        count = None if sources else len(find_metas(meta))
        answers = import_hf("compress.models.answer")
        answers.check_question(prompt)
        opened, tokenizer = import_hf("compress.models.opening").open_model(
            checkpoint=model, random_config=random_weights, device=device
        )
        question = answers.Question(
            text=prompt,
            model=opened,
            tokenizer=tokenizer,
            compressor=compressor,
            method=method,
            retention=retained_fraction(compressor),
            map=density,
            new_tokens=new_tokens,
        )
        with ProgressBar("asking", total=count, resumable=False) as progress:
            for answer in answers.answer_videos(meta, question, sources=sources or ()):
                progress.advance(failed=answer.status == "failed")
                failed |= answer.status == "failed"
                if as_json:
                    print(answer.to_json(), flush=True)  # noqa: T201
                else:
                    _print_answer(answer, progress)
    except OutputError as error:
        refuse("compress", error, code=3)
    except ConfigError as error:
        refuse("compress", error)
    raise typer.Exit(int(failed))


def _print_answer(answer: Any, progress: ProgressBar) -> None:
    name = printable(answer.video, longest=200)
    if answer.status == "failed":
        progress.say_plain(f"{name}: failed, {answer.message}")
        return
    stages = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in answer.seconds.items())
    typer.echo(f"{name}: {printable(answer.answer, longest=100_000)}")
    typer.echo(f"  {_account(answer)}; seconds: {stages}")
    if answer.message:
        typer.echo(f"  {printable(answer.message, longest=2000)}")


def _account(answer: Any) -> str:
    """How many tokens and patches stayed where."""
    tokens = [answer.tokens_in, answer.tokens_out]
    if "tokens_inside" in answer.merges:
        tokens.append(answer.merges["tokens_inside"])
    account = [f"{' -> '.join(map(str, tokens))} tokens"]
    if "tokens_read" in answer.merges:
        account.append(f"{answer.merges['tokens_read']} of them read by the last step")
    if answer.budgets:
        account.append(f"{min(answer.budgets)}-{max(answer.budgets)} per frame")
    if "patches_in" in answer.merges:
        account.append(f"{100 * answer.merges['patches_encoded'] / answer.merges['patches_in']:.1f} % of the patches")
    if "attention" in answer.sources:
        account.append(f"attention of {answer.sources['attention']}")
    if "prior" in answer.sources:
        account.append(f"prior of position {answer.sources['prior']}")
    return ", ".join(account)
