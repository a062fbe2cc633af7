"""Tar shard of records: a file that holds many records unchanged, as WebDataset reads them.

A global header at its beginning holds the shard's digest, which covers the places and the lengths of its records: two
shards of one digest hold the record of a place at the same bytes. `git archive` writes such a header, too, and readers
of tar pass over it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from codecmeta.errors import MetaFormatError, SourceError
from codecmeta.record.atomic_file import replace_file
from codecmeta.storage.address import Place, is_url
from codecmeta.storage.opening import open_whole

SUFFIX = ".npz"
_DIGEST = "comment"
_BLOCK = 512


Record = tuple[str, int, Callable[[], AbstractContextManager[IO[bytes]]]]
"""Place and length of a record to pack, and a function that opens it."""


@dataclass(frozen=True, slots=True)
class Location:
    """Location of a record in a shard.

    Attributes:
        shard: name of the tar, next to the index.
        member: name of the record in it.
        offset: of its first byte.
        bytes: its length.
        digest: of the shard.
    """

    shard: str
    member: str
    offset: int
    bytes: int
    digest: str

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Location | None:
        """Return the location in a line of a manifest; None for a record that is a file.

        Raises:
            KeyError, ValueError: it is not a line of a manifest.
        """
        if line.get("shard") is None:
            return None
        found = cls(
            shard=str(line["shard"]),
            member=str(line["member"]),
            offset=int(line["offset"]),
            bytes=int(line["bytes"]),
            digest=str(line["digest"]),
        )
        if not is_neighbour(found.shard) or found.offset < 0 or found.bytes < 0:
            raise ValueError(f"{found} is not a location in a shard")
        return found


def is_neighbour(name: object) -> bool:
    """Return whether a name is that of a file in the same folder."""
    return isinstance(name, str) and os.path.basename(name) == name and name not in ("", ".", "..")  # noqa: PTH119


def member_name(place: str) -> str:
    """Return the name of a record in a shard: WebDataset takes what follows a name's first dot as its kind."""
    folder, name = os.path.split(place.removesuffix(SUFFIX))
    return os.path.join(folder, name.replace(".", "_")) + SUFFIX  # noqa: PTH118


@contextmanager
def write_shard(path: Path, records: Sequence[Record]) -> Iterator[list[Location]]:
    """Write a shard, and yield the locations of its records before it appears under its name, completely or not at all.

    Args:
        path: the tar.
        records: place and length of each record, and a function that opens it.

    Raises:
        OSError: it cannot be written, or a record cannot be read.
    """
    listed = json.dumps([(place, size) for place, size, _ in records])
    digest = hashlib.sha256(listed.encode()).hexdigest()[:16]
    found = []
    with replace_file(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={_DIGEST: digest}) as tar:
                for place, size, open_record in records:
                    member = tarfile.TarInfo(member_name(place))
                    member.size = size
                    with open_record() as content:
                        tar.addfile(member, content)
                    offset = tar.offset - -(-size // _BLOCK) * _BLOCK
                    found.append(Location(path.name, member.name, offset, size, digest))
        except tarfile.TarError as error:
            raise OSError(errno.EIO, f"{place!r} has changed while it was packed ({error})") from error
        yield found


def tar_bytes(locations: Sequence[Location]) -> int:
    """Return the size of a shard that ends with the last of its records."""
    end = locations[-1].offset + locations[-1].bytes
    # two empty blocks, and the whole filled up to records of twenty
    return -(-(-(-end // _BLOCK) * _BLOCK + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def scan_shard(place: Place) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and length of every record of a tar.

    Args:
        place: the tar, or its URL, of which the headers are read.

    Raises:
        MetaFormatError: it is not a readable tar.
        OSError: it cannot be opened.
        SourceError: likewise, by its URL.
    """
    try:
        with _open_tar(place) as archive:
            for member in archive:
                if member.isreg() and member.name.endswith(SUFFIX):
                    yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise MetaFormatError(str(place), None, f"not a readable tar ({error})") from error


@contextmanager
def _open_tar(place: Place) -> Iterator[tarfile.TarFile]:
    if not is_url(place):
        with tarfile.open(place, "r:") as archive:
            yield archive
        return
    with open_whole(place) as (file, _), tarfile.open(fileobj=file, mode="r:") as archive:
        yield archive


class ShardFolder:
    """Shards of a folder, each opened once, to find out whether they hold what a manifest says.

    Args:
        place: the folder, or its URL.
    """

    def __init__(self, place: Place) -> None:
        self._place = os.fspath(place)
        self._found: dict[str, tuple[str | None, int]] = {}

    def holds(self, location: Location) -> bool:
        """Return whether a record is at its location, in a shard that is long enough."""
        if location.shard not in self._found:
            self._found[location.shard] = _identify(self.place_of(location.shard))
        digest, size = self._found[location.shard]
        return digest == location.digest and location.offset + location.bytes <= size

    def place_of(self, shard: str) -> str:
        """Return path or URL of a shard."""
        return f"{self._place.rstrip('/')}/{shard}"


def _identify(place: Place) -> tuple[str | None, int]:
    """Read the digest and the length of a shard; None where it is gone, or is none.

    Raises:
        SourceError: its store cannot be reached.
    """
    try:
        with _open_tar(place) as archive:
            return archive.pax_headers.get(_DIGEST), cast("IO[bytes]", archive.fileobj).seek(0, os.SEEK_END)
    except (OSError, tarfile.TarError):
        return None, 0
    except SourceError as error:
        if error.code in ("not_a_file", "unreadable"):
            return None, 0
        raise
