"""Packet heads: whether decoding can begin at a packet, and the parameter sets that it contains.

Only the first bytes of a packet are read, up to its first slice. A container's key flag is compared with the NAL unit
type (H.264, HEVC, VVC), the picture type (MPEG-1, MPEG-2, MPEG-4, H.263 and Sorenson), or the frame header (VP8, VP9,
AV1, Theora). Packets of other codecs are not examined, and the flag is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from codecmeta.entropy.bits import BitReader
from codecmeta.entropy.nal import remove_emulation_prevention
from codecmeta.entropy.sei import split_messages
from codecmeta.errors import BitstreamError
from codecmeta.h264.encoder_build import find_x264_build

Access: TypeAlias = Literal["point", "recovery", "intra", "none", "unknown"]
"""`point`: decoding can begin at the packet. `recovery`: it can if the container agrees (a recovery point, or a key
frame that is shown later). `intra`: a picture without references; later pictures may refer to earlier ones. `none`:
decoding cannot begin there. `unknown`: packets of the codec are not examined."""

MOST_UNITS = 1 << 10
"""NAL units or OBUs before the first slice that are examined."""

MOST_SET_BYTES = 1 << 16
"""Bytes of the longest parameter set that is kept; the longest that standards allow are shorter."""

FAITHFUL_X264 = 151
"""First build of x264 for which decoders apply no workarounds; only the first access unit names the build."""

HEADER_BYTES = 4096
"""Bytes of a packet that contain all headers before the first picture where no length marks their end."""


@dataclass(frozen=True)
class Head:
    """Facts that the head of a packet states.

    Attributes:
        access: whether decoding can begin there.
        sets: parameter sets and other headers that concern later packets, each with its NAL unit or OBU header.
    """

    access: Access
    sets: tuple[bytes, ...] = ()


UNKNOWN = Head("unknown")
NONE = Head("none")
POINT = Head("point")

_USER_DATA = re.compile(rb"\x00\x00\x01\xb2(?:(?!\x00\x00\x01).){1,256}", re.DOTALL)
_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f]")

Peek: TypeAlias = Callable[[int, int], bytes]
"""`peek(begin, count)`: bytes of the packet from an offset, fewer where it ends."""


def read_head(codec: str, packet: bytes | memoryview, *, length_size: int) -> Head:
    """Read the head of a packet in memory; see `peek_head`."""
    view = memoryview(packet)
    return peek_head(codec, lambda begin, count: bytes(view[begin : begin + count]), len(view), length_size=length_size)


def peek_head(codec: str, peek: Peek, size: int, *, length_size: int) -> Head:
    """Read the head of a packet.

    Args:
        codec: libav's name of the codec.
        peek: returns bytes of the packet.
        size: length of the packet.
        length_size: bytes of the length before each NAL unit, 0 for a byte stream.
    """
    if codec in NAL_CODECS:
        return _read_nal_head(codec, peek, size, length_size)
    reader = _READERS.get(codec)
    if reader is None:
        return UNKNOWN
    try:
        return reader(peek(0, min(size, HEADER_BYTES)))
    except (BitstreamError, IndexError):
        return NONE


def is_inner_slice(codec: str, start: bytes | memoryview, *, length_size: int) -> bool:
    """Return whether the first bytes of an H.264 or HEVC packet show a slice that is no random access point.

    Most packets begin with such a slice, and nothing else of their head matters unless the packet was flagged.
    """
    if len(start) <= length_size or not length_size:
        return False
    return start[length_size] & 31 == 1 if codec == "h264" else codec == "hevc" and start[length_size] >> 1 & 63 < 10


def begins_decoding(access: Access, *, flagged: bool, one: bool) -> bool:
    """Return whether decoding can begin at a packet.

    Args:
        access: what its head states.
        flagged: whether the container flags it as a key packet.
        one: pictures refer only to the one before, so that nothing refers across an intra picture.
    """
    return access == "point" or (flagged and (access in ("recovery", "unknown") or (access == "intra" and one)))


def examines_heads(codec: str) -> bool:
    """Return whether heads of a codec's packets are examined."""
    return codec in NAL_CODECS or codec in _READERS


def contains_sets(codec: str, head: Head) -> bool:
    """Return whether a head holds parameter sets, not only the name of an encoder."""
    return codec in NAL_CODECS and any(nal_type(codec, unit) in _SETS[codec] for unit in head.sets)


