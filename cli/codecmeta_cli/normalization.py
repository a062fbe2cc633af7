"""Normalisation command, `codecmeta normalize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from codecmeta_cli.console import refuse
from codecmeta_cli.run_options import Jobs, Json, Part, Timeout


def normalize(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="As those of extract.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the .mp4 files; it mirrors the sources.")],
    gop: Annotated[int, typer.Option(min=1, help="Frames from one key frame to the next.")] = 32,
    crf: Annotated[int, typer.Option(min=0, max=51, help="Quality, 0 is best.")] = 20,
    encoder: Annotated[Literal["libx264", "h264_nvenc"], typer.Option(help="Encoder of ffmpeg.")] = "libx264",
    jobs: Jobs = None,
    timeout: Timeout = 3600.0,
    shard: Part = "0/1",
    null: Annotated[bool, typer.Option("-0", "--null", help="The paths of lists end with NUL.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Convert existing files again.")] = False,
    json: Json = False,
) -> None:
    """Convert videos to H.264 with GoPs of one length, audio kept, by the system's ffmpeg (extra ffmpeg).

    Run it again to convert only what is missing or stale. Exit codes are those of extract.
    """
    from codecmeta.batch.engines import choose_engine
    from codecmeta.batch.inputs import find_inputs
    from codecmeta.batch.normalization import Target, normalize_inputs
    from codecmeta.batch.shards import parse_shard
    from codecmeta.errors import OutputError, UsageError
    from codecmeta_cli.progress import Reporter
    from codecmeta_cli.signals import end_like_interrupted

    end_like_interrupted()
    try:
        part, target = parse_shard(shard), Target(gop=gop, crf=crf, encoder=encoder)
        inputs = find_inputs(sources, out=out, stdin=sys.stdin, null=null)
        inputs.start_counting(part)
        with Reporter(json=json, total=lambda: inputs.total, doing="converting") as reporter:
            counts = normalize_inputs(
                inputs,
                out,
                target=target,
                # address space is not limited: ffmpeg maps more memory for its threads than they use
                engine=choose_engine("local", jobs=jobs, timeout=timeout or None, memory=None if jobs == 0 else 0),
                shard=part,
                overwrite=overwrite,
                report=reporter.report,
            )
            reporter.finish(counts, out, what="videos")
    except UsageError as error:
        refuse("codecmeta", error)
    except OutputError as error:
        refuse("codecmeta", error.strerror or str(error), code=3)
    if counts["failed"]:
        raise typer.Exit(1)
