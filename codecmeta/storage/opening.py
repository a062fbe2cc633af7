"""Opening of what a path or URL names, or of bytes in memory."""

from __future__ import annotations

from codecmeta.errors import SourceError
from codecmeta.storage.address import Place, is_url
from codecmeta.storage.byte_source import ByteSource
from codecmeta.storage.held_bytes import HeldBytes
from codecmeta.storage.local_file import LocalFile

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
