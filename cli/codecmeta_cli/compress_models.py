"""The commands of `compress` that need a model: answering, `bench` and `eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from codecmeta import VideoMeta
    from compress.density import MapChoice
    from compress.models.answer import Answer
    from compress.profiling.measure import Measurement

WIDE = 170
"""Columns of a table that is not printed on a terminal."""

NEED_HF = "this needs transformers; run: pip install 'codecmeta[hf]'"
NEED_LMMS_EVAL = "this needs lmms-eval; run, best in an environment of its own: pip install 'codecmeta[eval]'"


def answer(
    meta: Path,
    *,
    model: str | None,
    random_weights: str | None,
    prompt: str | None,
    method: str,
    retention: float | None,
    settings: Mapping[str, str],
    map: MapChoice,
    device: str,
    new_tokens: int,
    as_json: bool,
) -> NoReturn:
    """Ask a model about every video under a folder and print its answers."""
    from compress.errors import ConfigError
    from compress.methods import build, retained_fraction
    from compress.picture import printable
    from compress.runner import find_metas

    if prompt is None:
        refuse("with a model there must be a question: --prompt TEXT")
    check_question(prompt)
    try:
        compressor = build(method, retention=retention, settings=settings)
        find_metas(meta)
        answers = _import_answering()
        opened, tokenizer = answers.open_model(checkpoint=model, random_config=random_weights, device=device)
        compressor = fit_layers(compressor, opened)
        question = answers.Question(
            text=prompt,
            model=opened,
            tokenizer=tokenizer,
            compressor=compressor,
            method=method,
            retention=retained_fraction(compressor),
            map=map,
            new_tokens=new_tokens,
        )
        failed = False
        for one in answers.answer_videos(meta, question):
            failed |= one.status == "failed"
            if as_json:
                print(one.to_json(), flush=True)  # noqa: T201
                continue
            name = printable(one.video, longest=200)
            if one.status == "failed":
                print(f"{name}: failed, {printable(one.message, longest=2000)}", file=sys.stderr)  # noqa: T201
                continue
            stages = ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in one.seconds.items())
            print(f"{name}: {printable(one.answer, longest=100_000)}")  # noqa: T201
            print(f"  {_account(one)}; seconds: {stages}")  # noqa: T201
            if one.message:
                print(f"  {printable(one.message, longest=2000)}")  # noqa: T201
    except ConfigError as error:
        refuse(str(error))
    raise typer.Exit(int(failed))


def _account(one: Answer) -> str:
    """What became of the tokens of a video, for people."""
    tokens = [one.tokens_in, one.tokens_out]
    if "tokens_inside" in one.merges:
        tokens.append(one.merges["tokens_inside"])
    account = [f"{' -> '.join(map(str, tokens))} tokens"]
    if one.budgets:
        account.append(f"{min(one.budgets)}-{max(one.budgets)} per frame")
    if "patches_in" in one.merges:
        account.append(f"{100 * one.merges['patches_encoded'] / one.merges['patches_in']:.1f} % of the patches")
    return ", ".join(account)


def bench(
    meta: Annotated[
        Path | None, typer.Option(show_default=False, help="A .npz with frames; without it a synthetic video is used.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(show_default=False, help="Checkpoint: name or folder, or demo, which comes with the package."),
    ] = None,
    random_weights: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG", show_default=False, help="Architecture with random weights: a name or config.json."
        ),
    ] = None,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "metom,infomerge",
    retentions: Annotated[str, typer.Option(help="Retained fractions, separated by commas.")] = "0.5,0.3,0.15,0.1,0.05",
    frames: Annotated[
        int | None, typer.Option(show_default="32", help="Frames of the synthetic video, not with --meta.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(show_default=False, help="The question; by default one that the model understands.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Measured rounds; cases take turns.")] = 5,
    new_tokens: Annotated[int, typer.Option(help="Further tokens by which decoding is timed.")] = 8,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")] = "cpu",
    out: Annotated[Path | None, typer.Option(show_default=False, help="Write the figures as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(show_default=False, help="Draw the stages: .png, .pdf or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure what compression saves on a model: stages, tokens, operations, memory; null case included."""
    import json

    from compress.errors import CompressError
    from compress.methods import build

    try:
        answers = _import_answering()
        from compress.models.inputs.prompt import prepare
        from compress.picture import require_matplotlib
        from compress.profiling.bench import describe, draw, synthetic_meta
        from compress.profiling.measure import TTFT_CONTAINS, Case, Null, measure_cases
        from compress.target import PICTURES, check_target

        if meta is not None and frames is not None:
            refuse("--frames is for the synthetic video; --meta brings its own frames")
        length = 32 if frames is None else frames
        for option, count, least in (("frames", length, 1), ("repeats", repeats, 1), ("new-tokens", new_tokens, 0)):
            if count < least:
                refuse(f"--{option} is {count}; it must be at least {least}")
        check_question(prompt)
        if out is not None:
            check_target("--out", out)
        if plot is not None:
            check_target("--plot", plot, endings=PICTURES)
            require_matplotlib()
        video = synthetic_meta(frames=length) if meta is None else _load_meta(meta)
        opened, tokenizer = answers.open_model(checkpoint=model, random_config=random_weights, device=device)
        cases = [Case(name="uncompressed", compressor=None), Case(name="null", compressor=Null())]
        shares = [_fraction(text) for text in retentions.split(",")]
        for method in methods.split(","):
            # once per method, since the layers do not depend on the retention
            layers = getattr(fit_layers(build(method.strip()), opened), "layers", None)
            settings = {} if layers is None else {"layers": ",".join(map(str, layers))}
            for share in shares:
                compressor = build(method.strip(), retention=share, settings=settings)
                cases.append(Case(name=f"{method.strip()} {share:g}", compressor=compressor, retention=share))
        inputs = prepare(opened, video, prompt or answers.sample_question(model), tokenizer=tokenizer)
        found = measure_cases(
            opened,
            inputs,
            video,
            cases,
            repeats=repeats,
            new_tokens=new_tokens,
            progress=lambda line, _: print(line, file=sys.stderr),  # noqa: T201
        )
    except CompressError as error:
        refuse(str(error))
    record = describe(found, model=model or random_weights or "", device=device)
    try:
        if out is not None:
            out.write_text(json.dumps(record, indent=1) + "\n")
        if plot is not None:
            draw(found, plot)
    except OSError as error:
        refuse(f"the figures cannot be written: {error}")
    if as_json:
        print(json.dumps(record))  # noqa: T201
        return
    _print_measurements(found, TTFT_CONTAINS)


