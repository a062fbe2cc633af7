"""Status of an output folder, from the manifests and summaries of all runs and shards that wrote to it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

from codecmeta.batch.inputs import SUFFIX, Input
from codecmeta.batch.manifest import read_manifest
from codecmeta.batch.outcome import Outcome, Stamp, outcome_of_line
from codecmeta.batch.output_folder import read_run, run_digest
from codecmeta.batch.record_listing import RecordListing
from codecmeta.batch.summary import Tally, read_summaries
from codecmeta.errors import SourceCode, SourceError, UsageError
from codecmeta.record.options import Options
from codecmeta.record.tar_shard import ShardFolder
from codecmeta.storage.address import is_url
from codecmeta.storage.stores import open_store


class Folder(NamedTuple):
    """Output folder that is read.

    Attributes:
        path: folder of its manifests, summaries and run record.
        place: its path or URL.
        records: the records there; None where the file system says it.
    """

    path: Path
    place: str
    records: RecordListing | None

    def size_of(self, place: str) -> int | None:
        """Return the length of the record at a place; None where it is gone."""
        if self.records is not None:
            found = self.records.find(place)
            return None if found is None else found[0]
        try:
            return os.stat(f"{self.place}/{place}").st_size  # noqa: PTH116 - of a million files
        except (OSError, ValueError):
            return None

    def list_places(self) -> Iterator[str]:
        """Yield the places of the records that are files, or objects, of their own.

        Raises:
            SourceError: the store cannot be reached.
        """
        if self.records is not None:
            store, key = open_store(self.place)
            prefix = f"{key}/" if key else ""
            yield from (one.key[len(prefix) :] for one in store.list(prefix) if one.key.endswith(SUFFIX))
            return
        start = len(os.path.join(self.place, ""))  # noqa: PTH118
        for here, folders, names in os.walk(self.place):
            folders.sort()
            for name in sorted(names):
                if name.endswith(SUFFIX):
                    yield os.path.join(here, name)[start:]  # noqa: PTH118 - of a million files


@dataclass(kw_only=True)
class FolderStatus:
    """Progress of an output folder.

    Attributes:
        inputs: videos found by the last listings, all shards together; None where no run has completed its listing.
        tally: sums over those that were done and those that failed.
        gone: videos that were done, and whose record is missing now, or has another length.
        stale: videos that were last done with other options or versions than those of the folder's run.
        ends: for each summary of a run, its shard and how it ended.
    """

    inputs: int | None
    tally: Tally = field(default_factory=Tally)
    gone: int = 0
    stale: int = 0
    ends: dict[str, str] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Videos with a record."""
        return self.tally.counts["kept"]

    @property
    def failed(self) -> int:
        """Videos that failed."""
        return self.tally.counts["failed"]

    @property
    def missing(self) -> int | None:
        """Videos without a record that did not fail either; None where the number of videos is unknown."""
        if self.inputs is None:
            return None
        return max(self.inputs - self.done - self.failed, 0)

    @property
    def unfinished(self) -> bool:
        """Whether records are missing, or may be missing since no run has listed all videos."""
        return self.gone > 0 or self.missing != 0 or "complete" not in self.ends.values()

    def describe(self) -> dict[str, Any]:
        """Describe the state as JSON values."""
        sums = self.tally.describe()
        del sums["counts"]
        return {
            "inputs": self.inputs,
            "done": self.done,
            "failed": self.failed,
            "missing": self.missing,
            "gone": self.gone,
            "stale": self.stale,
            "failed_by_code": sums.pop("failed"),
            **sums,
            "runs": self.ends,
        }


@contextmanager
def open_folder(place: str) -> Iterator[Folder]:
    """Open an output folder for reading, by its path or URL.

    Raises:
        UsageError: there is no store for the URL, or it cannot be read.
    """
    if not is_url(place):
        yield Folder(Path(place), place, None)
        return
    from codecmeta.batch.remote_output import copy_folder

    url = place.rstrip("/")
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(copy_folder(url))
        except SourceError as error:
            raise UsageError(f"folder {url} cannot be read: {error}") from error
        yield Folder(copy.path, url, copy.records)


