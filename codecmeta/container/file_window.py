"""Random access to the bytes of a file, read one window at a time.

Not a memory map: a file that shrinks while it is mapped ends the process.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WINDOW = 1 << 18
_CHUNK = 1 << 20


class FileWindow:
    """Bytes of an open file, up to its length when it was opened."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._begin = 0
        self._data = b""

    def __len__(self) -> int:
        return self._size

    def byte(self, at: int) -> int:
        """Return one byte.

        Raises:
            IndexError: the file ends before it.
        """
        offset = at - self._begin
        if not 0 <= offset < len(self._data):
            self._data = os.pread(self._descriptor, _WINDOW, at)
            self._begin, offset = at, 0
        return self._data[offset]

    def read(self, at: int, length: int) -> bytes:
        """Return bytes from a position on, fewer where the file ends."""
        offset = at - self._begin
        if not 0 <= offset <= len(self._data) - length:
            self._data = os.pread(self._descriptor, max(_WINDOW, length), at)
            self._begin, offset = at, 0
        return self._data[offset : offset + length]

    def checksum(self, begin: int, end: int) -> int:
        """Return the CRC-32 of a part (ISO 3309)."""
        value = 0
        while begin < end:
            part = os.pread(self._descriptor, min(_CHUNK, end - begin), begin)
            if not part:
                break
            value = zlib.crc32(part, value)
            begin += len(part)
        return value


@contextmanager
def open_window(path: Path) -> Iterator[FileWindow]:
    """Open a file for random access."""
    with path.open("rb") as file:
        yield FileWindow(file.fileno(), os.fstat(file.fileno()).st_size)
