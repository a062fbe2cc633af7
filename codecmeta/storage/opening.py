"""Opening of what a path or URL names, or of bytes in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from codecmeta.errors import SourceError
from codecmeta.storage.address import Place, is_url
from codecmeta.storage.byte_source import ByteSource
from codecmeta.storage.held_bytes import HeldBytes
from codecmeta.storage.local_file import LocalFile
from codecmeta.storage.source_view import SourceView

MOST_COPIED = 64 << 30
"""Default of the bytes of a remote file that may be copied to this machine."""


def open_source(source: Place | bytes, *, most_bytes: int = MOST_COPIED) -> ByteSource:
    """Open a file for reading.

    Args:
        source: a path, a URL of `codecmeta.storage.address.READ`, or the bytes of a file.
        most_bytes: size up to which a remote file may be copied to this machine, where it cannot be read by ranges.

    Raises:
        SourceError: it cannot be read; `code` gives the reason.
        UsageError: there is no such kind of URL, or the package that reaches it is not installed.
    """
    if isinstance(source, bytes):
        return HeldBytes(source)
    if not is_url(source):
        return LocalFile(source)
    # imported where it is needed: packages for URLs take longer to load than a local file to read
    from codecmeta.storage.remote_file import RemoteFile
    from codecmeta.storage.stores import open_store

    store, key = open_store(source)
    if not key:
        raise SourceError("not_a_file", "the URL names no file")
    return RemoteFile(source, store, key, most_bytes=most_bytes)


def file_size(place: Place) -> int:
    """Return the length of a file, or of an object by its URL.

    Raises:
        OSError, SourceError: it cannot be read.
    """
    if not is_url(place):
        return Path(place).stat().st_size
    from codecmeta.storage.objects import stat_object

    state = stat_object(place)
    return -1 if state is None else state.size


@contextmanager
def open_part(url: str, offset: int, size: int) -> Iterator[IO[bytes]]:
    """Open bytes of an object, such as one record among many, for reading as a file object.

    Args:
        url: of the object.
        offset: of the first byte.
        size: number of bytes.

    Raises:
        SourceError: they cannot be read, or the server sends only whole objects.
        UsageError: there is no such kind of URL, or the package that reaches it is not installed.
    """
    with open_source(url, most_bytes=size) as source:
        view = SourceView(source.name, size, lambda position, length: source.read_at(offset + position, length))
        yield cast("IO[bytes]", io.BufferedReader(view))


@contextmanager
def open_whole(url: str) -> Iterator[tuple[IO[bytes], ByteSource]]:
    """Open an object for reading, by ranges, as a file object; also yield what it is read from.

    Raises:
        SourceError: it cannot be read.
        UsageError: there is no such kind of URL, or the package that reaches it is not installed.
    """
    with open_source(url) as source:
        yield cast("IO[bytes]", io.BufferedReader(SourceView(source.name, source.size, source.read_at))), source