def _load_meta(path: Path) -> VideoMeta:
    """The metadata in a file; anything else ends the command."""
    from codecmeta import load
    from codecmeta.errors import CodecMetaError

    try:
        return load(path)
    except CodecMetaError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{path} cannot be read: {error.strerror}")


def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint: name or folder.")],
    backbone: Annotated[
        str, typer.Option(help="Which of lmms-eval's names to run under: llava_onevision, llava_video, qwen2_vl.")
    ] = "llava_onevision",
    method: Annotated[str, typer.Option(help="How tokens are merged; see `compress methods`.")] = "metom",
    retention: Annotated[
        float | None,
        typer.Option(show_default="the method's own", help="Retained fraction of the tokens, in (0, 1]."),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Sampled frames per video.")] = 32,
    tasks: Annotated[
        str, typer.Option(help="Benchmarks, separated by commas.")
    ] = "videomme,mlvu,longvideobench,egoschema,nextqa,mvbench",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", show_default=False, help="Set a constant of the method."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute.")] = "cuda",
    out: Annotated[Path, typer.Option(help="Folder for the logs.")] = Path("logs"),
    limit: Annotated[int | None, typer.Option(min=1, show_default=False, help="Samples per benchmark.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the command.")] = False,
) -> None:
    """Evaluate a model with a method on video benchmarks: prints the command of lmms-eval and runs it.

    Exit code: that of lmms-eval, not 0 where a sample failed; 2 for wrong usage.
    """
    import importlib.util
    import shlex
    import subprocess

    from compress.errors import ConfigError
    from compress.integrations.lmms_eval import MODELS, TASKS
    from compress.methods import build
    from compress.settings import parse_assignments

    name = f"compress_{backbone}"
    wanted = [task.strip() for task in tasks.split(",")]
    unknown = [repr(task) for task in wanted if task not in TASKS]
    try:
        if not model or "," in model:
            raise ConfigError(f"--model is {model!r}; give a name or folder, without a comma: lmms-eval splits there")
        if name not in MODELS:
            known = ", ".join(model.removeprefix("compress_") for model in MODELS)
            raise ConfigError(f"there is no backbone {backbone!r} for lmms-eval; there are {known}")
        if unknown:
            raise ConfigError(f"there are no benchmarks {', '.join(unknown)}; there are {', '.join(TASKS)}")
        settings = parse_assignments(assignments or [])
        build(method, retention=retention, settings=settings)
    except ConfigError as error:
        refuse(str(error))
    fields = {"pretrained": model, "method": method}
    fields |= {} if retention is None else {"retention": str(retention)}
    fields |= {"frames": str(frames), "device": device}
    # lmms-eval splits its arguments at commas, so that lists are written with a plus.
    fields |= {field: value.replace(",", "+") for field, value in settings.items()}
    command = [sys.executable, "-m", "lmms_eval", "--model", name]
    command += ["--model_args", ",".join(f"{field}={value}" for field, value in fields.items())]
    command += ["--tasks", ",".join(TASKS[task] for task in wanted), "--batch_size", "1"]
    # At any other verbosity lmms-eval reports an exception and leaves with 0.
    command += ["--output_path", str(out), "--log_samples", "--verbosity", "DEBUG"]
    command += [] if limit is None else ["--limit", str(limit)]
    print(shlex.join(command), flush=True)  # noqa: T201
    if dry_run:
        return
    if importlib.util.find_spec("lmms_eval") is None:
        refuse(NEED_LMMS_EVAL)
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def fit_layers(compressor: Any, model: Any) -> Any:
    """The method with the decoder layers that it chooses by the depth of the model, which are named."""
    from compress.models import adapt

    if not hasattr(compressor, "at_depth") or compressor.layers is not None:
        return compressor
    adapter = adapt(model)
    depth = len(adapter.layers)
    fitted = compressor.at_depth(depth, first=adapter.first_merge_layer)
    print(f"attention is read at layers {fitted.layers} of {depth}", file=sys.stderr)  # noqa: T201
    return fitted


