"""Packet form: whether a packet's units join and one of them is a picture, without reading their content.

A decoder refuses a packet whose units do not join. Their headers are a few bytes, so that all packets can be checked
where only some pictures are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from codecmeta.container.mpeg4_headers import (
    MOST_UNCODED,
    VideoObjectLayer,
    video_object_layer,
    video_object_plane,
)
from codecmeta.container.vp9_form import Vp9Check

Read: TypeAlias = Callable[[int, int], bytes]
"""Reads bytes of a packet: from an offset, a number of them."""
Check: TypeAlias = Callable[[Read, int, int], bool]
"""Returns whether the packet that `Read` gives, of a number of bytes, has a form that a decoder accepts.

The last argument is the number of bytes of the length before each NAL unit, 0 for a byte stream.
"""
_MPEG4_FIRST = frozenset((0xB0, 0xB1, 0xB2, 0xB3, 0xB5, 0xB6, *range(0x30)))
_MPEG4_HEAD = 64
_LEAST_CHECKED = 4


def open_check(codec: str, extradata: bytes) -> Check | None:
    """Return the check of a stream's packets; None for codecs without one.

    Args:
        codec: libav's name.
        extradata: the container's codec private data.
    """
    if codec in ("h264", "hevc"):
        is_picture = _is_h264_picture if codec == "h264" else _is_hevc_picture
        return lambda read, size, width: (
            _units_join(read, size, width, is_picture) if width else read(0, 4)[:3] in (b"\0\0\1", b"\0\0\0")
        )
    if codec == "mpeg4":
        layer = video_object_layer(extradata)
        return lambda read, size, width: size < _LEAST_CHECKED or _is_mpeg4_picture(read(0, _MPEG4_HEAD), size, layer)
    if codec == "vp9":
        return Vp9Check().accepts
    return None


def _is_h264_picture(header: int) -> bool:
    return 1 <= header & 31 <= 5


def _is_hevc_picture(header: int) -> bool:
    return header >> 1 & 63 < 32


def _is_mpeg4_picture(head: bytes, size: int, layer: VideoObjectLayer | None) -> bool:
    """Return whether a packet begins with a start code, and no plane that is marked as not coded has many bytes."""
    if head[:3] == b"\0\0\0":
        return True
    if head[:3] != b"\0\0\1" or head[3] not in _MPEG4_FIRST:
        return False
    at = head.find(b"\0\0\1\xb6")
    plane = video_object_plane(head, layer) if 0 <= at < size - MOST_UNCODED else None
    return plane is None or plane.coded


def _units_join(read: Read, size: int, width: int, is_picture: Callable[[int], bool]) -> bool:
    """Return whether length-prefixed NAL units fill a packet, apart from stray bytes after the last slice."""
    at, pictured = 0, False
    while size - at > width:
        head = read(at, width + 1)
        length = int.from_bytes(head[:width], "big")
        at += width + length
        if length == 0 or at > size or len(head) <= width or head[width] & 0x80:
            return pictured
        pictured |= is_picture(head[width])
    return pictured
