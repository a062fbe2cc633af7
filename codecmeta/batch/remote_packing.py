"""Packing below a URL: records move into tar shards while a batch runs.

Workers of this machine write their records into a temporary folder, and the run writes a shard as soon as they fill
one: what a killed run has not written is extracted again. Workers of other machines write each record as an object of
its own, as without packing. As soon as the objects of a shard are there, a worker writes it from them, the manifest
lists the location of each record, and the objects are removed: a run that is killed anywhere in between leaves each
record as an object, in a shard, or both, and the next run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from codecmeta.batch.outcome import Outcome
from codecmeta.batch.packed_output import Packing, Plain, next_number
from codecmeta.batch.remote_output import CONNECTIONS, RemoteOutput, copy_folder
from codecmeta.batch.shard_jobs import ShardJob, WrittenShard, write_shard
from codecmeta.batch.shard_output import RemoteShardOutput, index_manifests
from codecmeta.errors import OutputError, SourceError
from codecmeta.record.dataset import INDEX
from codecmeta.record.tar_shard import ShardFolder
from codecmeta.storage.objects import remove_object


class RemotePacker(Plain):
    """Records of a run that wait for their shard below a URL to be full.

    Args:
        folder: the output folder.
        packing: size of the shards.
        staging: folder of this machine where workers write; None where they write below the URL, and write the shards.
    """

    def __init__(self, folder: RemoteOutput, packing: Packing, staging: str | None) -> None:
        self._folder = folder
        self._most = packing.shard_bytes
        self._output = RemoteShardOutput(folder.url)
        self._name = folder.part.file_name("shard", "-{:06d}.tar")
        self._next = next_number(self._name, self._output)
        self._waiting: dict[str, Outcome] = {}
        self._bytes = 0
        self._ready: list[ShardJob] = []
        self._given: dict[str, Outcome] = {}
        self._packed = False
        self.staging = staging

    def add(self, place: str, outcome: Outcome) -> None:
        """Take the outcome of a video, see `Packer`.

        Raises:
            OutputError: a shard cannot be written.
        """
        if outcome.status != "failed" and outcome.location is None:
            self._waiting[place] = outcome
            self._bytes += 0 if outcome.stamp is None else outcome.stamp.meta_bytes
            if self._bytes >= self._most and self.staging is None:
                self._ready.append(self._take_waiting())
            elif self._bytes >= self._most:
                self.write_waiting()

    def _take_waiting(self) -> ShardJob:
        places = tuple(self._waiting)
        job = ShardJob(url=self._folder.url, pattern=self._name, number=self._next, places=places, staging=self.staging)
        self._given |= self._waiting
        self._waiting.clear()
        self._bytes = 0
        self._next += 1
        return job

    def take_shards(self) -> Iterator[ShardJob]:
        """Yield the shards that are full, for workers to write."""
        while self._ready:
            yield self._ready.pop(0)

    def settle(self, written: WrittenShard) -> None:
        """List a shard's records in the manifest, and remove what they were before; those of a lost one wait again.

        Raises:
            OutputError: the manifest cannot be written.
        """
        outcomes = {place: self._given.pop(place) for place in written.job.places}
        if written.problem:
            self._waiting |= outcomes
            return
        self._next = max(self._next, written.number + 1)
        for place, location in written.locations.items():
            self._folder.append(place, replace(outcomes[place], location=location))
        self._folder.flush()
        self._packed = True

        self._remove(written)

    def _remove(self, written: WrittenShard) -> None:
        """Remove the files and objects of records that are in a shard now."""
        staged = written.locations.keys() - written.versions.keys()
        for place in staged:
            Path(self.staging or "", place).unlink()
        # a run that was killed may have left objects of the same records
        left = {place: None for place in staged if self._folder.has(place)}

        def remove(item: tuple[str, str | None]) -> None:
            place, version = item
            remove_object(f"{self._folder.url}/{place}", version)

        try:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                for _ in pool.map(remove, (written.versions | left).items()):
                    pass
        except SourceError as error:
            raise OutputError(None, f"records that were packed cannot be removed: {error}") from error

    def write_waiting(self) -> None:
        """Write the records that wait, if there are any, and list them in the manifest.

        Raises:
            OutputError: they cannot be written.
        """
        if self._waiting:
            self._ready.append(self._take_waiting())
        for job in self.take_shards():
            self.settle(write_shard(job))

    def finish(self) -> None:
        """Write the last shard, and the index of the folder.

        Raises:
            OutputError: they cannot be written.
        """
        self.write_waiting()
        url = self._folder.url
        if self._packed or not self._folder.has(INDEX):
            # parts of the manifest that other runs wrote count, too
            with copy_folder(url) as copy:
                index_manifests(copy.path, ShardFolder(url), self._output)
