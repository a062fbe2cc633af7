"""SOURCE arguments -> videos and where their metadata goes."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TextIO

from codecmeta.errors import UsageError

SUFFIX = ".npz"
MAX_NAME_BYTES = 255

EXTENSIONS = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".qt",
        ".3gp",
        ".3g2",
        ".mkv",
        ".webm",
        ".avi",
        ".ts",
        ".m2ts",
        ".mts",
        ".mpg",
        ".mpeg",
        ".mpe",
        ".vob",
        ".m1v",
        ".m2v",
        ".flv",
        ".f4v",
        ".ogv",
        ".ogg",
        ".wmv",
        ".asf",
        ".ivf",
        ".264",
        ".h264",
        ".avc",
        ".265",
        ".h265",
        ".hevc",
        ".h263",
        ".obu",
        ".av1",
    }
)
"""Files of a folder with these endings are taken for videos; files that are named are always taken."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One video and the place of its metadata below the output folder."""

    path: Path
    place: PurePath


def find_inputs(sources: Sequence[str], *, out: Path, stdin: TextIO | None) -> Iterator[Input]:
    """Expand SOURCE arguments, in order, once all of them are known to lead to something.

    Args:
        sources: files, folders (searched for videos, without following links to folders), globs, `@list.txt` with one
            path per line, or `-` for such a list on standard input.
        out: the output folder; videos inside it are not taken.
        stdin: where `-` reads from, None if it is closed.

    Returns:
        Videos. One found in a folder is placed by its path below that folder; one that was named, be it as an
        argument, by a glob or in a list, by its path as given, without the root and without `..`.

    Raises:
        UsageError: a source is empty; a folder, list or glob does not exist or holds nothing.
    """
    for source in sources:
        _check(source, out)
    if "-" in sources and stdin is None:
        raise UsageError("standard input is closed; - reads a list of videos from it")
    return _expand(sources, out, stdin or ())


def _check(source: str, out: Path) -> None:
    if not source:
        # the current folder by the rules of paths, but an unset variable in a script
        raise UsageError("a SOURCE is empty; for the current folder write .")
    if source == "-":
        return
    if source.startswith("@") and not Path(source).exists():
        try:
            Path(source[1:]).open("rb").close()
        except OSError as error:
            raise UsageError(f"list {source[1:]!r} cannot be read ({error.strerror})") from error
    elif Path(source).is_dir():
        if next(_from_folder(Path(source), out), None) is None:
            raise UsageError(f"folder {source!r} holds no file with the ending of a video")
    elif not os.path.lexists(source) and glob.has_magic(source) and not _matches(source):
        raise UsageError(f"nothing matches {source!r}")


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns


def _expand(sources: Iterable[str], out: Path, stdin: Iterable[str]) -> Iterator[Input]:
    for source in sources:
        if source == "-":
            yield from _from_list(stdin)
        elif source.startswith("@") and not Path(source).exists():
            with Path(source[1:]).open(encoding="utf-8", errors="surrogateescape") as lines:
                yield from _from_list(lines)
        elif Path(source).is_dir():
            yield from _from_folder(Path(source), out)
        elif not os.path.lexists(source) and glob.has_magic(source):
            for match in _matches(source):
                if Path(match).is_dir():
                    yield from _from_folder(Path(match), out)
                else:
                    yield _named(match)
        else:
            yield _named(source)


def _named(name: str) -> Input:
    whole = PurePath(os.path.normpath(name))
    place = PurePath(*[part for part in whole.parts if part not in (whole.anchor, "..")])
    return Input(path=Path(name), place=output_place(place))


def _from_list(lines: Iterable[str]) -> Iterator[Input]:
    for line in lines:
        name = line.rstrip("\r\n")
        if name:
            yield _named(name)


def _from_folder(folder: Path, out: Path) -> Iterator[Input]:
    avoid = out.resolve()
    closed: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=closed.append):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if (here / name).resolve() != avoid)
        for name in sorted(files):
            if PurePath(name).suffix.lower() in EXTENSIONS:
                path = here / name
                yield Input(path=path, place=output_place(path.relative_to(folder)))
    for error in closed:
        # it cannot be read like a video that cannot be read: it is told, and the others are done
        yield Input(path=Path(error.filename), place=output_place(Path(error.filename).relative_to(folder)))


def output_place(place: PurePath) -> PurePath:
    """Append `.npz`; a name that gets too long for a file system is replaced by its digest."""
    # a path such as / or .. has no name: nothing can be read from it, either
    parts = list(place.parts) or ["_"]
    raw = os.fsencode(parts[-1] + SUFFIX)
    if len(raw) > MAX_NAME_BYTES:
        parts[-1] = hashlib.sha256(os.fsencode(parts[-1])).hexdigest()
    return PurePath(*parts[:-1], parts[-1] + SUFFIX)
