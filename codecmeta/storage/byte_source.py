"""Byte source of a video: its length, and reads at any position, wherever it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self


class ByteSource(Protocol):
    """Stored object that is opened for reading, up to its length when it was opened."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        ...

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    @property
    def mtime_ns(self) -> int:
        """When it was last modified, in nanoseconds since 1970; 0 where that is unknown."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether all bytes are on this machine, so that a read of a few bytes costs next to nothing."""
        ...

    def read_at(self, position: int, length: int) -> bytes:
        """Return bytes from a position on, fewer where the object ends.

        Raises:
            OSError: they cannot be read.
            SourceError: likewise, of an object that is not on this machine.
        """
        ...

    def read_each(self, positions: Sequence[int], length: int) -> list[bytes]:
        """Return bytes from each of some positions on, as `read_at` does, at once where that saves time."""
        ...

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Announce that bytes from the begin to the end of some ranges are going to be read."""
        ...

    def fetch_all(self) -> None:
        """Copy an object that is not on this machine to it.

        Raises:
            SourceError: it cannot be read, or is larger than allowed.
        """
        ...

    def open_input(self) -> str | BinaryIO:
        """Return what libav reads it from: a URL of a local file, or a file object at its begin."""
        ...

    def reopen(self) -> ByteSource:
        """Open again what is stored there now.

        Raises:
            SourceError: it cannot be opened.
        """
        ...

    def describe_access(self) -> dict[str, Any]:
        """Describe for a record's `info` how an object that is elsewhere was read; empty for a local file."""
        ...

    def check(self) -> None:
        """Raise the error of a read that failed, which the code that asked for the bytes may have ignored.

        Raises:
            SourceError: a read failed.
        """
        ...

    def close(self) -> None:
        """Close it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