NAL_CODECS = frozenset(("h264", "hevc", "vvc"))
_H264_SETS, _H264_SEI = frozenset((7, 8)), 6
_HEVC_SETS, _VVC_SETS = frozenset((32, 33, 34)), frozenset((14, 15, 16))
_RECOVERY_POINT = 6


def _read_nal_head(codec: str, peek: Peek, size: int, length_size: int) -> Head:
    sets: list[bytes] = []
    recovery = False
    for begin, end in _list_units(peek, size, length_size):
        first = peek(begin, 2)
        if len(first) < 2:
            break
        kind = nal_type(codec, first)
        if kind in _SETS[codec]:
            if end - begin <= MOST_SET_BYTES:
                # zeros after the stop bit belong to the next start code
                sets.append(peek(begin, end - begin).rstrip(b"\0"))
        elif codec == "h264" and kind == _H264_SEI:
            unit = peek(begin, min(end - begin, HEADER_BYTES))
            rbsp = remove_emulation_prevention(unit[1:])
            recovery |= any(number == _RECOVERY_POINT for number, _ in split_messages(rbsp))
            build = find_x264_build(rbsp)
            if build is not None and build < FAITHFUL_X264:
                sets.append(unit)
        elif (access := _SLICES[codec](kind)) is not None:
            if codec == "h264" and access == "none":
                access = "recovery" if recovery else _access_inner_h264(peek(begin, 32))
            return Head(access, tuple(sets))
    return Head("none", tuple(sets))


def nal_type(codec: str, unit: bytes) -> int:
    """Return nal_unit_type of a unit, from its first two bytes."""
    return unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63 if codec == "hevc" else unit[1] >> 3


def _access_h264(kind: int) -> Access | None:
    return "point" if kind == 5 else "none" if kind in (1, 2) else None


def _access_inner_h264(unit: bytes) -> Access:
    """Classify a non-IDR slice by slice_type (Rec. ITU-T H.264, 7.3.3); the picture must be a reference, too."""
    bits = BitReader(remove_emulation_prevention(unit[1:]), "slice header")
    try:
        bits.ue()
        return "intra" if bits.ue() % 5 == 2 and unit[0] & 0x60 else "none"
    except BitstreamError:
        return "none"


def _access_hevc(kind: int) -> Access | None:
    return None if kind > 31 else "point" if 16 <= kind <= 23 else "none"


def _access_vvc(kind: int) -> Access | None:
    return None if kind > 11 else "point" if kind in (7, 8, 9) else "recovery" if kind == 10 else "none"


_SETS = {"h264": _H264_SETS, "hevc": _HEVC_SETS, "vvc": _VVC_SETS}
_SLICES: dict[str, Callable[[int], Access | None]] = {
    "h264": _access_h264,
    "hevc": _access_hevc,
    "vvc": _access_vvc,
}


