"""Matroska and WebM structure: whether elements join, their checksums, and the blocks of each track.

libav skips what it cannot parse and silently continues at the next cluster.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from codecmeta.container import ebml
from codecmeta.container.file_window import FileWindow
from codecmeta.storage.byte_source import ByteSource

_SEGMENT = 0x18538067
_INFO, _TRACKS, _CLUSTER, _CUES = 0x1549A966, 0x1654AE6B, 0x1F43B675, 0x1C53BB6B
_CRC, _VOID = 0xBF, 0xEC
_TOP = frozenset((_INFO, _TRACKS, _CLUSTER, _CUES, 0x114D9B74, 0x1254C367, 0x1043A770, 0x1941A469, _CRC, _VOID))
_TIMESTAMP, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK, _BLOCK_DURATION = 0xE7, 0xA3, 0xA0, 0xA1, 0x9B
_IN_CLUSTER = frozenset((_TIMESTAMP, _SIMPLE_BLOCK, _BLOCK_GROUP, 0x5854, 0xA7, 0xAB, 0xAF, _CRC, _VOID))
_IN_GROUP = frozenset((_BLOCK, 0xA2, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8, 0xAF, _CRC, _VOID))
_NUMBERS = frozenset((_TIMESTAMP, 0xA7, 0xAB, _BLOCK_DURATION, 0xFA, 0xFB, 0xFD, 0x75A2))
"""Elements of clusters and groups that hold a number, of at most 8 bytes (RFC 8794, 7.1 and 7.2)."""

_TRACK_ENTRY, _TRACK_NUMBER, _TRACK_TYPE, _DEFAULT_DURATION = 0xAE, 0xD7, 0x83, 0x23E383
_TIMESTAMP_SCALE, _DURATION = 0x2AD7B1, 0x4489
_VIDEO = 1
_MOST_ELEMENTS = 1 << 26
_NUMBER_BYTES = 8


@dataclass(kw_only=True)
class MatroskaStructure:
    """Result of a walk over all elements of a segment.

    Attributes:
        video_tracks: numbers of the video tracks, in the order of the header.
        blocks: frames with content per track number.
        fault: description of the first place where elements do not join or a checksum is wrong; None in a sound file.
        duration: of the segment as its header announces it, in seconds; None where it announces none.
        end: time of the last block, with its duration where that is known, in seconds.
        pause: longest time between blocks of a video track that follow each other, in seconds.
    """

    video_tracks: list[int] = field(default_factory=list)
    blocks: Counter[int] = field(default_factory=Counter)
    fault: str | None = None
    duration: float | None = None
    end: float = 0.0
    pause: float = 0.0


class _BrokenError(Exception):
    pass


def read_structure(source: ByteSource) -> MatroskaStructure:
    """Walk all elements of a file until they no longer join."""
    walk = _Walk(FileWindow(source))
    try:
        walk.file()
    except _BrokenError as error:
        walk.found.fault = str(error)
    return walk.found


class _Walk:
    def __init__(self, data: FileWindow) -> None:
        self.data = data
        self.found = MatroskaStructure()
        self.scale = 1_000_000
        self.default_durations: dict[int, int] = {}
        self.tracks: set[int] = set()
        self.latest: dict[int, float] = {}
        self.elements = 0

    def next(self, at: int, end: int, inside: str) -> tuple[int, int | None, int, int]:
        """Return identifier, begin of the payload, its length, and where the next element begins."""
        self.elements += 1
        if self.elements > _MOST_ELEMENTS:
            raise _BrokenError(f"{inside} has more than {_MOST_ELEMENTS} elements")
        found = ebml.parse_head(self.data.read(at, ebml.HEAD_BYTES), at)
        if found is None:
            raise _BrokenError(f"no element of {inside} begins at byte {at}")
        identifier, begin, length = found
        if length is not None and begin + length > end:
            raise _BrokenError(f"the element at byte {at} ends after {inside}")
        if identifier in _NUMBERS and length is not None and length > _NUMBER_BYTES:
            raise _BrokenError(f"the number at byte {at} has {length} bytes, at most {_NUMBER_BYTES} are allowed")
        return identifier, length, begin, end if length is None else begin + length

    def file(self) -> None:
        """Walk all elements of the file up to the end of its segment."""
        size, at = len(self.data), 0
        while at < size:
            identifier, _, begin, after = self.next(at, size, "the file")
            if identifier == _SEGMENT:
                self.segment(begin, after)
                return
            at = after
        raise _BrokenError("the file has no segment")

    def segment(self, at: int, end: int) -> None:
        while at < end:
            identifier, length, begin, after = self.next(at, end, "the segment")
            if identifier not in _TOP:
                raise _BrokenError(f"no element of the segment begins at byte {at}")
            if identifier == _CLUSTER:
                after = self.cluster(begin, after, open_ended=length is None)
            elif length is not None and identifier not in (_VOID, _CRC):
                self.check_sum(begin, after)
                if identifier == _INFO:
                    self.info(begin, after)
                elif identifier == _TRACKS:
                    self.track_entries(begin, after)
            at = after

    def check_sum(self, begin: int, end: int) -> None:
        """Verify the checksum of a master element whose first child is a CRC-32 element (RFC 8794, 11.3.1)."""
        head = self.data.read(begin, 6)
        stored = int.from_bytes(head[2:], "little") if head[:2] == bytes((_CRC, 0x84)) else None
        if end - begin >= 6 and stored is not None and self.data.checksum(begin + 6, end) != stored:
            raise _BrokenError(f"the checksum of the element that ends at byte {end} is wrong")

    def info(self, at: int, end: int) -> None:
        duration = None
        while at < end:
            identifier, length, begin, after = self.next(at, end, "the segment's header")
            if identifier == _TIMESTAMP_SCALE:
                self.scale = self.number(begin, after) or 1_000_000
            elif identifier == _DURATION and length in (4, 8):
                duration = ebml.read_float(self.data.read(begin, length))
            at = after
        if duration is not None and 0 < duration < 1e15:
            self.found.duration = duration * self.scale / 1e9

    def number(self, begin: int, end: int) -> int:
        return int.from_bytes(self.data.read(begin, min(end - begin, _NUMBER_BYTES)), "big")

    def track_entries(self, at: int, end: int) -> None:
        while at < end:
            identifier, _, begin, after = self.next(at, end, "the list of tracks")
            if identifier == _TRACK_ENTRY:
                facts: dict[int, int] = {}
                inner = begin
                while inner < after:
                    name, _, first, inner = self.next(inner, after, "a track's header")
                    if name in (_TRACK_NUMBER, _TRACK_TYPE, _DEFAULT_DURATION):
                        facts[name] = self.number(first, inner)
                number = facts.get(_TRACK_NUMBER, 0)
                self.tracks.add(number)
                self.default_durations[number] = facts.get(_DEFAULT_DURATION, 0)
                if facts.get(_TRACK_TYPE) == _VIDEO:
                    self.found.video_tracks.append(number)
            at = after

    def cluster(self, begin: int, end: int, *, open_ended: bool) -> int:
        """Walk one cluster and return where it ends; the element that follows ends one of unknown length."""
        if not open_ended:
            self.check_sum(begin, end)
        at, time = begin, 0
        while at < end:
            identifier, length, first, after = self.next(at, end, "a cluster")
            if identifier in _TOP and identifier not in _IN_CLUSTER and open_ended:
                return at
            if identifier not in _IN_CLUSTER or length is None:
                raise _BrokenError(f"no element of a cluster begins at byte {at}")
            if identifier == _TIMESTAMP:
                time = self.number(first, after)
            elif identifier == _SIMPLE_BLOCK:
                self.block(first, after, time)
            elif identifier == _BLOCK_GROUP:
                self.group(first, after, time)
            at = after
        return end

    def group(self, at: int, end: int, time: int) -> None:
        place, duration = None, None
        while at < end:
            identifier, length, first, after = self.next(at, end, "a group of blocks")
            if identifier not in _IN_GROUP or length is None:
                raise _BrokenError(f"no element of a group of blocks begins at byte {at}")
            if identifier == _BLOCK:
                place = first, after
            elif identifier == _BLOCK_DURATION:
                duration = self.number(first, after)
            at = after
        if place is not None:
            self.block(*place, time, duration)

    def block(self, begin: int, end: int, time: int, duration: int | None = None) -> None:
        """Count the frames of a block (RFC 9559, 10)."""
        head = self.data.read(begin, 12)
        width = 9 - head[0].bit_length() if head else 9
        number = int.from_bytes(head[:width], "big") & ((1 << 7 * width) - 1)
        if width > 8 or end - begin < width + 3 or number not in self.tracks:
            raise _BrokenError(f"the block at byte {begin} belongs to no track")
        if end - begin > width + 3:
            self.found.blocks[number] += head[width + 3] + 1 if head[width + 2] & 6 else 1
        offset = int.from_bytes(head[width : width + 2], "big", signed=True)
        length = self.default_durations[number] if duration is None else duration * self.scale
        begins = (time + offset) * self.scale / 1e9
        self.found.end = max(self.found.end, begins + length / 1e9)
        if number in self.found.video_tracks:
            latest = self.latest.get(number, begins)
            self.found.pause = max(self.found.pause, begins - latest)
            self.latest[number] = max(latest, begins)
