"""Options of the commands that work through many videos."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Jobs = Annotated[
    int | None,
    typer.Option(min=0, help="Videos at a time; 0 works in this process. Default: all cores, with Ray of the cluster."),
]
Timeout = Annotated[
    float,
    typer.Option(min=0, help="Seconds per video, from when a worker begins it, 0 for no limit; --jobs 0 has none."),
]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="GIB",
        show_default="its share of the machine, at least 4",
        help="Address space per worker, 0 for no limit; --jobs 0 and --engine ray have none.",
    ),
]
MaxPixels = Annotated[int, typer.Option(min=1, help="Largest picture, in pixels.")]
MaxFrames = Annotated[int, typer.Option(min=1, help="Longest video, in frames.")]
MaxBytes = Annotated[int, typer.Option(min=1, help="Largest record, in bytes of its arrays.")]
EngineName = Annotated[Literal["local", "ray"], typer.Option(help="Worker processes here, or tasks of a Ray cluster.")]
ShardSize = Annotated[float, typer.Option(min=0, metavar="GB", help="Least size of a tar, except the last of a run.")]
Part = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do one of N parts of the videos, I from 0: the same ones wherever and however they are listed.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per video on standard output.")]
