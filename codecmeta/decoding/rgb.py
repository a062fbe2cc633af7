"""RGB pictures, 8-bit, as a vision encoder receives them, from decoded pictures."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from codecmeta.container import pyav
from codecmeta.errors import SourceError
from codecmeta.record.orientation import UPRIGHT, Orientation, display_size


def crop(frame: av.VideoFrame, *, width: int, height: int) -> av.VideoFrame:
    """Crop the top-left part of a picture, without copying its samples."""
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


def to_rgb(
    frame: av.VideoFrame,
    *,
    short_side: int,
    orientation: Orientation = UPRIGHT,
    sample_aspect: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Return 8-bit RGB as displayed, the short side scaled down to `short_side`, never up.

    Args:
        frame: the picture.
        short_side: largest size of the shorter side, in pixels.
        orientation: in which the picture is displayed.
        sample_aspect: width and height of one of its samples, to make pixels square; None keeps the samples as they
            are.

    Returns:
        uint8 (h, w, 3).

    Raises:
        SourceError: as `convert`.
    """
    shown = display_size(frame.width, frame.height, orientation=orientation, sample_aspect=sample_aspect)
    width, height = orientation.swap(*scaled_size(*shown, short_side=short_side))
    image = convert(frame, width=width, height=height, pixel_format="rgb24").to_ndarray()
    return np.ascontiguousarray(orientation.turn(image))


def convert(frame: av.VideoFrame, *, width: int, height: int, pixel_format: str) -> av.VideoFrame:
    """Convert a picture to another size and pixel format.

    Raises:
        SourceError: libav cannot convert such pictures.
    """
    if frame.colorspace in _MEANINGLESS:
        frame.colorspace = _UNSPECIFIED
    try:
        return pyav.reformat(frame, width=width, height=height, pixel_format=pixel_format)
    except (OSError, av.FFmpegError) as error:
        details = f"pixel format {frame.format.name}, colour space {int(frame.colorspace)}"
        raise SourceError("unreadable", f"its pictures cannot be converted to {pixel_format} ({details})") from error


# matrix coefficients (Rec. ITU-T H.273, table 4); some encoders write reserved ones
_UNSPECIFIED = 2
_MEANINGLESS = frozenset({3, *range(18, 256)})


def scaled_size(width: int, height: int, *, short_side: int) -> tuple[int, int]:
    """Return width and height once the short side is `short_side`, the aspect kept to the nearest pixel."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    return max(1, round(width * short_side / short)), max(1, round(height * short_side / short))
