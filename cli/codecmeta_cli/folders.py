"""Folder commands for what `codecmeta extract` writes: status, retry and pack."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from codecmeta_cli.console import refuse
from codecmeta_cli.run_options import (
    EngineName,
    Jobs,
    Json,
    MaxBytes,
    MaxFrames,
    MaxPixels,
    Memory,
    Part,
    ShardSize,
    Timeout,
)


def status(
    meta: Annotated[str, typer.Argument(metavar="META", help="A folder that extract wrote, or its URL.")],
    failures: Annotated[
        bool, typer.Option("--failures", help="List the videos that failed, with their reasons.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Show what is done, failed and missing in a folder, of all runs and shards together.

    Exit code: 0 all done, 1 some videos failed or are missing, 2 wrong usage.
    """
    from codecmeta.batch.folder_status import open_folder, read_status
    from codecmeta.batch.outcome import Outcome
    from codecmeta.errors import UsageError
    from codecmeta_cli.status_screen import print_advice, print_failures, print_status

    failed: list[Outcome] | None = [] if failures else None
    try:
        with open_folder(meta) as folder:
            found = read_status(folder, failures=failed)
    except UsageError as error:
        refuse("codecmeta", error)
    except OSError as error:
        refuse("codecmeta", f"{meta}: {error.strerror or error}")
    if as_json:
        listed = {} if failed is None else {"failures": [outcome.facts() for outcome in failed]}
        typer.echo(json.dumps(found.describe() | listed))
    else:
        print_status(found, meta)
        print_failures(failed or [])
        print_advice(found)
    if found.failed or found.unfinished:
        raise typer.Exit(1)


def retry(
    meta: Annotated[str, typer.Argument(metavar="META", help="A folder that extract wrote, or its URL.")],
    codes: Annotated[
        str, typer.Option("--code", metavar="CODES", help="Only failures with these codes, separated by commas.")
    ] = "",
    jobs: Jobs = None,
    timeout: Timeout = 900.0,
    memory: Memory = None,
    max_pixels: MaxPixels = 36_000_000,
    max_frames: MaxFrames = 1 << 26,
    max_bytes: MaxBytes = 8 << 30,
    engine: EngineName = "local",
    shard: Part = "0/1",
    shard_size: ShardSize = 1.0,
    json: Json = False,
) -> None:
    """Extract again what failed, and records that are gone, with the options of the folder.

    Exit codes are those of extract.
    """
    from codecmeta.batch.folder_status import find_unfinished, open_folder, options_of_run
    from codecmeta.batch.output_folder import check_place
    from codecmeta.batch.packed_output import Packing
    from codecmeta.batch.shards import parse_shard
    from codecmeta.errors import UsageError
    from codecmeta_cli.extraction_run import run_extraction

    try:
        part = parse_shard(shard)
        wanted = frozenset(code.strip() for code in codes.split(",") if code.strip())
        with open_folder(meta) as folder:
            options, deflate, packed = options_of_run(folder)
            # the list before this run writes to the manifests
            inputs = [one for one in find_unfinished(folder, codes=wanted) if part.has(one.place)]
        place = check_place(meta)
    except UsageError as error:
        refuse("codecmeta", error)
    except OSError as error:
        refuse("codecmeta", f"{meta}: {error.strerror or error}")
    run_extraction(
        inputs,
        place,
        options=options,
        deflate=deflate,
        total=lambda: len(inputs),
        engine=engine,
        jobs=jobs,
        timeout=timeout,
        memory=memory,
        limits=(max_pixels, max_frames, max_bytes),
        json=json,
        shard=part,
        summary=False,
        packing=Packing(shard_bytes=int(shard_size * 1e9)) if packed else None,
    )


def pack(
    meta: Annotated[str, typer.Argument(metavar="META", help="A folder that extract wrote, or its URL.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of the shards and of index.parquet, or its URL.")],
    shard_size: ShardSize = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Pack all records of a folder into tar shards, as WebDataset reads them, with an index in Parquet.

    The records stay where they are. Exit code: 0 all packed, 1 some records of the manifest are gone, 2 wrong usage, 3
    the output cannot be written.
    """
    from dataclasses import asdict

    from codecmeta.batch.packing import pack as pack_records
    from codecmeta.errors import OutputError, SourceError, UsageError
    from codecmeta_cli.signals import end_like_interrupted

    end_like_interrupted()
    try:
        packed = pack_records(meta, out, shard_bytes=int(shard_size * 1e9))
    except UsageError as error:
        refuse("codecmeta", error)
    except SourceError as error:
        refuse("codecmeta", f"{meta}: {error}", code=1)
    except OutputError as error:
        refuse("codecmeta", error.strerror or str(error), code=3)
    if as_json:
        typer.echo(json.dumps(asdict(packed)))
    else:
        left = f"; {packed.left} are gone, see codecmeta retry" if packed.left else ""
        shards = f"{packed.shards} shard{'s' * (packed.shards != 1)}"
        typer.echo(f"{packed.records} records in {shards}, {packed.bytes / 1e9:.3f} GB{left}", err=True)
    if packed.left:
        raise typer.Exit(1)
