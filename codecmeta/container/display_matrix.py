"""Display matrices: how a container or an SEI message states that pictures are rotated and mirrored.

A matrix is nine integers a, b, u, c, d, v, x, y, w as in ISO/IEC 14496-12 (6.2.2), as libavformat and libavcodec attach
it to streams and frames.
"""

from __future__ import annotations

import itertools
import math
import struct
from typing import TypeAlias

from codecmeta.container.box import Box
from codecmeta.container.ebml import HEAD_BYTES, Element, children, parse_head, read_float
from codecmeta.entropy.bits import BitReader
from codecmeta.storage.byte_source import ByteSource

Matrix: TypeAlias = tuple[int, ...]

IDENTITY: Matrix = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_FRACTION_BITS = (16, 16, 30)
_MAX_TRACKS = 16 << 20
_EBML, _SEGMENT, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675
_TRACK, _TRACK_TYPE, _VIDEO, _PROJECTION = 0xAE, 0x83, 0xE0, 0x7670
_TYPE, _PRIVATE, _YAW, _PITCH, _ROLL = 0x7671, 0x7672, 0x7673, 0x7674, 0x7675
_PIXEL_CROPS = (0x54AA, 0x54BB, 0x54CC, 0x54DD)
_MOST_ELEMENTS = 1000


def read_track_matrix(moov: bytes, track: Box, movie: Box | None) -> Matrix:
    """Read the matrix of a track and its movie.

    Args:
        moov: payload of the `moov` box.
        track: the track's `tkhd` box.
        movie: the `mvhd` box, if the file has one.
    """
    own = _read_matrix(moov, track, (40, 52))
    around = IDENTITY if movie is None else _read_matrix(moov, movie, (36, 48))
    places = itertools.product(range(3), repeat=2)
    return tuple(sum(own[3 * i + k] * around[3 * k + j] >> _FRACTION_BITS[k] for k in range(3)) for i, j in places)


def _read_matrix(moov: bytes, box: Box, places: tuple[int, int]) -> Matrix:
    """Read the matrix at the offset that a box's version implies; return the identity where the box is too short."""
    if box.end <= box.begin:
        return IDENTITY
    at = box.begin + places[moov[box.begin] == 1]
    return struct.unpack_from(">9i", moov, at) if at + 36 <= box.end else IDENTITY


def read_picture_element(source: ByteSource, number: int) -> bytes:
    """Read the payload of the Video element of a Matroska track; return b"" where it has none.

    Args:
        source: the file.
        number: index of the track among those with video.
    """
    tracks = _read_tracks(source)
    videos = (one for one in children(tracks, 0, len(tracks)) if one.identifier == _TRACK)
    videos = (one for one in videos if _payload(tracks, one, _TRACK_TYPE)[-1:] == b"\1")
    for place, track in enumerate(videos):
        if place == number:
            return _payload(tracks, track, _VIDEO)
    return b""


def read_projection(picture: bytes) -> Matrix:
    """Read the matrix of a Video element whose projection is a rectangle that is rotated or mirrored."""
    return _turn_projection(_payload(picture, Element(_VIDEO, 0, len(picture)), _PROJECTION))


def is_cut(picture: bytes) -> bool:
    """Return whether a Video element cuts rows or columns off the decoded picture."""
    crops = (_payload(picture, Element(_VIDEO, 0, len(picture)), name) for name in _PIXEL_CROPS)
    return any(any(crop) for crop in crops)


def _read_tracks(source: ByteSource) -> bytes:
    """Read the payload of the Tracks element, if it comes before the first cluster."""
    position = 0
    for _ in range(_MOST_ELEMENTS):
        element = parse_head(source.read_at(position, HEAD_BYTES), position)
        if element is None or element.identifier == _CLUSTER or element.begin > source.size:
            break
        if element.identifier == _SEGMENT:
            position = element.begin
            continue
        if element.size is None:
            break
        if element.identifier == _TRACKS:
            return source.read_at(element.begin, element.size) if element.size <= _MAX_TRACKS else b""
        position = element.begin + element.size
    return b""


def _payload(data: bytes, parent: Element, *path: int) -> bytes:
    """Return the payload of the last element of each identifier on a path down; b"" where one is missing."""
    begin, end = parent.begin, parent.begin + (parent.size or 0)
    for identifier in path:
        found = [one for one in children(data, begin, end) if one.identifier == identifier]
        if not found:
            return b""
        begin, end = found[-1].begin, found[-1].begin + (found[-1].size or 0)
    return data[begin:end]


def _turn_projection(projection: bytes) -> Matrix:
    """Return the matrix of a Projection element, as libavformat derives it for rectangular projections."""
    values = {
        one.identifier: projection[one.begin : one.begin + (one.size or 0)]
        for one in children(projection, 0, len(projection))
    }
    yaw, pitch, roll = (read_float(values.get(name, b"")) for name in (_YAW, _PITCH, _ROLL))
    if yaw is None or pitch is None or roll is None or int.from_bytes(values.get(_TYPE, b""), "big"):
        return IDENTITY
    if values.get(_PRIVATE) or pitch or abs(yaw) not in (0.0, 180.0) or not math.isfinite(roll):
        return IDENTITY
    mirrored = yaw != 0
    return _rotate(-roll if mirrored else roll, mirrored=mirrored, flipped=False)


def _rotate(degrees: float, *, mirrored: bool, flipped: bool) -> Matrix:
    """Return the matrix of a counter-clockwise rotation, followed by left-right and top-bottom exchanges."""
    angle = math.radians(degrees)
    cosine, sine = (int(value * (1 << 16)) for value in (math.cos(angle), math.sin(angle)))
    x, y = -1 if mirrored else 1, -1 if flipped else 1
    return x * cosine, y * -sine, 0, x * sine, y * cosine, 0, 0, 0, 1 << 30


def read_display_orientation(payload: bytes) -> Matrix | None:
    """Read the matrix of a display orientation SEI message (H.264, D.1.27; H.265, D.2.17).

    Returns None if it cancels an earlier one, or neither rotates nor mirrors: then the container's matrix applies.

    Raises:
        BitstreamError: the message is cut short.
    """
    reader = BitReader(payload, "display orientation message")
    if reader.flag():
        return None
    mirrored, flipped = reader.flag(), reader.flag()
    # the message mirrors before it rotates, a matrix after it: each mirror reverses the rotation
    degrees = reader.u(16) * 360 / (1 << 16)
    if not (mirrored or flipped or degrees):
        return None
    return _rotate(-degrees if mirrored != flipped else degrees, mirrored=mirrored, flipped=flipped)
