"""Random access to the bytes of a source, read one window at a time.

Not a memory map: a file that shrinks while it is mapped ends the process.
"""

from __future__ import annotations

import zlib

from codecmeta.storage.byte_source import ByteSource

_WINDOW = 1 << 18
_CHUNK = 1 << 20


class FileWindow:
    """Bytes of a source, up to its length when it was opened."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._begin = 0
        self._data = b""

    def __len__(self) -> int:
        return self._source.size

    def byte(self, at: int) -> int:
        """Return one byte.

        Raises:
            IndexError: the file ends before it.
        """
        offset = at - self._begin
        if not 0 <= offset < len(self._data):
            self._data = self._source.read_at(at, _WINDOW)
            self._begin, offset = at, 0
        return self._data[offset]

    def read(self, at: int, length: int) -> bytes:
        """Return bytes from a position on, fewer where the file ends."""
        offset = at - self._begin
        if not 0 <= offset <= len(self._data) - length:
            self._data = self._source.read_at(at, max(_WINDOW, length))
            self._begin, offset = at, 0
        return self._data[offset : offset + length]

    def checksum(self, begin: int, end: int) -> int:
        """Return the CRC-32 of a part (ISO 3309)."""
        value = 0
        while begin < end:
            part = self._source.read_at(begin, min(_CHUNK, end - begin))
            if not part:
                break
            value = zlib.crc32(part, value)
            begin += len(part)
        return value
