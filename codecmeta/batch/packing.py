"""Packing of records: tar shards of a bounded size, as WebDataset reads them, and an index in Parquet.

An object store takes some milliseconds for every file, and a folder of a million files is slow everywhere. A shard
holds records unchanged; the index gives the bytes of each record in its shard, and the manifest's facts about its
video.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from codecmeta.batch.manifest import read_manifest
from codecmeta.batch.record_index import packed_location, require_pyarrow, write_index
from codecmeta.errors import OutputError, UsageError
from codecmeta.record.dataset import Window
from codecmeta.record.tar_shard import Record, ShardFolder, write_shard


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


def pack(folder: Path, out: Path, *, shard_bytes: int = 1 << 30) -> Packed:
    """Pack the records listed in a folder's manifests, in the order of their places.

    Equal records make equal shards. The index is written last: a folder without one was not packed completely.

    Args:
        folder: an output folder of `codecmeta extract`.
        out: folder of the shards, `shard-000000.tar` and so on, and of `index.parquet`; created if missing.
        shard_bytes: least size of a shard, except the last.

    Raises:
        UsageError: pyarrow is not installed, the folder has no records, or `out` holds other shards.
        OutputError: a shard or the index cannot be written.
    """
    require_pyarrow()
    lines = {line["place"]: line for line in read_manifest(folder) if line.get("status") in ("done", "kept")}
    shards = ShardFolder(folder)
    there = [one for place in sorted(lines) if (one := _find_record(folder, place, lines[place], shards))]
    if not there:
        raise UsageError(f"{folder} holds no record; give a folder that `codecmeta extract` wrote")
    if any(out.glob("*.tar")):
        raise UsageError(f"{out} holds shards already; use another --out, or remove them")
    sizes: list[int] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        with write_index(out) as index:
            for batch in _split(there, shard_bytes):
                path = out / f"shard-{len(sizes):06d}.tar"
                with write_shard(path, batch) as locations:
                    for (place, _, _), location in zip(batch, locations, strict=True):
                        index.add(lines[place], location)
                sizes.append(path.stat().st_size)
    except OSError as error:
        raise OutputError(error.errno, f"{out}: {error.strerror or error}") from error
    return Packed(records=len(there), shards=len(sizes), bytes=sum(sizes), left=len(lines) - len(there))


def _find_record(folder: Path, place: str, line: Mapping[str, Any], shards: ShardFolder) -> Record | None:
    """Find a record in a shard or in its file; None where it is gone, or has another length."""
    location, path = packed_location(line), folder / place
    if location is not None and shards.holds(location):
        window = partial(Window, str(folder / location.shard), location.offset, location.bytes)
        return place, location.bytes, lambda: io.BufferedReader(window())
    with suppress(OSError, ValueError):
        size = path.stat().st_size
        if size == line.get("meta_bytes"):
            return place, size, lambda: path.open("rb")
    return None


def _split(records: Iterable[Record], most: int) -> Iterator[list[Record]]:
    """Divide records into those of each shard."""
    batch: list[Record] = []
    total = 0
    for record in records:
        batch.append(record)
        total += record[1]
        if total >= most:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
