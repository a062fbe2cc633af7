"""Decoded pictures -> 8-bit RGB as a vision encoder sees them."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import SourceError


def upright(angle: int) -> int:
    """An angle in degrees if it is a multiple of 90, else 0: pictures are turned by quarters only."""
    return angle if angle % 90 == 0 else 0


def crop(frame: av.VideoFrame, *, width: int, height: int) -> av.VideoFrame:
    """The top-left part of a picture, without copying its samples."""
    if (frame.width, frame.height) == (width, height):
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    cut = graph.add("crop", f"{width}:{height}:0:0:exact=1")
    sink = graph.add("buffersink")
    source.link_to(cut)
    cut.link_to(sink)
    graph.configure()
    source.push(frame)
    return cast(av.VideoFrame, sink.pull())


def to_rgb(frame: av.VideoFrame, *, short_side: int, rotation: int) -> NDArray[np.uint8]:
    """8-bit RGB in display orientation, the short side scaled down to `short_side`, never up.

    Returns:
        uint8 (h, w, 3).

    Raises:
        SourceError: as `convert`.
    """
    width, height = scaled_size(frame.width, frame.height, short_side=short_side)
    image = convert(frame, width=width, height=height, pixel_format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, rotation // 90 % 4))


def convert(frame: av.VideoFrame, *, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """A picture in another size and pixel format.

    Raises:
        SourceError: libav cannot convert such pictures.
    """
    if frame.colorspace in _MEANINGLESS:
        frame.colorspace = _UNSPECIFIED
    try:
        return frame.reformat(width=width, height=height, format=pixel_format, interpolation="BICUBIC")
    except (OSError, av.FFmpegError) as error:
        told = f"pixel format {frame.format.name}, colour space {int(frame.colorspace)}"
        raise SourceError("unreadable", f"its pictures cannot be converted to {pixel_format} ({told})") from error


# matrix coefficients (Rec. ITU-T H.273, table 4), of which some encoders write the reserved ones
_UNSPECIFIED = 2
_MEANINGLESS = frozenset({3, *range(18, 256)})


def scaled_size(width: int, height: int, *, short_side: int) -> tuple[int, int]:
    """Width and height after the short side has become `short_side`, the aspect kept to the nearest pixel."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    return max(1, round(width * short_side / short)), max(1, round(height * short_side / short))
