"""Shards as jobs of workers: a tar below a URL, of records that are objects there or files of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from codecmeta.batch.shard_output import RemoteShardOutput, write_new_shard
from codecmeta.errors import SourceError
from codecmeta.record.dataset import open_window
from codecmeta.record.tar_shard import Location, Record
from codecmeta.storage.objects import stat_object

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Shard to write below a URL.

    Attributes:
        url: of the output folder.
        pattern: format of the names of its shards.
        number: of this one, if no other run has taken it.
        places: of its records.
        staging: folder of the records that are files of this machine; None where all are objects.
    """

    url: str
    pattern: str
    number: int
    places: tuple[str, ...]
    staging: str | None


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """Result of a `ShardJob`.

    Attributes:
        job: the job.
        number: of the shard.
        locations: of the records that were there, by their places.
        versions: of those that were objects.
        problem: why nothing was written, "" otherwise.
    """

    job: ShardJob
    number: int = 0
    locations: dict[str, Location]
    versions: dict[str, str]
    problem: str = ""


def write_shard(job: ShardJob) -> WrittenShard:
    """Write a shard of the records that are there; one that is gone was packed by another run.

    Raises:
        OSError, SourceError: it cannot be written, or a record cannot be read.
    """
    records: list[Record] = []
    versions = {}
    for place in job.places:
        staged, url = Path(job.staging or "", place), f"{job.url}/{place}"
        if job.staging is not None and staged.exists():
            size = staged.stat().st_size
            records.append((place, size, partial(open_window, str(staged), 0, size)))
        elif (state := stat_object(url)) is not None:
            records.append((place, state.size, partial(open_window, url, 0, state.size)))
            versions[place] = state.version
    if not records:
        return WrittenShard(job=job, locations={}, versions={})
    number, locations = write_new_shard(RemoteShardOutput(job.url), job.pattern, job.number, records)
    named = {place: location for (place, _, _), location in zip(records, locations, strict=True)}
    return WrittenShard(job=job, number=number, locations=named, versions=versions)


def work_or_pack(task: Callable[[J], R], job: J | ShardJob) -> R | WrittenShard:
    """Do what a worker is given: the work on one input, or a shard, whose errors are in its result."""
    if not isinstance(job, ShardJob):
        return task(job)
    try:
        return write_shard(job)
    except (OSError, SourceError) as error:
        return lost_shard(job, getattr(error, "strerror", None) or str(error))


def lost_shard(job: ShardJob, problem: str) -> WrittenShard:
    """Return the result of a shard that was not written."""
    return WrittenShard(job=job, locations={}, versions={}, problem=problem)
