"""PyAV 15.1 to 19: what differs between its versions, in one place.

Other modules call PyAV only in ways that all these versions share.
"""

from __future__ import annotations

from typing import Any, cast

import av
from av.container import InputContainer
from av.stream import Stream

_ATTACHED_PICTURE = 0x400
_DISCARD_ALL = 48
_READS_COLOURS = 17
# colour spaces (Rec. ITU-T H.273, table 4) and ranges, as libswscale and PyAV number them
_BT709, _BT601, _LIMITED, _FULL = 1, 5, 1, 2
_OWN_MATRIX = frozenset((1, 4, 7, 9))
_CONVERTIBLE = frozenset((0, 2, 5, 6)) | _OWN_MATRIX
_MAJOR = int(av.__version__.split(".")[0])
SHOWS_SIDE_DATA = hasattr(av.Packet, "has_sidedata")
"""Whether side data of packets can be read (from version 16 on)."""


def open_input(name: str, options: dict[str, str]) -> InputContainer:
    """Open a file for reading; metadata that are no UTF-8 are no reason to refuse it."""
    # as container options only: with options of streams, 15.1 falls over streams that appear while a file is opened
    if _MAJOR < 19:
        return av.open(name, container_options=options, metadata_errors="replace")
    return av.open(name, container_options=options)


def is_attached_picture(stream: Stream) -> bool:
    """Whether a stream holds cover art."""
    disposition: Any = stream.disposition
    # a flag of its own class before version 16, an integer after
    return bool(int(getattr(disposition, "value", disposition)) & _ATTACHED_PICTURE)


def discard_others(stream: Stream) -> None:
    """Let the demuxer pass over the packets of all other streams, where PyAV can ask for that (from version 16 on)."""
    discard: Any = getattr(av.stream, "Discard", None)
    if discard is not None:
        for other in cast(Any, stream.container.streams):
            if other.index != stream.index:
                other.discard = discard(_DISCARD_ALL)


def new_extradata(packet: av.Packet[Any]) -> bytes | None:
    """The decoder configuration that the demuxer announces with a packet; None where PyAV shows none."""
    one: Any = packet
    return bytes(one.get_sidedata("new_extradata")) if one.has_sidedata("new_extradata") else None


def reformat(frame: av.VideoFrame, *, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """A picture in another size and pixel format.

    Raises:
        OSError: libswscale does not know its colour space.
        av.FFmpegError: likewise.
    """
    options: dict[str, Any] = {}
    if _MAJOR < _READS_COLOURS and pixel_format == "rgb24":
        space = int(frame.colorspace)
        if space not in _CONVERTIBLE:
            raise OSError(f"colour space {space}")
        # versions before take all for BT.601 of limited range, and look no further if source and target are alike
        source = space if space in _OWN_MATRIX else _BT601
        full = frame.format.name.startswith("yuvj") or int(frame.color_range) == _FULL
        options = {
            "src_colorspace": source,
            "dst_colorspace": _BT709 if source == _BT601 else _BT601,
            "src_color_range": _FULL if full else _LIMITED,
            "dst_color_range": _FULL,
        }
    return frame.reformat(width=width, height=height, format=pixel_format, interpolation="BICUBIC", **options)
