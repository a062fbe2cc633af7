"""AVI chunk structure: whether chunks join, and whether each stream's chunks agree with header and index.

libav follows the entries of the index, or searches for what looks like a chunk, and skips the rest silently.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

from codecmeta.container.file_window import FileWindow
from codecmeta.storage.byte_source import ByteSource

_LISTS = frozenset((b"RIFF", b"LIST"))
_MOST_CHUNKS = 1 << 26
_BETWEEN = frozenset((b"JUNK", b"PAD ", b"idx1", b"indx", b"LIST"))
_HEAD = struct.Struct("<4sI")


@dataclass(kw_only=True)
class AviStructure:
    """Result of a walk over all chunks of a file.

    Attributes:
        announced: length that each stream's header gives, in frames for video.
        chunks: chunks with content per stream.
        empty: chunks without content per stream, which stand for frames that were dropped.
        covered: chunks per stream in the first RIFF list, which the index covers.
        indexed: entries of the index per stream; empty without an index.
        fault: description of the first place where chunks do not join or differ from the index; None in a sound file.
    """

    announced: list[int] = field(default_factory=list)
    chunks: Counter[int] = field(default_factory=Counter)
    empty: Counter[int] = field(default_factory=Counter)
    covered: Counter[int] = field(default_factory=Counter)
    indexed: Counter[int] = field(default_factory=Counter)
    fault: str | None = None

    def missing(self, stream: int) -> str | None:
        """Return evidence that frames of a stream are missing, or None."""
        found = self.chunks[stream] + self.empty[stream]
        announced = self.announced[stream] if stream < len(self.announced) else 0
        if self.indexed and self.indexed[stream] != self.covered[stream]:
            return f"the index lists {self.indexed[stream]} frames, {self.covered[stream]} are present"
        # an index that agrees with all chunks is better evidence than a number in the header
        if (not self.indexed or found > self.covered[stream]) and announced > found:
            return f"the header announces {announced} frames, {found} are present"
        return None


class _BrokenError(Exception):
    pass


def read_structure(source: ByteSource) -> AviStructure:
    """Walk all chunks of a file until they no longer join."""
    found = AviStructure()
    try:
        _walk(FileWindow(source), found)
    except _BrokenError as error:
        found.fault = str(error)
    return found


def _walk(data: FileWindow, found: AviStructure) -> None:
    size, at, count = len(data), 0, 0
    # ends of the open lists; their own content is walked through in line
    open_lists: list[tuple[int, bytes]] = []
    index: tuple[int, int] | None = None
    movie, riffs, places = -1, 0, set[tuple[bytes, int, int]]()
    while at + 8 <= size:
        while open_lists and at >= open_lists[-1][0]:
            open_lists.pop()
        if not open_lists and at and data.read(at, 4) != b"RIFF":
            break
        head = data.read(at, 8)
        if len(head) < 8:
            raise _BrokenError(f"the file ends at byte {at}")
        kind, length = _HEAD.unpack(head)
        begin, end = at + 8, at + 8 + length
        limit = open_lists[-1][0] if open_lists else size
        if end > limit:
            raise _BrokenError(f"the chunk at byte {at} ends after the list that holds it")
        count += 1
        if count > _MOST_CHUNKS:
            raise _BrokenError(f"the file has more than {_MOST_CHUNKS} chunks")
        inside = open_lists[-1][1] if open_lists else b""
        if kind in _LISTS and length >= 4:
            name = data.read(begin, 4)
            riffs += kind == b"RIFF"
            if name == b"movi" and movie < 0:
                movie = begin
            open_lists.append((end, name if name != b"rec " else inside))
            at = begin + 4
            continue
        if inside == b"movi":
            stream = _stream_of(kind)
            if stream is not None:
                (found.chunks if length else found.empty)[stream] += 1
                if riffs == 1:
                    found.covered[stream] += 1
                    places.add((kind, at - movie, length))
            elif kind not in _BETWEEN and not (kind[:2] == b"ix" and kind[2:].isdigit()):
                raise _BrokenError(f"no chunk of the movie begins at byte {at}")
        elif kind == b"strh" and length >= 36:
            found.announced.append(int.from_bytes(data.read(begin + 32, 4), "little"))
        elif kind == b"idx1":
            index = begin, length // 16
        at = end + (length & 1)
    if index is not None:
        _compare_index(data, index, places, found)


def _stream_of(kind: bytes) -> int | None:
    """Return the number of the stream that a chunk such as b"00dc" belongs to."""
    return int(kind[:2]) if kind[:2].isdigit() and kind[2:].isalnum() else None


def _compare_index(
    data: FileWindow, index: tuple[int, int], places: set[tuple[bytes, int, int]], found: AviStructure
) -> None:
    """Count the entries of an index, and check that each points to a chunk that exists."""
    begin, count = index
    first: int | None = None
    entries = data.read(begin, 16 * count)
    for kind, _, offset, length in struct.iter_unpack("<4sIII", entries[: len(entries) // 16 * 16]):
        stream = _stream_of(kind)
        if stream is None:
            continue
        if first is None:
            # offsets are relative to the movie list, or to the file
            first = 0 if (kind, offset, length) in places else offset - 4
        found.indexed[stream] += 1
        if found.fault is None and (kind, offset - first, length) not in places:
            found.fault = f"entry {found.indexed[stream]} of the index is no chunk of the movie"