def check_question(prompt: str | None) -> None:
    """End the command where a question was given that asks nothing."""
    if prompt is not None and not prompt.strip():
        refuse(f"--prompt is {prompt!r}; write a question")


def refuse(message: str) -> NoReturn:
    """Wrong usage: say why on standard error and leave with 2."""
    print(f"compress: {message}", file=sys.stderr)  # noqa: T201
    raise typer.Exit(2)


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        refuse(f"{text!r} is no retained fraction; write --retentions 0.3,0.1")


def _import_answering() -> Any:
    try:
        from compress.models import answer as answers
    except ImportError as error:
        if error.name != "transformers":
            raise
        refuse(NEED_HF)
    return answers


def _print_measurements(found: Sequence[Measurement], note: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from compress.profiling.measure import OTHER, STAGES, TTFT

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", overflow="fold")
    shown = (*STAGES, OTHER, TTFT)
    for column in ("tokens", "inner", "patches", *(f"{stage} ms" for stage in shown), "ttft x", "prefill x"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("decode ms", "GMACs", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    plain = found[0].seconds
    for one in found:
        table.add_row(
            one.name,
            str(one.tokens_out),
            str(one.tokens_inner),
            f"{100 * one.patches:.0f} %",
            *(f"{1000 * one.seconds.get(stage, 0):.1f}" for stage in shown),
            f"{plain[TTFT] / one.seconds[TTFT]:.2f}",
            f"{plain['prefill'] / one.seconds['prefill']:.2f}",
            f"{1000 * one.decode:.1f}",
            f"{one.macs / 1e9:.1f}",
            f"{one.memory / 1e6:.0f}",
        )
    console = Console()
    console = console if console.is_terminal else Console(width=WIDE)
    console.print(table)
    console.print(note, style="dim", highlight=False)
