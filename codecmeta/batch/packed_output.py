"""Packed output of a batch: records move from files of their own into tar shards while the batch runs.

A worker writes its record as a file, as without packing. As soon as the files of a shard are there, the shard is
written from them, the manifest lists the location of each record, the shard gets its name, and the files are removed.
A run that is killed anywhere in between leaves each record as a file, in a shard, or both, and the next run goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from codecmeta.batch.outcome import Outcome
from codecmeta.batch.output_folder import OutputFolder, as_output_error
from codecmeta.batch.shard_jobs import ShardJob, WrittenShard
from codecmeta.batch.shard_output import ShardOutput, index_manifests
from codecmeta.record.dataset import INDEX
from codecmeta.record.tar_shard import Record, ShardFolder


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Packed output.

    Attributes:
        shard_bytes: least size of a tar, except the last of a run.
    """

    shard_bytes: int = 1 << 30


class Plain:
    """Output without shards: each record is a file of its own.

    Attributes:
        staging: folder where workers write records that wait for their shard; None for the output folder.
    """

    staging: str | None = None

    def add(self, place: str, outcome: Outcome) -> None:
        """Take the outcome of a video: leave its record where it is."""

    def take_shards(self) -> Iterator[ShardJob]:
        """Yield the shards that workers have to write now: none."""
        return iter(())

    def settle(self, written: WrittenShard) -> None:
        """Take the result of such a shard."""
        raise NotImplementedError


class Packer(Plain):
    """Records of a run that wait for their shard to be full."""

    def __init__(self, folder: OutputFolder, packing: Packing) -> None:
        self._folder = folder
        self._output = ShardOutput(folder.path)
        self._most = packing.shard_bytes
        self._name = folder.part.file_name("shard", "-{:06d}.tar")
        self._next = next_number(self._name, self._output)
        self._last = self._name.format(self._next - 1)
        self._waiting: dict[str, Outcome] = {}
        self._bytes = 0
        self._folders: set[Path] = set()
        self._packed = False

    def add(self, place: str, outcome: Outcome) -> None:
        """Take the outcome of a video; one that failed has no record.

        Raises:
            OutputError: a shard cannot be written.
        """
        if outcome.status == "failed":
            return
        if outcome.location is not None:
            # the run that wrote the last shard may have been killed before it removed the files
            if outcome.location.shard == self._last:
                (self._folder.path / place).unlink(missing_ok=True)
            return
        self._waiting[place] = outcome
        self._bytes += 0 if outcome.stamp is None else outcome.stamp.meta_bytes
        if self._bytes >= self._most:
            self._write()

    def _write(self) -> None:
        root = self._folder.path
        records: list[Record] = []
        for place in self._waiting:
            # a record that is gone was packed by another run
            with suppress(FileNotFoundError):
                path = root / place
                records.append((place, path.stat().st_size, partial(_open, path)))
        with as_output_error(root), self._output.write_shard(self._name.format(self._next), records) as locations:
            for (place, _, _), location in zip(records, locations, strict=True):
                self._folder.append(place, replace(self._waiting[place], location=location))
        self._next += 1
        for place, _, _ in records:
            path = root / place
            path.unlink(missing_ok=True)
            self._folders.update(path.parents)
        self._waiting.clear()
        self._bytes, self._packed = 0, True

    def finish(self) -> None:
        """Write the last shard, and the index of the folder.

        Raises:
            OutputError: they cannot be written.
        """
        if self._waiting:
            self._write()
        root = self._folder.path
        for path in sorted(self._folders, key=lambda one: -len(one.parts)):
            if root in path.parents:
                with suppress(OSError):
                    path.rmdir()
        with as_output_error(root), self._folder.hold_lock():
            if self._packed or not _is_current(root):
                index_manifests(root, ShardFolder(root), self._output)


def _is_current(folder: Path) -> bool:
    """Return whether the index is newer than what it was made from."""
    try:
        written = (folder / INDEX).stat().st_mtime_ns
        return all(path.stat().st_mtime_ns <= written for path in folder.glob("manifest*.jsonl"))
    except OSError:
        return False


def next_number(pattern: str, output: ShardOutput) -> int:
    """Return the number after the last one of the shards that are there."""
    numbered = re.compile(re.escape(pattern).replace(r"\{:06d\}", r"(\d{6,})"))
    matches = (numbered.fullmatch(name) for name in output.list_shards())
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")
