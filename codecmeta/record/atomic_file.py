"""Atomic file replacement: a file appears completely or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY_FILES = ".codecmeta-*.tmp"
"""Glob of the names of files that are being written."""


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path`; on leaving, flush it to the disk and rename it.

    Args:
        path: the file, which need not exist.

    Raises:
        OSError: it cannot be written, or is not a regular file (a device, for example), which a rename would replace.
            No temporary file is left.
    """
    target = Path(path)
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(target.stat().st_mode):
            raise OSError(errno.EEXIST, "the path exists and is not a regular file; choose another", os.fspath(path))
    temporary = target.with_name(TEMPORARY_FILES.replace("*", secrets.token_hex(8)))
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
