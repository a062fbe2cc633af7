"""SOURCE arguments -> videos and where their metadata goes."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TextIO

import numpy as np

from codecmeta.container.formats import FORMATS
from codecmeta.errors import UsageError

SUFFIX = ".npz"
MAX_NAME_BYTES = 255

EXTENSIONS = frozenset(extension for one in FORMATS for extension in one.extensions)
"""Files of a folder with these endings are taken for videos; files that are named are always taken."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One video and the place of its metadata below the output folder."""

    path: Path
    place: PurePath


@dataclass(frozen=True)
class _Named:
    """A path that was given, and whether it is a folder to be searched."""

    path: str
    folder: bool = False


def find_inputs(sources: Sequence[str], *, out: Path, stdin: TextIO | None) -> Iterator[Input]:
    """Expand SOURCE arguments, in order, once all of them are known to lead to something.

    Args:
        sources: files, folders (searched for videos, without following links to folders), globs, `@list.txt` with one
            path per line, or `-` for such a list on standard input.
        out: the output folder; videos inside it are not taken.
        stdin: where `-` reads from, None if it is closed.

    Returns:
        Videos. One found in a folder is placed by its path below that folder. One that was named, be it as an
        argument, by a glob or in a list, is placed by its name; those that share a name, by their paths below the
        deepest folder that holds them all.

    Raises:
        UsageError: a source is empty; a folder, list or glob does not exist or holds nothing.
    """
    for source in sources:
        _check(source, out)
    if "-" in sources and stdin is None:
        raise UsageError("standard input is closed; - reads a list of videos from it")
    return _place_all(sources, out, stdin or io.StringIO())


def _check(source: str, out: Path) -> None:
    if not source:
        # the current folder by the rules of paths, but an unset variable in a script
        raise UsageError("a SOURCE is empty; for the current folder write .")
    if source == "-":
        return
    if _is_list(source):
        try:
            Path(source[1:]).open("rb").close()
        except OSError as error:
            raise UsageError(f"list {source[1:]!r} cannot be read ({error.strerror})") from error
    elif Path(source).is_dir():
        if next(_search(Path(source), out), None) is None:
            raise UsageError(f"folder {source!r} holds no file with the ending of a video")
    elif _is_pattern(source) and not _matches(source):
        raise UsageError(f"nothing matches {source!r}")


def _is_list(source: str) -> bool:
    return source.startswith("@") and not Path(source).exists()


def _is_pattern(source: str) -> bool:
    return not os.path.lexists(source) and glob.has_magic(source)


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns


def _place_all(sources: Sequence[str], out: Path, stdin: TextIO) -> Iterator[Input]:
    """Videos and their places; names are gone through twice, since the last may be that of the first."""
    longest = _longest_name(out)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="") as typed:
        if "-" in sources:
            shutil.copyfileobj(stdin, typed)
        parents = _shared_names(lambda: (one.path for one in _expand(sources, typed) if not one.folder))
        for one in _expand(sources, typed):
            if one.folder:
                folder = Path(one.path)
                for path in _search(folder, out):
                    yield Input(path=path, place=output_place(path.relative_to(folder), longest=longest))
            else:
                parent = parents.get(_name(one.path))
                place = _name(one.path) if parent is None else os.path.relpath(one.path, parent)
                yield Input(path=Path(one.path), place=output_place(PurePath(place), longest=longest))


def _expand(sources: Iterable[str], typed: TextIO) -> Iterator[_Named]:
    for source in sources:
        if source == "-":
            typed.seek(0)
            yield from _read_list(typed)
        elif _is_list(source):
            with Path(source[1:]).open(encoding="utf-8", errors="surrogateescape") as lines:
                yield from _read_list(lines)
        elif _is_pattern(source):
            yield from (_Named(match, Path(match).is_dir()) for match in _matches(source))
        else:
            yield _Named(source, Path(source).is_dir())


def _read_list(lines: Iterable[str]) -> Iterator[_Named]:
    for line in lines:
        if name := line.rstrip("\r\n"):
            yield _Named(name)


def absolute_path(path: str | os.PathLike[str]) -> str:
    """A path from the root, without `..`; links are not followed."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links, and a list may be millions long


def _name(path: str) -> str:
    """The last part of a path; a path such as / or .. has none, and nothing can be read from it, either."""
    name = os.path.basename(os.path.normpath(path))  # noqa: PTH119
    return "" if name in (".", "..") else name


def _shared_names(paths: Callable[[], Iterable[str]]) -> dict[str, str]:
    """The names that several files have, and the deepest folder that holds all files of a name."""
    # hashes, not names: a list may be millions long
    hashes, counts = np.unique(np.array(array("q", (hash(_name(path)) for path in paths()))), return_counts=True)
    twice = set(hashes[counts > 1].tolist())
    if not twice:
        return {}
    files: dict[str, set[str]] = {}
    for path in paths():
        if (name := _name(path)) and hash(name) in twice:
            files.setdefault(name, set()).add(absolute_path(path))
    return {name: os.path.commonpath(group) for name, group in files.items() if len(group) > 1}


def _search(folder: Path, out: Path) -> Iterator[Path]:
    """The videos of a folder; then folders that cannot be listed, each to fail like a video that cannot be read."""
    avoid = out.resolve()
    closed: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=closed.append):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if (here / name).resolve() != avoid)
        for name in sorted(files):
            if PurePath(name).suffix.lower() in EXTENSIONS:
                yield here / name
    for error in closed:
        yield Path(error.filename)


def _longest_name(out: Path) -> int:
    """Bytes of the longest name that the file system of a folder takes, which need not be there yet."""
    while not out.exists() and out != out.parent:
        out = out.parent
    with suppress(OSError, ValueError, AttributeError):
        return min(MAX_NAME_BYTES, os.pathconf(out, "PC_NAME_MAX"))
    return MAX_NAME_BYTES


def output_place(place: PurePath, *, longest: int = MAX_NAME_BYTES) -> PurePath:
    """Append `.npz`; names that get too long for a file system are replaced by their digests.

    Args:
        place: of a video, below the output folder.
        longest: bytes that a name may have.
    """
    parts = list(place.parts) or ["_"]
    parts[-1] += SUFFIX
    for number, part in enumerate(parts):
        raw = os.fsencode(part)
        if len(raw) > longest:
            last = number == len(parts) - 1
            raw = raw.removesuffix(SUFFIX.encode()) if last else raw
            parts[number] = hashlib.sha256(raw).hexdigest() + SUFFIX * last
    return PurePath(*parts)
