"""Inputs of a batch: the videos of SOURCE arguments, and the places of their metadata."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, TextIO

import numpy as np

from codecmeta.batch.shards import Shard
from codecmeta.container.formats import FORMATS
from codecmeta.errors import SourceError, UsageError
from codecmeta.picture_folder import holds_pictures
from codecmeta.storage.address import is_url, name_of
from codecmeta.storage.object_store import ObjectState
from codecmeta.storage.objects import stat_object
from codecmeta.storage.stores import open_store

SUFFIX = ".npz"
MAX_NAME_BYTES = 255

EXTENSIONS = frozenset(extension for one in FORMATS for extension in one.extensions)
"""File name extensions that mark videos in a folder; files that are named explicitly are always taken."""


class Input(NamedTuple):
    """Video and the place of its metadata below the output folder, with `/` between the parts."""

    # strings, not paths: there may be millions
    path: str
    place: str
    state: tuple[int, int] | None = None
    """Length and modification time in nanoseconds, if a listing gave them."""


@dataclass(frozen=True)
class _Named:
    """Given path, and whether it is a folder to be searched."""

    path: str
    folder: bool = False


class Inputs:
    """Videos that SOURCE arguments lead to; each iteration lists them again, and stores none of them.

    Attributes:
        total: number of videos in the shard given to `start_counting`, once counted; None before.
    """

    def __init__(self, sources: Sequence[str], out: Path | str, typed: IO[str] | None, *, null: bool) -> None:
        self._sources = sources
        self._out = out
        self._typed = typed
        self._null = null
        self._longest = MAX_NAME_BYTES if isinstance(out, str) else _longest_name(out)
        self._prefixes: dict[str, bool] = {}
        # all names are read first, since the last may equal the first
        self._parents = _shared_names(lambda: (one.path for one in self._expand() if not one.folder))
        self.total: int | None = None

    def start_counting(self, shard: Shard) -> None:
        """Count `total` in a thread of its own, which ends with the process."""
        threading.Thread(target=self._count, args=(shard,), daemon=True).start()

    def _count(self, shard: Shard) -> None:
        # what cannot be listed is reported when its turn comes
        with suppress(OSError, ValueError):
            if shard.count > 1:
                self.total = sum(shard.has(item.place) for item in self)
            else:
                # the names do not matter
                self.total = sum(self._count_videos(one) for one in self._expand())

    def _count_videos(self, one: _Named) -> int:
        if not one.folder:
            return 1
        if is_url(one.path):
            return sum(1 for _ in _list_videos(one.path))
        return sum(len(names) for _, names in _walk(one.path, self._out, []))

    def __iter__(self) -> Iterator[Input]:
        longest = self._longest
        for one in self._expand():
            if one.folder and is_url(one.path):
                start = len(one.path.rstrip("/")) + 1
                for path, state in _list_videos(one.path):
                    place = output_place(path[start:], longest=longest)
                    yield Input(path, place, (state.size, state.mtime_ns))
            elif one.folder:
                folder = one.path.rstrip("/") or "/"
                start = len(folder.rstrip("/")) + 1
                for path in _search(folder, self._out):
                    yield Input(path, output_place(path[start:], longest=longest))
            else:
                parent = self._parents.get(_name(one.path))
                place = _name(one.path) if parent is None else os.path.relpath(_rooted(one.path), parent)
                yield Input(one.path, output_place(place, longest=longest))

    def _expand(self) -> Iterator[_Named]:
        for source in self._sources:
            if source == "-" and self._typed is not None:
                yield from self._read_list(self._typed.name)
            elif _is_list(source):
                yield from self._read_list(source[1:])
            elif _is_pattern(source):
                yield from (self._name_folder(match) for match in _matches(source))
            else:
                yield self._name_folder(source)

    def _name_folder(self, path: str) -> _Named:
        """Return a folder to search, unless it is one video itself: pictures, and no video below it."""
        if is_url(path):
            if path not in self._prefixes:
                self._prefixes[path] = _is_prefix(path)
            return _Named(path, self._prefixes[path])
        search = Path(path).is_dir() and not (holds_pictures(path) and next(_search(path, self._out), None) is None)
        return _Named(path, search)

    def _read_list(self, path: str) -> Iterator[_Named]:
        with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="" if self._null else None) as lines:
            for line in _split_null(lines) if self._null else lines:
                if name := line if self._null else line.rstrip("\r\n"):
                    yield _Named(name)


def find_inputs(sources: Sequence[str], *, out: Path | str, stdin: TextIO | None, null: bool = False) -> Inputs:
    """Expand SOURCE arguments, in order, after checking that each leads to something.

    Args:
        sources: files, folders (searched for videos, without following links to folders; one that holds pictures, and
            no video below it, is taken as one video), globs, `@list.txt` with one path per line, or `-` for such a list
            on standard input; URLs of videos, and of buckets and prefixes (searched).
        out: the output folder; videos inside it are ignored.
        stdin: where `-` reads from, None if it is closed.
        null: the paths of lists end with NUL instead of a line break.

    Returns:
        Videos. One found in a folder is placed by its path below that folder. One given as an argument, by a glob or in
        a list is placed by its name; those that share a name, by their paths below the deepest folder that contains
        them all.

    Raises:
        UsageError: a source is empty; a folder, list or glob does not exist or holds nothing.
    """
    for source in sources:
        _check(source, out)
    typed = None
    if "-" in sources:
        if stdin is None:
            raise UsageError("standard input is closed; - reads a list of videos from it")
        # a file, since it is read more than once
        typed = tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
        shutil.copyfileobj(stdin, typed)
        typed.flush()
    return Inputs(sources, out, typed, null=null)


def _check(source: str, out: Path | str) -> None:
    if not source:
        # "" means the current folder for paths, but an unset variable in a script
        raise UsageError("a SOURCE is empty; for the current folder write .")
    if source == "-":
        return
    if is_url(source):
        _check_url(source)
    elif _is_list(source):
        try:
            Path(source[1:]).open("rb").close()
        except OSError as error:
            raise UsageError(f"list {source[1:]!r} cannot be read ({error.strerror})") from error
    elif Path(source).is_dir():
        if not holds_pictures(source) and next(_search(source, out), None) is None:
            raise UsageError(f"folder {source!r} holds no file with the extension of a video")
    elif _is_pattern(source) and not _matches(source):
        raise UsageError(f"nothing matches {source!r}")


def _check_url(url: str) -> None:
    open_store(url)
    if _is_prefix(url) and next(_list_videos(url), None) is None:
        raise UsageError(
            f"{url!r} is no object, and no key below it has the extension of a video; globs are not expanded"
        )


def _is_prefix(url: str) -> bool:
    """Return whether a URL names a bucket or a prefix of keys instead of an object."""
    if url.lower().startswith("http"):
        return False
    _, key = open_store(url)
    if not key or url.endswith("/"):
        return True
    try:
        return stat_object(url) is None
    except SourceError as error:
        raise UsageError(f"{url!r}: {error}") from error


def _list_videos(url: str) -> Iterator[tuple[str, ObjectState]]:
    """Yield the URLs of the videos of a bucket or prefix as its store lists them."""
    store, key = open_store(url)
    prefix = f"{key.rstrip('/')}/" if key else ""
    base = url.rstrip("/")
    try:
        for one in store.list(prefix):
            if _is_video(one.key):
                yield f"{base}/{one.key[len(prefix) :]}", one.state
    except SourceError as error:
        raise UsageError(f"{url!r} cannot be listed: {error}") from error


def _is_video(name: str) -> bool:
    """Return whether a file or key has the extension of a video; of a name such as `.mp4`, that is none."""
    # as os.path.splitext does it, in half the time
    stem, dot, extension = name.rpartition(".")
    return (dot + extension).lower() in EXTENSIONS and stem.rstrip(".")[-1:] not in ("", "/")


def _rooted(path: str) -> str:
    """Return an absolute path, or a URL as one, without a query."""
    return f"/{path.partition('?')[0] if path.lower().startswith('http') else path}" if is_url(path) else path


def _is_list(source: str) -> bool:
    return source.startswith("@") and not Path(source).exists()


def _is_pattern(source: str) -> bool:
    return not os.path.lexists(source) and glob.has_magic(source)


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns


def _split_null(file: IO[str]) -> Iterator[str]:
    rest = ""
    while block := file.read(1 << 16):
        *whole, rest = (rest + block).split("\0")
        yield from whole
    yield rest


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path, without `..`; links are not followed. A URL is returned as it is."""
    if is_url(path):
        return path
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links, and a list may be millions long


