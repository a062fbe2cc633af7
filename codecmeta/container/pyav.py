"""PyAV 15.1 to 19: the differences between versions, in one place.

Other modules call PyAV only in ways that all these versions share.
"""

from __future__ import annotations

from typing import Any, BinaryIO, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from numpy.typing import NDArray

_ATTACHED_PICTURE = 0x400
_DISCARD_ALL = 48
_READS_COLOURS = 17
_SCALES_IN_THREADS = 17
# numbers of colour spaces (Rec. ITU-T H.273, table 4) and ranges in libswscale and PyAV
_BT709, _BT601, _LIMITED, _FULL = 1, 5, 1, 2
_OWN_MATRIX = frozenset((1, 4, 7, 9))
_CONVERTIBLE = frozenset((0, 2, 5, 6)) | _OWN_MATRIX
_MAJOR = int(av.__version__.split(".")[0])
SHOWS_SIDE_DATA = hasattr(av.Packet, "has_sidedata")
"""Whether side data of packets can be read (version 16 or later)."""


def open_input(name: str | BinaryIO, options: dict[str, str]) -> InputContainer:
    """Open a file for reading, by its URL or as a file object; metadata that are not UTF-8 do not make it fail."""
    # container options only: with stream options, 15.1 fails on streams that appear while a file is opened
    if _MAJOR < 19:
        return av.open(name, "r", container_options=options, metadata_errors="replace")
    return av.open(name, "r", container_options=options)


def is_attached_picture(stream: Stream) -> bool:
    """Return whether a stream holds cover art."""
    disposition: Any = stream.disposition
    # a flag of its own class before version 16, an integer after
    return bool(int(getattr(disposition, "value", disposition)) & _ATTACHED_PICTURE)


def discard_others(stream: Stream) -> None:
    """Make the demuxer skip the packets of all other streams, where PyAV can (version 16 or later)."""
    discard: Any = getattr(av.stream, "Discard", None)
    if discard is not None:
        for other in cast(Any, stream.container.streams):
            if other.index != stream.index:
                other.discard = discard(_DISCARD_ALL)


def new_extradata(packet: av.Packet[Any]) -> bytes | None:
    """Return the decoder configuration that the demuxer announces with a packet; None where PyAV exposes none."""
    one: Any = packet
    return bytes(one.get_sidedata("new_extradata")) if one.has_sidedata("new_extradata") else None


def frame_of_rgb(picture: NDArray[np.uint8]) -> av.VideoFrame:
    """Copy a picture, uint8 (H, W, 3), into a frame whose rows end in copies of their last pixel.

    libswscale 8 reads beyond rows of odd width, where PyAV leaves memory as it was.
    """
    height, width = picture.shape[:2]
    # from_ndarray copies row by row, and takes five times as long
    frame = av.VideoFrame(width, height, "rgb24")
    plane = frame.planes[0]
    rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(height, plane.line_size)
    rows[:, : 3 * width] = picture.reshape(height, 3 * width)
    pixels = -(-(plane.line_size - 3 * width) // 3)
    rows[:, 3 * width :] = np.tile(picture[:, -1], pixels)[:, : plane.line_size - 3 * width]
    return frame


def reformat(frame: av.VideoFrame, *, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """Convert a picture to another size and pixel format.

    Raises:
        OSError: libswscale does not know its colour space.
        av.FFmpegError: likewise.
    """
    options: dict[str, Any] = {}
    if _MAJOR < _READS_COLOURS and pixel_format == "rgb24":
        space = int(frame.colorspace)
        if space not in _CONVERTIBLE:
            raise OSError(f"libswscale does not know colour space {space}")
        # earlier versions take all as BT.601 of limited range, and stop there if source and target are alike
        source = space if space in _OWN_MATRIX else _BT601
        full = frame.format.name.startswith("yuvj") or int(frame.color_range) == _FULL
        options = {
            "src_colorspace": source,
            "dst_colorspace": _BT709 if source == _BT601 else _BT601,
            "src_color_range": _FULL if full else _LIMITED,
            "dst_color_range": _FULL,
        }
    if _MAJOR >= _SCALES_IN_THREADS:
        # by default each conversion starts one thread per core and waits for all of them
        options["threads"] = 1
    return frame.reformat(width=width, height=height, format=pixel_format, interpolation="BICUBIC", **options)
