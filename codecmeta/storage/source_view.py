"""File object over a byte source, for libraries that read files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any


class SourceView(io.RawIOBase):
    """File object over a byte source.

    Args:
        name: by which libraries call it.
        size: its length in bytes.
        read_some: returns some bytes from a position on, at most so many; none at its end.
    """

    def __init__(self, name: str, size: int, read_some: Callable[[int, int], bytes | memoryview]) -> None:
        self.name = name
        self._size = size
        self._read_some = read_some
        self._at = 0

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: it can be sought in."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"seek to {base + offset}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read some of the bytes that follow."""
        view = memoryview(buffer).cast("B")
        data = self._read_some(self._at, min(len(view), max(self._size - self._at, 0)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