class AbsolutePaths:
    """Absolute paths of files that follow one another, many of them in the same folder; see `absolute_path`."""

    def __init__(self) -> None:
        self._folder = self._absolute = ""

    def of(self, path: str) -> str:
        """Return the absolute path of a file."""
        name = path[path.rfind("/") + 1 :]
        folder = path[: len(path) - len(name)]
        if name in ("", ".", ".."):
            return absolute_path(path)
        if folder != self._folder or not self._absolute:
            self._folder, self._absolute = folder, absolute_path(path).removesuffix(name)
        return self._absolute + name


def _name(path: str) -> str:
    """Return the last part of a path; / or .. has none, and cannot be read either."""
    if is_url(path):
        return name_of(path)
    name = os.path.basename(os.path.normpath(path))  # noqa: PTH119
    return "" if name in (".", "..") else name


def _shared_names(paths: Callable[[], Iterable[str]]) -> dict[str, str]:
    """Return the names that several files share, and the deepest folder that contains all files of a name."""
    # hashes, not names: a list may be millions long
    hashes, counts = np.unique(np.array(array("q", (hash(_name(path)) for path in paths()))), return_counts=True)
    twice = set(hashes[counts > 1].tolist())
    if not twice:
        return {}
    files: dict[str, set[str]] = {}
    for path in paths():
        if (name := _name(path)) and hash(name) in twice:
            files.setdefault(name, set()).add(_rooted(absolute_path(path)))
    return {name: os.path.commonpath(group) for name, group in files.items() if len(group) > 1}


