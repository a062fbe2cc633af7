"""Picture types of packets, and whether a packet shows a picture, read from headers without decoding."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.av1_frames import Av1Frames
from codecmeta.container.packet_heads import Peek
from codecmeta.container.parameter_history import ParameterHistory
from codecmeta.container.slice_types import describe_slices, has_slice_header
from codecmeta.container.vpx_frames import Vp8Frames, Vp9Frames

_START = 16
_SLICED = ("h264", "hevc")
_MOST_UNITS = 1 << 12
"""Units of a packet that are examined."""


@dataclass(frozen=True, kw_only=True)
class PacketPictures:
    """Pictures of P packets according to their headers.

    Attributes:
        type: `<U1` (P,): I, P or B, the most general of a picture's slices; ? where it cannot be read. For a packet of
            several frames, the type of the shown one.
        shown: bool (P,), the packet shows a picture.
        withheld: bool (P,), the picture itself says that it is never shown (H.265, pic_output_flag).
    """

    type: NDArray[np.str_]
    shown: NDArray[np.bool_]
    withheld: NDArray[np.bool_]


class FrameReader(Protocol):
    """Reader of the frame headers of packets that come in decode order."""

    def read(self, peek: Peek, size: int) -> tuple[str, bool]:
        """Return the type of the picture that a packet shows, else of its last one, and whether it shows one."""
        ...


def open_frame_reader(codec: str, extradata: bytes) -> FrameReader | None:
    """Return the reader of the frame headers of VP8, VP9 and AV1; None for other codecs."""
    readers: dict[str, Callable[[], FrameReader]] = {
        "vp8": Vp8Frames,
        "vp9": Vp9Frames,
        "av1": lambda: Av1Frames(extradata),
    }
    return readers[codec]() if codec in readers else None


def reads_picture_headers(codec: str) -> bool:
    """Return whether the pictures of a codec are read from headers."""
    return codec in _SLICED or codec in ("vp8", "vp9", "av1")


class PictureCollector:
    """Collector of the pictures of packets that pass in decode order.

    Args:
        codec: libav's name.
        extradata: the container's codec private data.
    """

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._codec = codec
        self._frames = open_frame_reader(codec, extradata)
        self._numbers, self._starts = array("q"), bytearray()
        self._pictures: list[tuple[str, bool]] = []

    def take(self, number: int, packet: memoryview, *, length_size: int) -> bool:
        """Examine a packet; return whether it shows a picture, True where only all packets together decide.

        Args:
            number: its row in the packet table; both fields of a frame share one.
            packet: its bytes.
            length_size: bytes of the length before each NAL unit, 0 for a byte stream.
        """
        if self._frames is not None:
            picture = self._frames.read(lambda begin, count: bytes(packet[begin : begin + count]), len(packet))
            self._pictures.append(picture)
            return picture[1]
        if self._codec in _SLICED:
            data = bytes(packet)
            for place in _list_units(data, length_size):
                if has_slice_header(self._codec, data[place]):
                    self._numbers.append(number)
                    self._starts += data[place : place + _START].ljust(_START, b"\0")
        return True

    def close(self, packets: int, history: ParameterHistory) -> PacketPictures | None:
        """Return the pictures that all packets' headers describe; None for codecs whose headers are not read."""
        if self._frames is not None:
            return from_list(self._pictures)
        if self._codec not in _SLICED:
            return None
        packet = np.frombuffer(self._numbers, np.int64) if self._numbers else np.zeros(0, np.int64)
        start = np.frombuffer(bytes(self._starts), np.uint8).reshape(-1, _START)
        return from_slices(self._codec, history, packets=packets, packet=packet, start=start)


def from_slices(
    codec: str, history: ParameterHistory, *, packets: int, packet: NDArray[np.int64], start: NDArray[np.uint8]
) -> PacketPictures:
    """Return the pictures of H.264 or HEVC slices; arguments as for `describe_slices`."""
    kinds, shown, withheld = describe_slices(codec, history, packets=packets, packet=packet, start=start)
    return PacketPictures(type=kinds, shown=shown, withheld=withheld)


def from_list(pictures: list[tuple[str, bool]]) -> PacketPictures:
    """Return the pictures of packets listed one by one."""
    return PacketPictures(
        type=np.array([kind for kind, _ in pictures], "<U1"),
        shown=np.array([shown for _, shown in pictures], np.bool_),
        withheld=np.zeros(len(pictures), np.bool_),
    )


def _list_units(data: bytes, width: int) -> list[int]:
    """Find where the units of a packet begin: after lengths while they join, else after start codes."""
    places: list[int] = []
    at = width
    while width and at < len(data) and len(places) < _MOST_UNITS:
        stop = at + int.from_bytes(data[at - width : at], "big")
        if stop == at or stop > len(data):
            break
        places.append(at)
        at = stop + width
    coded = not width or data[:3] == b"\0\0\1" or data[:4] == b"\0\0\0\1"
    return _list_started(data) if coded and at < len(data) + width else places


def _list_started(data: bytes) -> list[int]:
    """Find where the units of a byte stream begin."""
    places: list[int] = []
    at = data.find(b"\0\0\1") + 3
    while 3 <= at < len(data) and len(places) < _MOST_UNITS:
        places.append(at)
        at = data.find(b"\0\0\1", at) + 3
    return places
