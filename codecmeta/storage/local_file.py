"""Local file as a byte source."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from codecmeta.errors import SourceError


class LocalFile:
    """Regular file that is opened for reading, see `ByteSource`.

    Args:
        path: the file.

    Raises:
        SourceError: it is no regular file that can be read, or is empty.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._descriptor = _open_regular(self.path)
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        self.mtime_ns = status.st_mtime_ns
        self._version = status.st_dev, status.st_ino, self.size, self.mtime_ns, status.st_ctime_ns

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    @property
    def is_local(self) -> bool:
        """True, see `ByteSource`."""
        return True

    def read_at(self, position: int, length: int) -> bytes:
        """Return bytes from a position on, see `ByteSource`."""
        return os.pread(self._descriptor, length, position)

    def read_each(self, positions: Sequence[int], length: int) -> list[bytes]:
        """Return bytes from each of some positions on, see `ByteSource`."""
        read, descriptor = os.pread, self._descriptor
        return [read(descriptor, length, position) for position in positions]

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Do nothing: the system reads ahead."""

    def fetch_all(self) -> None:
        """Do nothing: it is here."""

    def open_input(self) -> str:
        """Return the URL by which libav opens the file."""
        # without the prefix, a name such as `clip:01.mp4` is parsed as a protocol
        return f"file:{os.fspath(self.path)}"

    def reopen(self) -> LocalFile:
        """Open what the path leads to now."""
        return LocalFile(self.path)

    def is_same_version(self, other: LocalFile) -> bool:
        """Return whether another is the same file, unchanged: the system sets the time of a change (ctime) itself."""
        return self._version == other._version

    def describe_access(self) -> dict[str, Any]:
        """Return {}: a local file."""
        return {}

    def check(self) -> None:
        """Do nothing: reads that fail raise."""

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_regular(path: Path) -> int:
    """Open a file after checking that it is one: opening a device or a pipe may block, or have effects."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode) and not os.access(path, os.R_OK):
            raise SourceError("permission_denied", "a folder that cannot be listed")
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("not_a_file", "not a regular file")
        if status.st_size == 0:
            raise SourceError("unreadable", "the file is empty")
    except FileNotFoundError as error:
        raise SourceError("not_a_file", "no such file") from error
    except PermissionError as error:
        raise SourceError("permission_denied", "permission denied") from error
    except (OSError, ValueError) as error:
        raise SourceError("not_a_file", f"cannot be found ({error})") from error
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except PermissionError as error:
        raise SourceError("permission_denied", "permission denied") from error
    except OSError as error:
        raise SourceError("unreadable", f"cannot be opened ({error.strerror or error})") from error