def _search(folder: str, out: Path | str) -> Iterator[str]:
    """Yield the videos of a folder; then folders that cannot be listed, each to fail like an unreadable video."""
    closed: list[OSError] = []
    for here, names in _walk(folder, out, closed):
        start = here if here.endswith("/") else here + "/"
        for name in sorted(names):
            yield start + name
    for error in closed:
        yield str(error.filename)


def _walk(folder: str, out: Path | str, closed: list[OSError]) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders below one, in order, and the videos of each; note those that cannot be listed."""
    avoid = None if isinstance(out, str) else out.resolve()
    for here, folders, files in os.walk(folder, onerror=closed.append):
        folders[:] = sorted(name for name in folders if Path(here, name).resolve() != avoid)
        yield here, [name for name in files if _is_video(name)]


def _longest_name(out: Path) -> int:
    """Return the longest name in bytes that the file system of a folder allows; the folder need not exist yet."""
    while not out.exists() and out != out.parent:
        out = out.parent
    with suppress(OSError, ValueError, AttributeError):
        return min(MAX_NAME_BYTES, os.pathconf(out, "PC_NAME_MAX"))
    return MAX_NAME_BYTES


def output_place(place: str, *, longest: int = MAX_NAME_BYTES) -> str:
    """Append `.npz`; replace names too long for a file system by their digests.

    Args:
        place: of a video, below the output folder.
        longest: bytes that a name may have.
    """
    whole = (place or "_") + SUFFIX
    if len(whole) <= longest and (whole.isascii() or len(os.fsencode(whole)) <= longest):
        return whole
    parts = whole.split("/")
    for number, part in enumerate(parts):
        raw = os.fsencode(part)
        if len(raw) > longest:
            last = number == len(parts) - 1
            raw = raw.removesuffix(SUFFIX.encode()) if last else raw
            parts[number] = hashlib.sha256(raw).hexdigest() + SUFFIX * last
    return "/".join(parts)
