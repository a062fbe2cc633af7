"""Opening of what a path names."""

from __future__ import annotations

import os

from codecmeta.storage.byte_source import ByteSource
from codecmeta.storage.local_file import LocalFile


def open_source(source: str | os.PathLike[str]) -> ByteSource:
    """Open a file for reading.

    Raises:
        SourceError: it cannot be read; `code` gives the reason.
    """
    return LocalFile(source)
