"""Decoded pictures -> 8-bit RGB as a vision encoder sees them."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray


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
    """
    width, height = scaled_size(frame.width, frame.height, short_side=short_side)
    image = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, rotation // 90 % 4))


def scaled_size(width: int, height: int, *, short_side: int) -> tuple[int, int]:
    """Width and height after the short side has become `short_side`, the aspect kept to the nearest pixel."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    return max(1, round(width * short_side / short)), max(1, round(height * short_side / short))
