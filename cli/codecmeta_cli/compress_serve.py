"""The commands of `compress` for servers: `serve-args` prints the command line of vLLM, `serve` runs and checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from codecmeta_cli.compress_options import Assignments, MethodName, import_hf
from codecmeta_cli.compress_run import Density
from codecmeta_cli.console import printable, refuse

if TYPE_CHECKING:
    from compress.serving.vllm.command import ServeCommand

Checkpoint = Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face checkpoint, name or folder.")]
More = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- OPTIONS",
        show_default=False,
        help="Further options of `vllm serve`, after two dashes: -- --port 8001 --max-model-len 16384.",
    ),
]
Share = Annotated[
    float | None,
    typer.Option(
        "--retention",
        show_default="the method's own",
        help="Retained fraction of the tokens, in (0, 1): infomerge 0.1, see `compress methods NAME`.",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(show_default="the model's own", help="Frames that are taken of each second of a video."),
]
PatchMerging = Annotated[
    list[str] | None,
    typer.Option(
        "--rpm",
        metavar="FIELD=VALUE",
        show_default=False,
        help="Merge patches before the vision encoder too (RPM, Qwen2-VL only), by a constant of it, for example "
        "target_keep=0.6; may be repeated. `compress methods rpm` lists them.",
    ),
]
MostFrames = Annotated[
    int | None, typer.Option("--max-frames", show_default="the model's own", help="Most frames of a video.")
]


def serve_args(
    model: Checkpoint,
    more: More = None,
    method: MethodName = "infomerge",
    retention: Share = None,
    assignments: Assignments = None,
    rpm: PatchMerging = None,
    density: Density = "auto",
    fps: Fps = None,
    max_frames: MostFrames = None,
) -> None:
    """Print the command line by which vLLM serves a model with shortened videos.

    On standard error it says how results differ from those of `attach` in transformers, and what is not supported for
    the model's family. Methods whose number of tokens is not known beforehand, or that work inside the language model,
    are refused.

    Exit code: 0 printed, 2 wrong usage.
    """
    command = _write(model, more, method, retention, assignments, rpm, density, fps, max_frames)
    _say_limits(command)
    print(command)  # noqa: T201


def serve(
    model: Checkpoint,
    more: More = None,
    method: MethodName = "infomerge",
    retention: Share = None,
    assignments: Assignments = None,
    rpm: PatchMerging = None,
    density: Density = "auto",
    fps: Fps = None,
    max_frames: MostFrames = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds within which the server must become ready.")] = 1800.0,
) -> None:
    """Serve a model with shortened videos by vLLM, in the foreground.

    Once the server is ready, a short video is sent and its tokens are counted; a server that does not shorten them is
    stopped. Signals are passed on to the server.

    Exit code: that of the server; 1 not compressed, not ready, or ended before; 2 wrong usage.
    """
    from compress.errors import ConfigError
    from compress.serving.vllm.server import ServerError
    from compress.serving.vllm.server import serve as run_server
    from compress.serving.vllm.version import check_version

    command = _write(model, more, method, retention, assignments, rpm, density, fps, max_frames)
    _say_limits(command)
    try:
        check_version()
        _say(f"starting: {command}")
        code = run_server(command, wait=wait, report=_say)
    except ConfigError as error:
        refuse("compress", error)
    except ServerError as error:
        refuse("compress", error, code=1)
    raise typer.Exit(code)


def _write(
    model: str,
    more: list[str] | None,
    method: str,
    retention: float | None,
    assignments: list[str] | None,
    rpm: list[str] | None,
    density: Density,
    fps: float | None,
    max_frames: int | None,
) -> ServeCommand:
    from compress.errors import ConfigError
    from compress.methods import build, retained_fraction
    from compress.settings import parse_assignments

    module = import_hf("compress.serving.vllm.command")
    try:
        settings = parse_assignments(assignments or [])
        share = retained_fraction(build(method, settings=settings)) if retention is None else retention
        patches = parse_assignments(rpm) if rpm else None
        served = module.ServedMethod(method=method, retention=share, settings=settings, rpm=patches, map=density)
        written: ServeCommand = module.write_command(model, served, fps=fps, max_frames=max_frames, more=more or [])
    except ConfigError as error:
        refuse("compress", error)
    return written


def _say_limits(command: ServeCommand) -> None:
    for difference in command.differences:
        _say(f"differs from attach: {difference}")
    for limit in command.family.limits:
        _say(f"not supported: {limit}")


def _say(text: str) -> None:
    typer.echo(f"compress: {printable(text)}", err=True)
