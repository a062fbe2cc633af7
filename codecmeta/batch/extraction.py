"""Batch extraction of many videos to one folder of records, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from codecmeta.batch.engines import choose_engine
from codecmeta.batch.inputs import find_inputs
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.outcome import Outcome, Status
from codecmeta.batch.output_folder import check_place
from codecmeta.batch.packed_output import Packing
from codecmeta.batch.shards import parse_shard
from codecmeta.batch.warmup import prepare_machine
from codecmeta.errors import UsageError
from codecmeta.record.limits import Limits
from codecmeta.record.options import Options


def extract_many(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    options: Options | None = None,
    jobs: int | None = None,
    timeout: float | None = 900.0,
    memory: int | None = None,
    engine: Literal["local", "ray"] = "local",
    limits: Limits | None = None,
    overwrite: bool = False,
    deflate: bool | None = None,
    shard: str = "0/1",
    pack: Literal["tar"] | None = None,
    shard_bytes: int = 1 << 30,
    report: Callable[[Outcome], None] | None = None,
) -> dict[Status, int]:
    """Extract many videos, as `codecmeta extract` does; a later call does only what is missing or stale.

    Workers are new processes that import the calling script, so a script calls this under
    ``if __name__ == "__main__"``, or with ``jobs=0``.

    Args:
        sources: files, folders (searched), globs, and `@list.txt` with one path per line; also URLs of videos, and of
            buckets and prefixes (searched): `s3://`, `gs://`, `memory://`, and of videos `http(s)://`.
        out: folder of the .npz files, created if missing, or its URL: `s3://`, `gs://`, or, with ``jobs=0``, `memory://`.
        options: what to extract; None for the defaults of `Options`.
        jobs: videos at a time; None for all cores, 0 to work in this process.
        timeout: seconds per video; None for no limit.
        memory: bytes of address space per worker, 0 for no limit; None for a worker's share of the machine's memory,
            at least 4 GiB.
        engine: worker processes here, or tasks of a Ray cluster.
        limits: the largest demands that a video may make; None for the defaults of `Limits`.
        overwrite: extract existing records again, also those with other options.
        deflate: compress the .npz files; None compresses those with JPEG frames.
        shard: `i/n` does one of n parts of the videos, i from 0, with a manifest of its own: the same part wherever and
            however they are listed.
        pack: `tar` moves the records into tar shards with an index, as `codecmeta pack` writes them.
        shard_bytes: least size of a shard, except the last of a run.
        report: called with the outcome of every video.

    Returns:
        Numbers of videos that were done, kept and failed.

    Raises:
        UsageError: a source leads to nothing, `shard` is not i/n, the folder holds records of other options, the engine
            does not support a requested limit, or packing needs pyarrow.
        OutputError: the output folder cannot be created or written, or the disk is full.
    """
    named = [os.fspath(one) for one in ([sources] if isinstance(sources, str | os.PathLike) else sources)]
    _check_memory([*named, os.fspath(out)], jobs=jobs)
    folder = check_place(os.fspath(out))
    packing = None if pack is None else Packing(shard_bytes=shard_bytes)
    options = options or Options()
    return extract_inputs(
        find_inputs(named, out=folder, stdin=None),
        folder,
        options=options,
        engine=choose_engine(
            engine,
            jobs=jobs,
            timeout=timeout,
            memory=memory,
            prepare=prepare_machine if options.reads_payloads else None,
        ),
        limits=limits,
        overwrite=overwrite,
        deflate=deflate,
        shard=parse_shard(shard),
        packing=packing,
        report=report or _ignore,
    )


def _check_memory(places: Iterable[str], *, jobs: int | None) -> None:
    if jobs != 0 and any(place.startswith("memory://") for place in places):
        raise UsageError("memory:// is in this process only; use jobs=0 (--jobs 0)")


def _ignore(outcome: Outcome) -> None:
    """Ignore the outcome."""
