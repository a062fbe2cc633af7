"""The commands `compress bench` and `compress eval`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codecmeta_cli.compress_options import Assignments, Device, MethodName, Retention, import_hf
from codecmeta_cli.console import make_table, open_console, refuse

if TYPE_CHECKING:
    from compress.profiling.measure import Measurement

NEED_LMMS_EVAL = "this needs lmms-eval; run, best in an environment of its own: pip install 'codecmeta[eval]'"


def bench(
    meta: Annotated[
        Path | None,
        typer.Option(show_default=False, help="One .npz with frames; without it a synthetic video is used."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(show_default=False, help="Checkpoint: name or folder, or demo, which comes with the package."),
    ] = None,
    random_weights: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG",
            show_default=False,
            help="Architecture with random weights: config.json or a name, such as qwen2.5-vl-tiny; "
            "an unknown name lists all.",
        ),
    ] = None,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "metom,infomerge",
    retentions: Annotated[str, typer.Option(help="Retained fractions, separated by commas.")] = "0.5,0.3,0.15,0.1,0.05",
    assignments: Assignments = None,
    frames: Annotated[
        int | None, typer.Option(min=1, show_default="32", help="Frames of the synthetic video, not with --meta.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(show_default=False, help="The question; by default one that the model understands.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measured rounds, after one of warm-up; cases take turns.")] = 5,
    new_tokens: Annotated[int, typer.Option(min=0, help="Further tokens by which decoding is timed.")] = 8,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option(show_default=False, help="Write the figures as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(show_default=False, help="Draw the stages: .png, .pdf or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Measure what compression saves on a model: stages, tokens, operations, memory; null case included."""
    import json

    from codecmeta import CodecMetaError, load

    answers, opening = import_hf("compress.models.answer"), import_hf("compress.models.opening")
    from compress.errors import CompressError, OutputError
    from compress.models.inputs.prompt import prepare
    from compress.picture import require_matplotlib
    from compress.profiling.bench import describe, draw, plan_cases, synthetic_meta
    from compress.profiling.measure import TTFT_CONTAINS, measure_cases
    from compress.settings import parse_assignments, parse_retentions
    from compress.target import PICTURES, check_target
    from compress.token_file import write_whole

    try:
        if meta is not None and frames is not None:
            refuse("compress", "--frames is for the synthetic video; --meta brings its own frames")
        if meta is not None and meta.is_dir():
            refuse("compress", f"--meta is {str(meta)!r}, a folder; give one .npz of it")
        settings = parse_assignments(assignments or [])
        names = [name.strip() for name in methods.split(",")]
        cases = plan_cases(names, parse_retentions("--retentions", retentions), settings=settings)
        if prompt is not None:
            answers.check_question(prompt)
        if out is not None:
            check_target("--out", out)
        if plot is not None:
            check_target("--plot", plot, endings=PICTURES)
            require_matplotlib()
        video = synthetic_meta(frames=frames or 32) if meta is None else load(meta)
        opened, tokenizer = opening.open_model(checkpoint=model, random_config=random_weights, device=device)
        found = measure_cases(
            opened,
            prepare(opened, video, prompt or opening.sample_question(model), tokenizer=tokenizer),
            video,
            cases,
            repeats=repeats,
            new_tokens=new_tokens,
            progress=lambda line, _: typer.echo(line, err=True),
        )
    except OutputError as error:
        refuse("compress", error, code=3)
    except (CompressError, CodecMetaError) as error:
        refuse("compress", error)
    except OSError as error:
        refuse("compress", f"{error.filename or meta}: {error.strerror or error}")
    record = describe(found, model=model or random_weights or "", device=device) | {"settings": settings}
    try:
        if out is not None:
            write_whole(out, (json.dumps(record, indent=1) + "\n").encode())
        if plot is not None:
            draw(found, plot)
    except OSError as error:
        refuse("compress", f"the figures cannot be written: {error}", code=3)
    if as_json:
        typer.echo(json.dumps(record))
        return
    _print_measurements(found, TTFT_CONTAINS)


def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint: name or folder.")],
    backbone: Annotated[
        str, typer.Option(help="Which of lmms-eval's names to run under: llava_onevision, llava_video, qwen2_vl.")
    ] = "llava_onevision",
    method: MethodName = "metom",
    retention: Retention = None,
    frames: Annotated[int, typer.Option(min=1, help="Sampled frames per video.")] = 32,
    tasks: Annotated[
        str, typer.Option(help="Benchmarks, separated by commas.")
    ] = "videomme,mlvu,longvideobench,egoschema,nextqa,mvbench",
    assignments: Assignments = None,
    device: Device = "cuda",
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
    from compress.integrations.lmms_eval import write_command
    from compress.settings import parse_assignments

    try:
        command = write_command(
            model=model,
            backbone=backbone,
            method=method,
            retention=retention,
            settings=parse_assignments(assignments or []),
            frames=frames,
            tasks=[task.strip() for task in tasks.split(",")],
            device=device,
            out=str(out),
            limit=limit,
        )
    except ConfigError as error:
        refuse("compress", error)
    typer.echo(shlex.join(command))
    sys.stdout.flush()
    if dry_run:
        return
    if importlib.util.find_spec("lmms_eval") is None:
        refuse("compress", NEED_LMMS_EVAL)
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def _print_measurements(found: Sequence[Measurement], note: str) -> None:
    from compress.profiling.measure import OTHER, STAGES, TTFT

    shown = (*STAGES, OTHER, TTFT)
    table = make_table(
        "case",
        numbers=(
            *("tokens", "inner", "patches", *(f"{stage} ms" for stage in shown)),
            *("ttft x", "prefill x", "decode ms", "GMACs", "MB"),
        ),
    )
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
    console = open_console()
    console.print(table)
    console.print(note, style="dim", highlight=False)
    if layers := sorted({one.merge_layer for one in found if one.merge_layer is not None}):
        places = ", ".join(map(str, layers))
        console.print(f"inner: tokens after the merge inside the model, before decoder layer {places}", style="dim")
