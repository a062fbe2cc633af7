"""Packing of records: tar shards of a bounded size, as WebDataset reads them, and an index in Parquet.

An object store takes some milliseconds for every file, and a folder of a million files is slow everywhere. A shard
holds records unchanged; the index gives the bytes of each record in its shard, and the manifest's facts about its
video.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codecmeta.batch.manifest import read_manifest
from codecmeta.errors import OutputError, UsageError
from codecmeta.record.atomic_file import replace_file
from codecmeta.record.dataset import INDEX, SUFFIX

_BLOCK = 512
_COLUMNS = ("codec", "duration_s", "frames", "packets", "gops", "residual", "source_bytes", "path")


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
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("packing needs pyarrow: pip install 'codecmeta[parquet]'") from error
    lines = {line["place"]: line for line in read_manifest(folder) if line.get("status") in ("done", "kept")}
    there = [place for place in sorted(lines) if _length(folder / place) == lines[place].get("meta_bytes")]
    if not there:
        raise UsageError(f"{folder} holds no record; give a folder that `codecmeta extract` wrote")
    if any(out.glob("*.tar")):
        raise UsageError(f"{out} holds shards already; use another --out, or remove them")
    rows: list[dict[str, Any]] = []
    sizes: list[int] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        waiting = iter(there)
        while len(rows) < len(there):
            name = f"shard-{len(sizes):06d}.tar"
            with (
                replace_file(out / name) as file,
                tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):
                for row in _fill(tar, folder, waiting, lines, shard_bytes):
                    rows.append({**row, "shard": name})
            sizes.append((out / name).stat().st_size)
        table = pyarrow.table({name: [row[name] for row in rows] for name in rows[0]})
        with replace_file(out / INDEX) as file:
            parquet.write_table(table, file)
    except OSError as error:
        raise OutputError(error.errno, f"{out}: {error.strerror or error}") from error
    return Packed(records=len(rows), shards=len(sizes), bytes=sum(sizes), left=len(lines) - len(rows))


def member_name(place: str) -> str:
    """Return the name of a record in a shard: WebDataset takes what follows a name's first dot as its kind."""
    folder, name = os.path.split(place.removesuffix(SUFFIX))
    return os.path.join(folder, name.replace(".", "_")) + SUFFIX  # noqa: PTH118


def _fill(
    tar: tarfile.TarFile, folder: Path, places: Iterator[str], lines: Mapping[str, Mapping[str, Any]], most: int
) -> Iterator[dict[str, Any]]:
    """Add records to a shard until it is full."""
    for place in places:
        path = folder / place
        with path.open("rb") as record:
            member = tarfile.TarInfo(member_name(place))
            member.size = os.fstat(record.fileno()).st_size
            tar.addfile(member, record)
        offset = tar.offset - -(-member.size // _BLOCK) * _BLOCK
        facts = {name: lines[place].get(name) for name in _COLUMNS}
        yield {"place": place, "member": member.name, "offset": offset, "bytes": member.size, **facts}
        if tar.offset >= most:
            return


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None
