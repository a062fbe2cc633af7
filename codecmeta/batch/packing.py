"""Packing of records: tar shards of a bounded size, as WebDataset reads them, and an index in Parquet.

An object store takes some milliseconds for every file, and a folder of a million files is slow everywhere. A shard
holds records unchanged; the index gives the bytes of each record in its shard, and the manifest's facts about its
video.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from codecmeta.batch.folder_status import Folder, open_folder
from codecmeta.batch.manifest import Manifest, choose_lines
from codecmeta.batch.output_folder import check_place
from codecmeta.batch.record_index import packed_location, require_pyarrow
from codecmeta.batch.shard_output import ShardOutput, open_shard_output
from codecmeta.errors import OutputError, UsageError
from codecmeta.record.dataset import open_window
from codecmeta.record.tar_shard import Record, ShardFolder, tar_bytes
from codecmeta.storage.address import Place

_Listed: TypeAlias = tuple[Record, dict[str, Any]]
"""Record, and its line of a manifest."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Counts of a packing.

    Attributes:
        records: number of records.
        shards: number of tar files.
        bytes: total size of the tar files.
        left: records in the manifest that are missing, or have another length.
    """

    records: int
    shards: int
    bytes: int
    left: int


def pack(source: Place, out: Place, *, shard_bytes: int = 1 << 30) -> Packed:
    """Pack the records listed in a folder's manifests, in the order of their places.

    Equal records make equal shards. The index is written last: a folder without one was not packed completely. A shard
    that is written below a URL is held in memory for that.

    Args:
        source: an output folder of `codecmeta extract`, or its URL.
        out: folder or URL of the shards, `shard-000000.tar` and so on, and of `index.parquet`; created if missing.
        shard_bytes: least size of a shard, except the last.

    Raises:
        UsageError: pyarrow is not installed, the folder has no records, or `out` holds other shards.
        OutputError: a shard or the index cannot be written, or another run wrote a shard of the same name.
        SourceError: a record cannot be read from its store.
    """
    require_pyarrow()
    check_place(os.fspath(out))
    output = open_shard_output(out)
    with open_folder(os.fspath(source)) as folder:
        manifest = Manifest(folder.path)
        manifest.read()
        try:
            # names only: lines of a million records take gigabytes
            places = sorted(line["place"] for line in choose_lines(manifest) if line.get("status") in ("done", "kept"))
            records = _find_records(folder, manifest, places)
            first = next(records, None)
            if first is None:
                raise UsageError(f"{source} holds no record; give a folder that `codecmeta extract` wrote")
            if output.list_shards():
                raise UsageError(f"{out} holds shards already; use another --out, or remove them")
            sizes, count = _write(chain([first], records), output, shard_bytes)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(error.errno, f"{out}: {error.strerror or error}") from error
        finally:
            manifest.close()
    return Packed(records=count, shards=len(sizes), bytes=sum(sizes), left=len(places) - count)


def _write(records: Iterable[_Listed], output: ShardOutput, shard_bytes: int) -> tuple[list[int], int]:
    """Write shards and index; return the sizes of the shards and the number of records."""
    sizes: list[int] = []
    count = 0
    with output.write_index() as index:
        for batch in _split(records, shard_bytes):
            with output.write_shard(f"shard-{len(sizes):06d}.tar", [record for record, _ in batch]) as locations:
                for (_, line), location in zip(batch, locations, strict=True):
                    index.add(line, location)
            sizes.append(tar_bytes(locations))
            count += len(batch)
    return sizes, count


def _find_records(folder: Folder, manifest: Manifest, places: Iterable[str]) -> Iterator[_Listed]:
    """Find records in shards or in their files; omit what is gone, or has another length."""
    shards = ShardFolder(folder.place)
    for place in places:
        line = manifest.find_valid(place)
        if line is None:
            continue
        location, path = packed_location(line), f"{folder.place}/{place}"
        if location is not None and shards.holds(location):
            there: int | None = location.bytes
            opened = partial(open_window, shards.place_of(location.shard), location.offset, location.bytes)
        else:
            there = folder.size_of(place)
            opened = partial(open_window, path, 0, there or 0)
            if there != line.get("meta_bytes"):
                continue
        if there is not None:
            yield (place, there, opened), line


def _split(records: Iterable[_Listed], most: int) -> Iterator[list[_Listed]]:
    """Divide records into those of each shard."""
    batch: list[_Listed] = []
    total = 0
    for record in records:
        batch.append(record)
        total += record[0][1]
        if total >= most:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
