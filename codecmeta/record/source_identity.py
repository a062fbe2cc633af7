"""Source file identity: the properties by which a record is matched to its file."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from codecmeta.storage.byte_source import ByteSource
from codecmeta.storage.local_file import LocalFile
from codecmeta.storage.opening import open_source

_DIGEST_BYTES = 1 << 20


def identify_source(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the identity of a stored file, see `describe_source`.

    Raises:
        SourceError: it cannot be opened.
        OSError: it cannot be read.
    """
    with open_source(source) as opened:
        return describe_source(opened)


def describe_source(source: ByteSource) -> dict[str, Any]:
    """Return name, length, modification time, and a digest of the first and last MiB of a file.

    Returns:
        `name`, `bytes`, `mtime_ns` and `sha256`, the keys of `info["source"]`.

    Raises:
        OSError: it cannot be read.
        SourceError: likewise, of a file elsewhere.
    """
    source.prefetch([(0, _DIGEST_BYTES), (max(_DIGEST_BYTES, source.size - _DIGEST_BYTES), source.size)])
    digest = hashlib.sha256(source.read_at(0, _DIGEST_BYTES))
    if source.size > _DIGEST_BYTES:
        digest.update(source.read_at(max(_DIGEST_BYTES, source.size - _DIGEST_BYTES), _DIGEST_BYTES))
    return {"name": source.name, "bytes": source.size, "mtime_ns": source.mtime_ns, "sha256": digest.hexdigest()}


def has_changed(source: ByteSource, identity: dict[str, Any]) -> bool:
    """Return whether what is stored there now differs from what was opened.

    Args:
        source: the opened file.
        identity: what `describe_source` returned for it.

    Raises:
        SourceError: nothing can be opened there now.
        OSError: it cannot be read.
    """
    with source.reopen() as again:
        if isinstance(source, LocalFile) and isinstance(again, LocalFile) and source.is_same_version(again):
            return False
        return describe_source(again) != identity
