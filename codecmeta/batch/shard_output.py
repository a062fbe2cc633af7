"""Output of shards: a folder or URL that tar shards and their index are written to, each whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from codecmeta.batch.manifest import Manifest
from codecmeta.batch.record_index import IndexWriter, packed_location
from codecmeta.errors import ConflictError, OutputError, SourceError
from codecmeta.record.atomic_file import replace_file
from codecmeta.record.dataset import INDEX
from codecmeta.record.tar_shard import Location, Record, ShardFolder, write_shard
from codecmeta.storage.address import Place, is_url
from codecmeta.storage.objects import set_object, write_object
from codecmeta.storage.stores import open_store


class ShardOutput:
    """Folder of shards, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list_shards(self) -> list[str]:
        """Return the names of the tars that are there."""
        return [path.name for path in self._folder.glob("*.tar")]

    @contextmanager
    def write_shard(self, name: str, records: Sequence[Record]) -> Iterator[list[Location]]:
        """Write a shard, and yield the locations of its records; the file gets its name afterwards.

        Raises:
            OSError: it cannot be written, or a record cannot be read.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with write_shard(self._folder / name, records) as locations:
            yield locations

    @contextmanager
    def write_index(self) -> Iterator[IndexWriter]:
        """Open the index to be written completely or not at all.

        Raises:
            OSError: it cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with replace_file(self._folder / INDEX) as file, _writing(IndexWriter(file)) as writer:
            yield writer


class RemoteShardOutput(ShardOutput):
    """Shards below a URL. Each is made in a temporary file (`TMPDIR`), and written if there is none of its name."""

    def __init__(self, url: str) -> None:
        self._url = url

    def list_shards(self) -> list[str]:
        """Return the names of the tars that are there.

        Raises:
            OutputError: the store cannot be reached.
        """
        store, key = open_store(self._url)
        prefix = f"{key}/" if key else ""
        try:
            names = [one.key[len(prefix) :] for one in store.list(prefix)]
        except SourceError as error:
            raise OutputError(None, f"output folder {self._url}: {error}") from error
        return [name for name in names if name.endswith(".tar") and "/" not in name]

    @contextmanager
    def write_shard(self, name: str, records: Sequence[Record]) -> Iterator[list[Location]]:
        """Write a shard, and yield the locations of its records; it has its name already.

        Raises:
            ConflictError: there is one of this name.
            OSError: it cannot be written, or a record cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="codecmeta-") as folder:
            path = Path(folder, name)
            with write_shard(path, records) as locations:
                pass
            write_object(f"{self._url}/{name}", path.read_bytes(), None)
        yield locations

    @contextmanager
    def write_index(self) -> Iterator[IndexWriter]:
        """Open the index to be written completely or not at all, see `ShardOutput`."""
        with tempfile.TemporaryFile() as file:
            with _writing(IndexWriter(file)) as writer:
                yield writer
            file.seek(0)
            try:
                set_object(f"{self._url}/{INDEX}", file.read())
            except SourceError as error:
                raise OutputError(None, f"{self._url}/{INDEX}: {error}") from error


@contextmanager
def _writing(writer: IndexWriter) -> Iterator[IndexWriter]:
    try:
        yield writer
        writer.close()
    except BaseException:
        writer.abandon()
        raise


def open_shard_output(place: Place) -> ShardOutput:
    """Return the output below a folder or URL."""
    return RemoteShardOutput(place.rstrip("/")) if is_url(place) else ShardOutput(Path(place))


def write_new_shard(
    output: RemoteShardOutput, pattern: str, number: int, records: Sequence[Record]
) -> tuple[int, list[Location]]:
    """Write a shard under the first number that no other run has taken.

    Args:
        output: where.
        pattern: format of the names.
        number: the first to try.
        records: what to write.

    Returns:
        Its number, and the locations of its records.

    Raises:
        OSError: it cannot be written, or a record cannot be read.
    """
    while True:
        try:
            with output.write_shard(pattern.format(number), records) as locations:
                return number, locations
        except ConflictError:
            number += 1


def index_manifests(manifests: Path, shards: ShardFolder, output: ShardOutput) -> None:
    """Write the index of all records that manifests locate in shards.

    Args:
        manifests: folder of the manifests.
        shards: the shards that are there.
        output: where the index is written.

    Raises:
        OSError: a manifest cannot be read, or the index cannot be written.
    """
    manifest = Manifest(manifests)
    manifest.read()
    try:
        with output.write_index() as index:
            for lines in manifest:
                for line in reversed(lines):
                    location = packed_location(line)
                    if location is not None and shards.holds(location):
                        index.add(line, location)
                        break
    finally:
        manifest.close()
