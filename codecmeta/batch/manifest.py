"""Manifests of an output folder: one line of JSON per video that was done, checked again, or failed.

Each shard of the inputs has its own, so that machines that share the folder never write to the same file.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from codecmeta.batch.shards import Shard

MANIFEST = "manifest.jsonl"
MANIFESTS = "manifest*.jsonl"
"""Glob of the names of all manifests."""

_PLACE = b'{"place": "'
_PLACE_END = b'", "'
_MAX_LINE = 1 << 22
_OFFSET_BITS = 40
_MOST_OPEN = 64
"""Manifests that are open at a time: a folder below a URL has one for every minute of its runs."""
_NEAR = 12
"""Lines before and after the one found last that are searched first."""
_decode = json.JSONDecoder().raw_decode


class Manifest:
    """Append-only lines; the last line of a place is valid, in each of the manifests of a folder."""

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self._folder = folder
        self._path = folder / (shard or Shard()).file_name("manifest", ".jsonl")
        self._ends_whole = True
        self._files: list[Path] = []
        self._readers: dict[int, BinaryIO] = {}
        # sorted hashes of places, and file and offset of a line, not lines: a manifest may be millions of lines long
        self._keys = array("q")
        self._places = array("q")
        # those of one line only in the order of the lines, in which they are mostly searched
        self._lined_keys = array("q")
        self._lined_places = array("q")
        self._at = 0

    def read(self) -> None:
        """Find the last line of every place in each manifest of the folder."""
        # the manifest without a shard is read last
        self._files = sorted(self._folder.glob(MANIFESTS), key=lambda path: (path.name == MANIFEST, path.name))
        keys, places = array("q"), array("q")
        for number, path in enumerate(self._files):
            ends_whole = True
            with suppress(FileNotFoundError), path.open("rb") as file:
                offset = 0
                for line in file:
                    # a truncated line does not end like this
                    if line.startswith(_PLACE) and line.endswith((b"}\n", b"}")):
                        keys.append(_key(line))
                        places.append(number << _OFFSET_BITS | offset)
                    offset += len(line)
                    ends_whole = line.endswith(b"\n")
            if path == self._path:
                self._ends_whole = ends_whole

        self._keys, self._places = _select_last(keys, places)
        self._lined_keys, self._lined_places = _select_single(self._keys, self._places)
        self._at = 0

    def find(self, place: str) -> list[dict[str, Any]]:
        """Find the last line of a place in each manifest, as of the last `read`; unreadable lines are omitted."""
        lines = self._lines(hash(encode_basestring_ascii(place)[1:-1].encode()))
        return [line for line in map(self._line, lines) if line is not None and line.get("place") == place]

    def find_valid(self, place: str) -> dict[str, Any] | None:
        """Find the valid line of a place, see `read_manifest`; None without one."""
        return _choose(self.find(place))

    def _lines(self, key: int) -> array[int]:
        """Return file and offset of the last line of a place in each manifest."""
        first = max(self._at - _NEAR, 0)
        with suppress(ValueError):
            self._at = first + self._lined_keys[first : self._at + _NEAR].index(key)
            return self._lined_places[self._at : self._at + 1]
        begin = end = bisect_left(self._keys, key)
        while end < len(self._keys) and self._keys[end] == key:
            end += 1
        if end == begin + 1:
            self._at = bisect_left(self._lined_places, self._places[begin])
        return self._places[begin:end]

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Yield for every place the result of `find`, in the order of the manifests."""
        for number, path in enumerate(self._files):
            with suppress(FileNotFoundError), path.open("rb") as file:
                offset = 0
                for text in file:
                    here = number << _OFFSET_BITS | offset
                    offset += len(text)
                    if not text.startswith(_PLACE):
                        continue
                    found = self._lines(_key(text))
                    if found and here == found[-1]:
                        lines = [*map(self._line, found[:-1]), _parse(text)]
                        if whole := [line for line in lines if line is not None]:
                            yield whole

    def _line(self, place: int) -> dict[str, Any] | None:
        number, offset = place >> _OFFSET_BITS, place & (1 << _OFFSET_BITS) - 1
        try:
            reader = self._readers.get(number)
            if reader is None:
                if len(self._readers) == _MOST_OPEN:
                    self._readers.pop(next(iter(self._readers))).close()
                reader = self._readers[number] = self._files[number].open("rb")
            reader.seek(offset)
            return _parse(reader.readline(_MAX_LINE))
        except OSError:
            return None

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def append(self, place: str | None, facts: dict[str, Any]) -> None:
        """Append a line in one write, so that concurrent runs on the folder do not mix their lines.

        A line without a place says nothing about a record.

        The file, and its folder, are created again if they have been deleted in the meantime.

        Raises:
            OSError: it cannot be written.
        """
        line = encode_line(place, facts)
        if not self._ends_whole:
            # the previous run was killed in the middle of a line
            line = b"\n" + line
            self._ends_whole = True
        self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            while line:
                line = line[os.write(file, line) :]
        finally:
            os.close(file)


def encode_line(place: str | None, facts: dict[str, Any]) -> bytes:
    """Return the line of a place; one without a place says nothing about a record."""
    named = facts if place is None else {"place": place, **facts}
    return json.dumps(named, ensure_ascii=True).encode() + b"\n"


def choose_lines(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield the valid line of every place of manifests that are open, see `read_manifest`."""
    for lines in manifest:
        if (line := _choose(lines)) is not None:
            yield line


def _choose(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the line of several manifests that is valid."""
    return max(reversed(lines), key=_rank, default=None)


def _rank(line: dict[str, Any]) -> tuple[bool, bool]:
    # where two runs packed a record, one found that the other had moved it
    return line.get("status") in ("done", "kept"), "shard" in line


def _key(line: bytes) -> int:
    """Return the hash of the place in a line."""
    return hash(line[len(_PLACE) : line.find(_PLACE_END, len(_PLACE))])


def _select_last(keys: array[int], places: array[int]) -> tuple[array[int], array[int]]:
    """Sort lines, which come in the order of their places, by keys; keep the last of each key in each manifest."""
    if not keys:
        return keys, places
    unsorted = np.frombuffer(keys, np.int64)
    order = np.argsort(unsorted, kind="stable")
    key, place = unsorted[order], np.frombuffer(places, np.int64)[order]
    number = place >> _OFFSET_BITS
    last = np.append((key[1:] != key[:-1]) | (number[1:] != number[:-1]), True)
    return array("q", key[last].tobytes()), array("q", place[last].tobytes())


def _select_single(keys: array[int], places: array[int]) -> tuple[array[int], array[int]]:
    """Return the keys that are there once, and their places, in the order of the latter."""
    if not keys:
        return keys, places
    key, place = np.frombuffer(keys, np.int64), np.frombuffer(places, np.int64)
    new = np.append(True, key[1:] != key[:-1])
    single = np.flatnonzero(new & np.append(new[1:], True))
    order = single[np.argsort(place[single])]
    return array("q", key[order].tobytes()), array("q", place[order].tobytes())


def _parse(text: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        whole = text.decode("ascii")
        line, end = _decode(whole)
        if isinstance(line, dict) and isinstance(line.get("place"), str) and not whole[end:].strip():
            return line
    return None


def read_manifest(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the valid line of every place of a folder's manifests; none without a manifest.

    Where several manifests have a place, a line about a written record takes precedence over one about a failure, then
    one about a record in a shard, then the later by name; `manifest.jsonl` is the last.

    Raises:
        OSError: they cannot be read.
    """
    manifest = Manifest(folder)
    manifest.read()
    try:
        yield from choose_lines(manifest)
    finally:
        manifest.close()
