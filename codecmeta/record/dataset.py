"""Record collection: a folder of .npz files, tar shards of them, or an index of such shards."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast, overload

from codecmeta.errors import MetaFormatError, UsageError
from codecmeta.record import npz
from codecmeta.record.fields import FIELDS
from codecmeta.record.meta import VideoMeta
from codecmeta.record.tar_shard import SUFFIX, is_neighbour, scan_shard
from codecmeta.storage.address import is_url, name_of
from codecmeta.storage.objects import read_object
from codecmeta.storage.opening import open_part
from codecmeta.storage.source_view import SourceView
from codecmeta.storage.stores import open_store

INDEX = "index.parquet"
_MOST_INDEX = 4 << 30


@dataclass(frozen=True, slots=True)
class Entry:
    """Location of a record.

    Attributes:
        place: its name below the folder or within its shard.
        file: the file that holds it.
        offset: of its first byte there; None for a file of its own.
        size: its bytes; None for a file of its own.
    """

    place: str
    file: str
    offset: int | None = None
    size: int | None = None


class MetaDataset(Sequence[VideoMeta]):
    """Records in the order of their places; each is read on access, and none is kept.

    Attributes:
        entries: locations of the records.
        columns: the arrays that are read besides the packet table, None for all.
    """

    def __init__(self, entries: Sequence[Entry], columns: Sequence[str] | None, max_bytes: int) -> None:
        self.entries = entries
        self.columns = None if columns is None else tuple(columns)
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, number: int) -> VideoMeta: ...
    @overload
    def __getitem__(self, number: slice) -> MetaDataset: ...
    def __getitem__(self, number: int | slice) -> VideoMeta | MetaDataset:
        if isinstance(number, slice):
            return MetaDataset(self.entries[number], self.columns, self._max_bytes)
        return load_entry(self.entries[number], max_bytes=self._max_bytes, columns=self.columns)

    def read_bytes(self, number: int) -> bytes:
        """Return the bytes of a record's .npz.

        Raises:
            OSError: its file cannot be read.
            SourceError: likewise, by its URL.
        """
        entry = self.entries[number]
        if entry.offset is not None and entry.size is not None:
            with open_window(entry.file, entry.offset, entry.size) as file:
                return file.read()
        if is_url(entry.file):
            return read_object(entry.file, most_bytes=self._max_bytes)
        return Path(entry.file).read_bytes()

    def __iter__(self) -> Iterator[VideoMeta]:
        return (load_entry(entry, max_bytes=self._max_bytes, columns=self.columns) for entry in self.entries)


def load_entry(entry: Entry, *, max_bytes: int = npz.MAX_BYTES, columns: Sequence[str] | None = None) -> VideoMeta:
    """Read one record of a collection.

    Args:
        entry: its location.
        max_bytes: refuse a record whose arrays take more memory than this.
        columns: the arrays to read besides the packet table, None for all.

    Raises:
        MetaFormatError: it is not a valid record.
        OSError: its file cannot be opened.
        SourceError: likewise, by its URL.
    """
    if entry.offset is None or entry.size is None:
        info, arrays = npz.read(entry.file, max_bytes=max_bytes, names=columns)
    else:
        with open_window(entry.file, entry.offset, entry.size) as file:
            name = f"{entry.file}:{entry.place}"
            info, arrays = npz.read_from(file, name, size=entry.size, max_bytes=max_bytes, names=columns)
    return VideoMeta(info=info, **arrays)


def open_dataset(
    path: str | os.PathLike[str], *, columns: Sequence[str] | None = None, max_bytes: int = npz.MAX_BYTES
) -> MetaDataset:
    """Open a collection of records.

    Args:
        path: a folder of .npz files (searched), a folder of tar shards, one tar, or the index that `codecmeta pack`
            wrote; or the URL of one of them, of which what is needed is read by ranges. A folder with an index is read
            by it where pyarrow is installed.
        columns: names of the arrays to read besides the packet table, such as `frames` or `energy_innovation`; the
            others are None in the records. None reads all.
        max_bytes: refuse a record whose arrays take more memory than this.

    Raises:
        UsageError: the collection is empty, or a column is unknown.
        MetaFormatError: a tar or the index cannot be read.
        OSError: a file cannot be opened.
        SourceError: a store cannot be reached, or a server sends only whole tars.
    """
    unknown = [name for name in columns or () if name not in FIELDS]
    if isinstance(columns, str) or unknown:
        raise UsageError(f"columns={columns!r}; choose from {', '.join(FIELDS)}")
    place = os.fspath(path)
    kind = name_of(place).rpartition(".")[2]
    if not is_url(place) and Path(place).is_dir():
        entries = _list_folder(Path(place))
    elif kind == "parquet":
        entries = list(_read_index(place))
    elif kind == "tar":
        entries = _scan(place)
    elif is_url(place):
        entries = _list_prefix(place.rstrip("/"))
    else:
        entries = []
    if not entries:
        raise UsageError(f"{path} contains no record; give a folder of .npz files or tars, a .tar, or an index.parquet")
    return MetaDataset(entries, columns, max_bytes)


def _list_folder(folder: Path) -> list[Entry]:
    index = folder / INDEX
    if index.exists() and _has_pyarrow():
        return list(_read_index(os.fspath(index)))
    tars = sorted(folder.glob("*.tar"))
    if tars:
        return _scan(*map(os.fspath, tars))
    found = [
        os.path.join(here, name)  # noqa: PTH118 - of a million files
        for here, _, names in os.walk(folder)
        for name in names
        if name.endswith(SUFFIX)
    ]
    start = len(os.path.join(folder, ""))  # noqa: PTH118
    return [Entry(path[start:], path) for path in sorted(found)]


def _list_prefix(url: str) -> list[Entry]:
    """List the records below a URL, from an index or tars there if it has some; stores list in the order of keys."""
    store, key = open_store(url)
    prefix = f"{key}/" if key else ""
    names = [one.key[len(prefix) :] for one in store.list(prefix)]
    if INDEX in names and _has_pyarrow():
        return list(_read_index(f"{url}/{INDEX}"))
    tars = [f"{url}/{name}" for name in names if name.endswith(".tar") and "/" not in name]
    return _scan(*tars) if tars else [Entry(name, f"{url}/{name}") for name in names if name.endswith(SUFFIX)]


def _scan(*tars: str) -> list[Entry]:
    """List the records of tars; of those that share a name, the last, which replaced the others."""
    found = {name: Entry(name, tar, offset, size) for tar in tars for name, offset, size in scan_shard(tar)}
    return list(found.values())


def _has_pyarrow() -> bool:
    import importlib.util

    return importlib.util.find_spec("pyarrow") is not None


def _read_index(path: str) -> Iterator[Entry]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("an index needs pyarrow: pip install 'codecmeta[parquet]'; the tars need nothing") from error
    try:
        opened = arrow.BufferReader(read_object(path, most_bytes=_MOST_INDEX)) if is_url(path) else path
        table = parquet.read_table(opened, columns=["place", "shard", "offset", "bytes"])
        columns = [table[name].to_pylist() for name in table.column_names]
    except (arrow.ArrowException, KeyError, ValueError) as error:
        raise MetaFormatError(path, None, f"not a readable index ({error})") from error
    folder = path[: path.rfind("/") + 1]
    for place, shard, offset, size in zip(*columns, strict=True):
        if not is_neighbour(shard):
            raise MetaFormatError(path, "shard", f"names {shard!r}, which is not a file next to the index")
        if not (isinstance(offset, int) and isinstance(size, int) and offset >= 0 and size >= 0):
            raise MetaFormatError(path, "offset", f"of {place!r} is {offset!r}, its length {size!r}")
        yield Entry(str(place), folder + shard, offset, size)


@contextmanager
def open_window(place: str, offset: int, size: int) -> Iterator[IO[bytes]]:
    """Open bytes of a file, or of an object by its URL, for reading as a file object.

    Args:
        place: the file or object.
        offset: of the first byte.
        size: number of bytes.

    Raises:
        OSError: the file cannot be opened.
        SourceError: the object cannot be read.
    """
    if is_url(place):
        with open_part(place, offset, size) as part:
            yield part
        return
    with Path(place).open("rb", buffering=0) as file:

        def read(position: int, length: int) -> bytes:
            begin = offset + position
            # what an index claims may lie beyond any file
            return os.pread(file.fileno(), length, begin) if begin <= sys.maxsize - length else b""

        yield cast("IO[bytes]", io.BufferedReader(SourceView(place, size, read)))
