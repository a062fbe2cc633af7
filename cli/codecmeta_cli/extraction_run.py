"""Extraction run over many videos, as the commands `extract` and `retry` start it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from codecmeta_cli.console import refuse

if TYPE_CHECKING:
    from codecmeta.batch.inputs import Input
    from codecmeta.batch.packed_output import Packing
    from codecmeta.batch.shards import Shard
    from codecmeta.record.options import Options


def run_extraction(
    inputs: Iterable[Input],
    folder: Path | str,
    *,
    options: Options,
    deflate: bool | None,
    total: Callable[[], int | None],
    engine: Literal["local", "ray"],
    jobs: int | None,
    timeout: float,
    memory: float | None,
    limits: tuple[int, int, int],
    json: bool,
    shard: Shard | None = None,
    overwrite: bool = False,
    summary: bool = True,
    packing: Packing | None = None,
) -> None:
    """Run the extraction and show its progress.

    Args:
        inputs: the videos.
        folder: the output folder.
        options: what to extract.
        deflate: compress the records; None compresses those with JPEG frames.
        total: number of videos, None while that is unknown.
        engine: name of the engine.
        jobs: number of videos at a time.
        timeout: seconds per video, 0 for no limit.
        memory: GiB per worker.
        limits: largest pixels of a picture, frames of a video, bytes of a record.
        json: JSON lines on standard output.
        shard: the part of the inputs to do.
        overwrite: extract existing records again.
        summary: write the summary of the run.
        packing: move the records into tar shards.

    Raises:
        typer.Exit: with 1 where videos failed, 2 for wrong usage, 3 where the output cannot be written.
    """
    from codecmeta.batch.engines import choose_engine
    from codecmeta.batch.jobs import extract_inputs
    from codecmeta.batch.warmup import prepare_machine
    from codecmeta.errors import OutputError, UsageError
    from codecmeta.record.limits import Limits
    from codecmeta_cli.progress import Reporter
    from codecmeta_cli.signals import end_like_interrupted

    end_like_interrupted()
    pixels, frames, size = limits
    try:
        with Reporter(json=json, total=total) as reporter:
            counts = extract_inputs(
                inputs,
                folder,
                options=options,
                engine=choose_engine(
                    engine,
                    jobs=jobs,
                    timeout=timeout or None,
                    memory=None if memory is None else int(memory * 2**30),
                    prepare=prepare_machine if options.reads_payloads else None,
                    remark=reporter.say,
                ),
                limits=Limits(pixels=pixels, frames=frames, bytes=size),
                shard=shard,
                overwrite=overwrite,
                deflate=deflate,
                summary=summary,
                packing=packing,
                report=reporter.report,
            )
            reporter.finish(counts, folder, residuals=bool(options.chosen_maps))
    except UsageError as error:
        refuse("codecmeta", error)
    except OutputError as error:
        refuse("codecmeta", error.strerror or str(error), code=3)
    if counts["failed"]:
        raise typer.Exit(1)