def _list_units(peek: Peek, size: int, length_size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the NAL units of a packet; in a byte stream, of those in its first bytes."""
    start = peek(0, 4)
    coded = start[:3] == b"\0\0\1" or start == b"\0\0\0\1"
    if length_size and (not coded or _divides(peek, size, length_size)):
        yield from _list_prefixed(peek, size, length_size)
        return
    window = peek(0, min(size, MOST_SET_BYTES))
    begin = window.find(b"\0\0\1") + 3
    for _ in range(MOST_UNITS):
        if begin < 3:
            return
        end = window.find(b"\0\0\1", begin)
        yield begin, end if end >= 0 else size
        begin = end + 3


def _list_prefixed(peek: Peek, size: int, length_size: int) -> Iterator[tuple[int, int]]:
    position = 0
    for _ in range(MOST_UNITS):
        begin = position + length_size
        if begin >= size:
            return
        position = begin + int.from_bytes(peek(begin - length_size, length_size), "big")
        if position > begin:
            yield begin, min(position, size)


def _divides(peek: Peek, size: int, length_size: int) -> bool:
    """Return whether lengths lead exactly to the end: the length 1, or 256, looks like a start code."""
    position = 0
    for _ in range(MOST_UNITS):
        position += length_size + int.from_bytes(peek(position, length_size), "big")
        if position >= size:
            break
    return position == size


def _read_mpeg12(head: bytes) -> Head:
    """Read picture_coding_type of the first picture (ISO/IEC 13818-2, 6.2.3), and the sequence header before it."""
    picture = head.find(b"\0\0\1\0")
    sequence = head.find(b"\0\0\1\xb3", 0, picture if picture >= 0 else None)
    ends = [place for place in (head.find(b"\0\0\1\xb8", max(sequence, 0)), picture) if place >= 0]
    sets = (head[sequence : min(ends, default=len(head))],) if sequence >= 0 else ()
    intra = 0 <= picture < len(head) - 5 and head[picture + 5] >> 3 & 7 == 1
    return Head("point" if intra else "none", sets)


def _read_mpeg4(head: bytes) -> Head:
    """Read vop_coding_type of the first plane (ISO/IEC 14496-2, 6.2.5), the headers before it, and its user data.

    User data name the encoder, whose faults and packed planes decoders handle; many streams have them only once.
    """
    plane = head.find(b"\0\0\1\xb6")
    before = head[:plane] if plane >= 0 else head
    group = before.find(b"\0\0\1\xb3")
    headers = before[:group] if group >= 0 else before
    sets = (headers,) if _LAYER.search(headers) else ()
    named = tuple(match[0].rstrip(b"\0") for match in _USER_DATA.finditer(before))
    intra = 0 <= plane < len(head) - 4 and head[plane + 4] >> 6 == 0
    return Head("point" if intra else "none", sets + named)


def _read_h263(head: bytes) -> Head:
    """Read PTYPE or PLUSPTYPE of a picture (Rec. ITU-T H.263, 5.1.3 and 5.1.4)."""
    bits = BitReader(head, "picture header")
    if bits.u(22) != 0x20:
        return NONE
    bits.u(13)
    if bits.u(3) != 7:
        return NONE if bits.flag() else POINT
    if bits.u(3) == 1:
        bits.u(18)
    return NONE if bits.u(3) else POINT


def _read_sorenson(head: bytes) -> Head:
    """Read PictureType of a Sorenson picture (SWF File Format 10, Sorenson H.263 bitstream)."""
    bits = BitReader(head, "picture header")
    if bits.u(17) != 1:
        return NONE
    bits.u(13)
    size = bits.u(3)
    bits.u({0: 16, 1: 32}.get(size, 0))
    return NONE if bits.u(2) else POINT


def _read_vp8(head: bytes) -> Head:
    return NONE if head[0] & 1 else POINT


def _read_vp9(head: bytes) -> Head:
    """Read frame_type of the first frame (VP9 bitstream specification, 6.2)."""
    bits = BitReader(head, "frame header")
    if bits.u(2) != 2:
        return NONE
    profile = bits.u(1) | bits.u(1) << 1
    if profile == 3:
        bits.u(1)
    return NONE if bits.flag() or bits.flag() else POINT


def _read_theora(head: bytes) -> Head:
    return NONE if head[0] & 0xC0 else POINT


def _read_av1(head: bytes) -> Head:
    """Read the first frame header after a sequence header, if the packet has one (AV1 specification, 5.5 and 5.9.2)."""
    sets: tuple[bytes, ...] = ()
    position = 0
    still = False
    for _ in range(MOST_UNITS):
        if position >= len(head):
            break
        kind, extension, sized = head[position] >> 3 & 15, head[position] >> 2 & 1, head[position] >> 1 & 1
        begin = position + 1 + extension
        size, begin = read_leb128(head, begin) if sized else (len(head) - begin, begin)
        payload = head[begin : begin + size]
        if kind == 1:
            sets = (head[position : begin + size],)
            still = bool(payload[0] & 8)
        elif kind in (3, 6):
            if still:
                return Head("point", sets)
            shows_existing, frame_type, shown = payload[0] >> 7, payload[0] >> 5 & 3, payload[0] >> 4 & 1
            if shows_existing or frame_type:
                return Head("none", sets)
            return Head("point" if shown else "recovery", sets)
        position = begin + size
    return Head("none", sets)


def read_leb128(data: bytes, position: int) -> tuple[int, int]:
    """Read a number and return the position after it as well (AV1 specification, 4.10.5)."""
    value = 0
    for index in range(8):
        value |= (data[position + index] & 127) << 7 * index
        if data[position + index] < 128:
            return value, position + index + 1
    raise BitstreamError("a leb128 number has more than eight bytes")


_READERS: dict[str, Callable[[bytes], Head]] = {
    "mpeg1video": _read_mpeg12,
    "mpeg2video": _read_mpeg12,
    "mpeg4": _read_mpeg4,
    "h263": _read_h263,
    "flv1": _read_sorenson,
    "vp8": _read_vp8,
    "vp9": _read_vp9,
    "theora": _read_theora,
    "av1": _read_av1,
}
