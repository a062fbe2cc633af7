"""Remote file as a byte source: an object of a store, read by ranges that are kept, or copied to a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any, BinaryIO, Self, cast

from codecmeta.errors import SourceError
from codecmeta.storage.address import name_of
from codecmeta.storage.object_store import ObjectStore
from codecmeta.storage.range_cache import RangeCache
from codecmeta.storage.source_view import SourceView

WHOLE_BYTES = 8 << 20
"""Size up to which a file is copied at once: that takes less time than the requests for its parts."""

_KEPT_BYTES = 64 << 20
_AHEAD_BYTES = 32 << 20
"""Bytes of ranges that are kept, and that are read ahead at once."""

_QUANTUM = 1 << 10
_NEAR = 4 << 10
_PART = 8 << 20
_FIRST_WINDOW, _LAST_WINDOW = 64 << 10, 4 << 20
_CONNECTIONS = 8


class RemoteFile:
    """Object of a store that is opened for reading, see `ByteSource`.

    Args:
        url: of the object.
        store: its store.
        key: its key there.
        most_bytes: size up to which it may be copied to this machine.

    Raises:
        SourceError: there is none, it is empty, or it cannot be reached.
    """

    def __init__(self, url: str, store: ObjectStore, key: str, *, most_bytes: int) -> None:
        self._url = url
        self._store = store
        self._key = key
        self._most_bytes = most_bytes
        self._cache = RangeCache(_KEPT_BYTES)
        self._copy: IO[bytes] | None = None
        self._owns_copy = True
        self._pool: ThreadPoolExecutor | None = None
        self._failure: SourceError | None = None
        self._demanded, self._window = -1, _FIRST_WINDOW
        self._received = self._requests = 0
        self.state = store.stat(key)
        if self.state.size == 0:
            raise SourceError("unreadable", "the file is empty")
        self.size = self.state.size
        if self.size < 0:
            self.fetch_all()

    @property
    def name(self) -> str:
        """The last part of its path."""
        return name_of(self._url)

    @property
    def mtime_ns(self) -> int:
        """When it was last modified, see `ByteSource`."""
        return self.state.mtime_ns

    @property
    def is_local(self) -> bool:
        """Whether it has been copied to this machine."""
        return self._copy is not None

    def read_at(self, position: int, length: int) -> bytes:
        """Return bytes from a position on, see `ByteSource`."""
        end = min(position + length, self.size)
        if position < 0 or end <= position:
            return b""
        if self._copy is None and not self.state.ranges:
            self.fetch_all()
        if self._copy is not None:
            return os.pread(self._copy.fileno(), end - position, position)
        if end - position > _AHEAD_BYTES:
            return b"".join(data for _, data in self._receive([(position, end)]))
        parts: list[bytes | memoryview] = []
        while position < end:
            part = self._cache.find(position, end - position)
            if not part:
                self._demand(position, end)
                part = self._cache.find(position, end - position)
            parts.append(part)
            position += len(part)
        return b"".join(parts)

    def read_each(self, positions: Sequence[int], length: int) -> list[bytes]:
        """Return bytes from each of some positions on, see `ByteSource`."""
        self.prefetch((position, position + max(length, _QUANTUM)) for position in positions)
        return [self.read_at(position, length) for position in positions]

    def _read_some(self, position: int, length: int) -> bytes | memoryview:
        """Return what has been read already, even if it is less than requested: libav asks again if it needs more."""
        found = self._cache.find(position, length) if self._copy is None else memoryview(b"")
        try:
            return found or self.read_at(position, length)
        except SourceError:
            # PyAV prints what is raised here, and goes on; `check` raises it again
            return b""

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Read ranges in as few requests as possible, several at a time, see `ByteSource`."""
        if self._copy is not None or not self.state.ranges:
            return
        joined: list[tuple[int, int]] = []
        for begin, end in sorted((max(begin, 0), min(end, self.size)) for begin, end in ranges):
            if end <= begin:
                continue
            if joined and begin - joined[-1][1] <= _NEAR:
                joined[-1] = joined[-1][0], max(joined[-1][1], end)
            else:
                joined.append((begin, end))
        gaps: list[tuple[int, int]] = []
        left = _AHEAD_BYTES
        for begin, end in joined:
            for first, last in self._list_gaps(begin, end):
                if left > 0:
                    gaps.append((first, min(last, first + left)))
                    left -= last - first
        for begin, data in self._receive(gaps):
            self._cache.add(begin, data)

    def _demand(self, begin: int, end: int) -> None:
        """Make bytes available, and, where they are read one after the other, those that follow."""
        gaps = self._list_gaps(begin, end)
        if not gaps:
            return
        if self._demanded <= gaps[0][0] <= self._demanded + _NEAR:
            self._window = min(2 * self._window, _LAST_WINDOW)
            last = min(max(end, gaps[-1][0] + self._window), self.size)
            gaps = self._list_gaps(begin, last)
        else:
            self._window = _FIRST_WINDOW // 2
        for start, data in self._receive(gaps):
            self._cache.add(start, data)
        self._demanded = gaps[-1][1]

    def _list_gaps(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Return what is not kept of a range, in whole quanta where that overlaps nothing that is."""
        whole = begin // _QUANTUM * _QUANTUM, min(-(-end // _QUANTUM) * _QUANTUM, self.size)
        return self._cache.list_gaps(*whole)

    def _receive(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, bytes]]:
        """Read ranges from the store, large ones in parts, several at a time."""
        parts = [(at, min(at + _PART, end)) for begin, end in ranges for at in range(begin, end, _PART)]
        self.check()

        def read(part: tuple[int, int]) -> bytes:
            return self._store.read(self._key, *part, self.state)

        try:
            found = [read(parts[0])] if len(parts) == 1 else list(self._threads().map(read, parts)) if parts else []
        except SourceError as error:
            self._failure = error
            raise
        self._requests += len(parts)
        self._received += sum(map(len, found))
        return [(part[0], data) for part, data in zip(parts, found, strict=True)]

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_CONNECTIONS)
        return self._pool

    def fetch_all(self) -> None:
        """Copy the file to an unnamed temporary file, see `ByteSource`."""
        if self._copy is not None:
            return
        self.check()
        if self.size > self._most_bytes:
            raise SourceError(
                "limit_exceeded",
                f"it can only be read whole, and has {self.size} bytes; allowed are {self._most_bytes}",
            )
        copy = cast("IO[bytes]", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - closed with this
        try:
            if self.state.ranges:
                step = _CONNECTIONS * _PART
                for begin in range(0, self.size, step):
                    for at, data in self._receive([(begin, min(begin + step, self.size))]):
                        _write_at(copy.fileno(), data, at)
            else:
                self._copy_stream(copy)
        except BaseException as error:
            copy.close()
            if isinstance(error, SourceError):
                self._failure = error
            if isinstance(error, OSError):
                folder = tempfile.gettempdir()
                raise SourceError(
                    "limit_exceeded", f"its copy cannot be written to {folder} ({error.strerror}); set TMPDIR"
                ) from error
            raise
        self._copy = copy

    def _copy_stream(self, copy: IO[bytes]) -> None:
        self._requests += 1
        copied = 0
        for part in self._store.stream(self._key, self.state):
            self._received += len(part)
            copied += len(part)
            if copied > self._most_bytes:
                raise SourceError("limit_exceeded", f"it has more than the {self._most_bytes} bytes that may be copied")
            _write_at(copy.fileno(), part, copied - len(part))
        self.size = copied
        if self.size == 0:
            raise SourceError("unreadable", "the file is empty")

    def open_input(self) -> BinaryIO:
        """Return a file object."""
        if self.size <= WHOLE_BYTES or not self.state.ranges:
            self.fetch_all()
        return cast(BinaryIO, SourceView(self.name, self.size, self._read_some))

    def reopen(self) -> RemoteFile:
        """Open what is stored there now; what has been read is shared if it is the same version."""
        again = RemoteFile(self._url, self._store, self._key, most_bytes=self._most_bytes)
        if again.state == self.state:
            again._cache = self._cache
            if again._copy is None and self._copy is not None:
                again._copy, again._owns_copy, again.size = self._copy, False, self.size
        return again

    def describe_access(self) -> dict[str, Any]:
        """Describe how the file was read, see `ByteSource`."""
        access = "copy" if self.is_local else "ranges"
        return {
            "version": self.state.version,
            "access": access,
            "bytes_read": self._received,
            "requests": self._requests,
        }

    def check(self) -> None:
        """Raise the error of a read that failed, see `ByteSource`."""
        if self._failure is not None:
            raise SourceError(self._failure.code, str(self._failure)) from self._failure

    def close(self) -> None:
        """End the threads and remove the copy."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._copy is not None and self._owns_copy:
            self._copy.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write_at(descriptor: int, data: bytes, position: int) -> None:
    """Write all bytes: a disk that becomes full takes some of them without an error."""
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, position)
        left, position = left[written:], position + written
