"""Bytes in memory as a byte source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from codecmeta.errors import SourceError
from codecmeta.storage.source_view import SourceView


class HeldBytes:
    """Video whose bytes are held in memory, see `ByteSource`.

    Args:
        data: all of its bytes.

    Raises:
        SourceError: there are none.
    """

    name = "bytes in memory"
    mtime_ns = 0
    is_local = True

    def __init__(self, data: bytes) -> None:
        if not data:
            raise SourceError("unreadable", "no bytes are given")
        self._data = data
        self.size = len(data)

    def read_at(self, position: int, length: int) -> bytes:
        """Return bytes from a position on, see `ByteSource`."""
        return self._data[position : position + length]

    def read_each(self, positions: Sequence[int], length: int) -> list[bytes]:
        """Return bytes from each of some positions on, see `ByteSource`."""
        data = self._data
        return [data[position : position + length] for position in positions]

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Do nothing: the bytes are here."""

    def fetch_all(self) -> None:
        """Do nothing: the bytes are here."""

    def open_input(self) -> BinaryIO:
        """Return a file object at the first byte."""
        view = memoryview(self._data)
        return cast(
            BinaryIO, SourceView(self.name, self.size, lambda position, length: view[position : position + length])
        )

    def reopen(self) -> HeldBytes:
        """Return the same: bytes do not change."""
        return self

    def describe_access(self) -> dict[str, Any]:
        """Return {}: nothing is elsewhere."""
        return {}

    def check(self) -> None:
        """Do nothing: no read fails."""

    def close(self) -> None:
        """Do nothing: whoever gave the bytes keeps them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
