"""Boxes of an ISO base media file (MP4, MOV): what libav's index leaves out.

libav's index has size, decode time and key flag of every sample, but not its composition offset (`ctts`), and the
rotation of a track (`tkhd`) reaches Python only with a decoded frame. Both are a few bytes of the `moov` box.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

MAX_MOOV = 512 << 20
MAX_TOP_LEVEL = 1 << 20
MAX_SAMPLES = 1 << 26


@dataclass(frozen=True)
class Box:
    """One box: its four-character type, where its payload begins, and where the box ends."""

    type: bytes
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Track:
    """What is read of one track.

    Attributes:
        composition_offset: int64 (samples,), pts - dts of each sample up to a constant; None where the `moov` box
            does not list all samples (fragmented files).
        rotation: degrees counter-clockwise, a multiple of 90; other angles count as 0.
    """

    composition_offset: NDArray[np.int64] | None
    rotation: int


def top_level_boxes(file: BinaryIO, size: int) -> list[Box]:
    """The boxes of a file, in order; the last one may claim to end beyond `size`."""
    boxes: list[Box] = []
    position = 0
    while position + 8 <= size and len(boxes) < MAX_TOP_LEVEL:
        file.seek(position)
        head = file.read(16)
        box = _parse_head(head, position, size)
        if box is None:
            break
        boxes.append(box)
        position = box.end
    return boxes


def read_track(file: BinaryIO, size: int, track_id: int) -> Track | None:
    """Find a track in the `moov` box; None where there is none.

    Args:
        file: the opened file.
        size: its length in bytes.
        track_id: identifier in the track's header, libav's `stream.id`.
    """
    for box in top_level_boxes(file, size):
        if box.type == b"moov" and box.end <= size and box.end - box.begin <= MAX_MOOV:
            file.seek(box.begin)
            return _find_track(file.read(box.end - box.begin), track_id, most=min(MAX_SAMPLES, size))
    return None


def _parse_head(head: bytes, position: int, size: int) -> Box | None:
    if len(head) < 8:
        return None
    length, kind = struct.unpack_from(">I4s", head)
    begin = position + 8
    if length == 1:
        if len(head) < 16:
            return None
        length = struct.unpack_from(">Q", head, 8)[0]
        begin = position + 16
    elif length == 0:
        length = size - position
    if position + length < begin:
        return None
    return Box(kind, begin, position + length)


def _children(data: bytes, begin: int, end: int) -> Iterator[Box]:
    position = begin
    while position + 8 <= end:
        box = _parse_head(data[position : position + 16], position, end)
        if box is None or box.end > end:
            return
        yield box
        position = box.end


def _child(data: bytes, parent: Box, *path: bytes) -> Box | None:
    for kind in path:
        found = next((box for box in _children(data, parent.begin, parent.end) if box.type == kind), None)
        if found is None:
            return None
        parent = found
    return parent


def _find_track(moov: bytes, track_id: int, *, most: int) -> Track | None:
    fragmented = _child(moov, Box(b"moov", 0, len(moov)), b"mvex") is not None
    for trak in _children(moov, 0, len(moov)):
        header = _child(moov, trak, b"tkhd") if trak.type == b"trak" else None
        if header is not None and _track_id(moov, header) == track_id:
            table = None if fragmented else _child(moov, trak, b"mdia", b"minf", b"stbl")
            return Track(
                composition_offset=None if table is None else _composition_offsets(moov, table, most=most),
                rotation=_rotation(moov, header),
            )
    return None


def _track_id(moov: bytes, header: Box) -> int | None:
    if header.end - header.begin < 24:
        return None
    at = header.begin + (20 if moov[header.begin] == 1 else 12)
    return int(struct.unpack_from(">I", moov, at)[0])


def _rotation(moov: bytes, header: Box) -> int:
    at = header.begin + (52 if moov[header.begin] == 1 else 40)
    if at + 36 > header.end:
        return 0
    a, b, _, c, d = struct.unpack_from(">5i", moov, at)
    # the matrix turns clockwise on a screen whose y axis points down
    angle = -round(math.degrees(math.atan2(b, a)))
    if a * d - b * c <= 0 or angle % 90:
        return 0
    return angle


def _composition_offsets(moov: bytes, table: Box, *, most: int) -> NDArray[np.int64] | None:
    sizes = _child(moov, table, b"stsz") or _child(moov, table, b"stz2")
    if sizes is None or sizes.end - sizes.begin < 12:
        return None
    samples = struct.unpack_from(">I", moov, sizes.begin + 8)[0]
    # a sample has a byte at least: a few bytes of header may claim any number of them
    if samples > most:
        return None
    box = _child(moov, table, b"ctts")
    if box is None:
        return np.zeros(samples, np.int64)
    if box.end - box.begin < 8:
        return None
    entries = struct.unpack_from(">I", moov, box.begin + 4)[0]
    if box.begin + 8 + 8 * entries > box.end:
        return None
    runs = np.frombuffer(moov, ">i4", 2 * entries, box.begin + 8).astype(np.int64).reshape(-1, 2)
    counts = runs[:, 0]
    if (counts < 0).any() or counts.sum() != samples:
        return None
    return np.repeat(runs[:, 1], counts)