def as_folder(folder: Path | Folder) -> Folder:
    """Return an output folder that is local, or open already."""
    return folder if isinstance(folder, Folder) else Folder(folder, os.fspath(folder), None)


def holds_conversions(folder: Folder) -> bool:
    """Return whether the run of a folder is one of `codecmeta normalize`."""
    options = (read_run(folder.path) or {}).get("options")
    return isinstance(options, dict) and "crf" in options


def read_status(folder: Path | Folder, *, failures: list[Outcome] | None = None) -> FolderStatus:
    """Read what was done in a folder.

    Args:
        folder: an output folder of `codecmeta extract`.
        failures: receives the outcomes that failed, None to ignore them.

    Raises:
        UsageError: it holds no manifest.
        OSError: a manifest cannot be read.
    """
    folder = as_folder(folder)
    summaries = read_summaries(folder.path)
    listed = [summary["listed"] for summary in summaries if isinstance(summary.get("listed"), int)]
    status = FolderStatus(
        inputs=max(listed, default=None),
        ends={str(summary.get("shard")): str(summary.get("ended")) for summary in summaries},
    )
    run = read_run(folder.path)
    digest = None if run is None else run_digest(run)
    shards = ShardFolder(folder.place)
    for place, outcome, line in _read_outcomes(folder):
        if outcome.status == "failed":
            status.tally.add_outcome(outcome)
            if failures is not None:
                failures.append(outcome)
        elif not _is_there(folder, place, outcome, shards):
            status.gone += 1
        else:
            status.tally.add_outcome(outcome)
            status.stale += line.get("run") != digest
    if not (status.done or status.failed or status.gone or summaries):
        raise UsageError(f"{folder.place} holds no manifest; give a folder that `codecmeta extract` wrote")
    return status


def find_unfinished(folder: Path | Folder, *, codes: Collection[str] = ()) -> Iterator[Input]:
    """Find the videos that failed, and those whose records are gone, with the places of their records.

    Args:
        folder: an output folder of `codecmeta extract`.
        codes: failure codes to select; None for all, and for records that are gone.

    Raises:
        UsageError: a code is none of `SourceCode`.
    """
    folder = as_folder(folder)
    allowed = get_args(SourceCode)
    for code in codes:
        if code not in allowed:
            raise UsageError(f"unknown code {code!r}; choose from {', '.join(allowed)}")
    shards = ShardFolder(folder.place)
    for place, outcome, _ in _read_outcomes(folder):
        lost = outcome.status == "failed" or not _is_there(folder, place, outcome, shards)
        if outcome.code in codes or (not codes and lost):
            yield Input(outcome.source, place)


def options_of_run(folder: Path | Folder) -> tuple[Options, bool, bool]:
    """Return the options of the run that a folder belongs to, and whether its records are compressed, and packed.

    Raises:
        UsageError: there is none, or its options are unknown to this version.
    """
    folder = as_folder(folder)
    if holds_conversions(folder):
        raise UsageError(f"{folder.place} holds videos of normalize; run the same normalize command again")
    run = read_run(folder.path)
    try:
        options = dict(run.get("options") or {}) if run is not None else {}
        deflate, pack = options.pop("deflate", False), options.pop("pack", None)
        if options:
            return Options(**options), bool(deflate), pack is not None
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{folder.place}: its options are not those of this version ({error}); extract it again"
        ) from error
    raise UsageError(f"{folder.place} holds no run; give a folder that `codecmeta extract` wrote")


def _read_outcomes(folder: Folder) -> Iterator[tuple[str, Outcome, Mapping[str, Any]]]:
    for line in read_manifest(folder.path):
        try:
            place = line["place"]
            outcome = outcome_of_line(
                line, source=str(line["path"]), meta=f"{folder.place}/{place}", stamp=Stamp.of_line(line)
            )
            yield place, outcome, line
        except (KeyError, TypeError, ValueError):
            # written by another version
            continue


def _is_there(folder: Folder, place: str, outcome: Outcome, shards: ShardFolder) -> bool:
    if outcome.location is not None and shards.holds(outcome.location):
        return True
    there = folder.size_of(place)
    return there is not None and outcome.stamp is not None and there == outcome.stamp.meta_bytes
