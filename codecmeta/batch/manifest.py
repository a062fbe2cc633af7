"""The manifest of an output folder: one line of JSON per video that was done, checked again, or failed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

MANIFEST = "manifest.jsonl"
_PLACE = b'{"place": "'
_PLACE_END = b'", "'
_MAX_LINE = 1 << 22


class Manifest:
    """Lines are only ever appended; the last line of a place counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / MANIFEST
        self._ends_whole = True
        # hashes and offsets, not lines: a manifest may be millions of lines long
        self._offsets: dict[int, int] = {}
        self._reader: BinaryIO | None = None

    def read(self) -> None:
        """Find the last line of every place."""
        offset = 0
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            for line in file:
                if line.startswith(_PLACE):
                    self._offsets[hash(line[len(_PLACE) : line.find(_PLACE_END, len(_PLACE))])] = offset
                offset += len(line)
                self._ends_whole = line.endswith(b"\n")

    def find(self, place: str) -> dict[str, Any] | None:
        """The last line of a place, as it was when the manifest was read; None without one that can be read."""
        offset = self._offsets.get(hash(json.dumps(place)[1:-1].encode()))
        if offset is None:
            return None
        try:
            if self._reader is None:
                self._reader = self._path.open("rb")
            self._reader.seek(offset)
            line = json.loads(self._reader.readline(_MAX_LINE).decode("ascii"))
        except (OSError, ValueError, RecursionError):
            return None
        return line if isinstance(line, dict) and line.get("place") == place else None

    def close(self) -> None:
        """Let go of the file."""
        if self._reader is not None:
            self._reader.close()

    def append(self, place: str | None, facts: dict[str, Any]) -> None:
        """Add a line, in one piece, so that runs on the same folder do not mix theirs.

        A line without a place says nothing about a record.

        The file, and its folder, are made again where they have been deleted meanwhile.

        Raises:
            OSError: it cannot be written.
        """
        named = facts if place is None else {"place": place, **facts}
        line = json.dumps(named, ensure_ascii=True).encode() + b"\n"
        if not self._ends_whole:
            # the run before was killed in the middle of a line
            line = b"\n" + line
            self._ends_whole = True
        self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            while line:
                line = line[os.write(file, line) :]
        finally:
            os.close(file)


def read_manifest(folder: Path) -> Iterator[dict[str, Any]]:
    """The last readable line of every place of a folder's manifest, in their order; none without a manifest.

    Raises:
        OSError: it cannot be read.
    """
    last: dict[str, dict[str, Any]] = {}
    with suppress(FileNotFoundError), (folder / MANIFEST).open("rb") as file:
        for text in file:
            with suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict) and isinstance(line.get("place"), str):
                    last.pop(line["place"], None)
                    last[line["place"]] = line
    yield from last.values()
