"""Small streams encoded on the spot, and their pictures with and without residual."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from codecmeta.decoding.side_data import Planes, planes


@dataclass(frozen=True)
class Stream:
    """Packets of one video stream."""

    codec: str
    extradata: bytes | None
    packets: list[Any]


def scene(count: int, width: int, height: int) -> list[NDArray[np.uint8]]:
    """RGB frames: a panned pattern, brightness that changes, a block that moves on its own."""
    rng = np.random.default_rng(0)
    pattern = np.kron(rng.integers(0, 255, (height // 4 + 40, width // 4 + 40)), np.ones((4, 4)))
    columns = np.arange(width)[None]
    frames = []
    for i in range(count):
        y, x = int(20 + 1.5 * i), int(20 + 2.3 * i)
        picture = (pattern[y : y + height, x : x + width] + 128 + 60 * np.sin(columns / 9 + 0.7 * i)) / 2
        picture = picture + 10 * (i % 3)
        picture[40:80, 60 + 3 * i : 100 + 3 * i] = 200 - pattern[40:80, 60:100] / 3
        rgb = np.stack([picture, np.roll(picture, 5, 0), np.roll(picture, 9, 1)], -1)
        frames.append(rgb.clip(0, 255).astype(np.uint8))
    return frames


def encode(
    codec: str,
    *,
    count: int = 8,
    size: tuple[int, int] = (176, 144),
    options: dict[str, str] | None = None,
    b_frames: int = 0,
    pixel_format: str = "yuv420p",
    container: str = "avi",
) -> Stream:
    """Encode `scene` and take the packets out again."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = 100
        stream.codec_context.max_b_frames = b_frames
        stream.options = options or {}
        for frame in scene(count, *size):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    buffer.seek(0)
    return demux(buffer)


def demux(source: Any) -> Stream:
    with av.open(source) as container:
        stream = container.streams.video[0]
        found = [packet for packet in container.demux(stream) if packet.size]
        return Stream(stream.codec_context.name, stream.codec_context.extradata, found)


def decode(stream: Stream, packets: list[Any], **options: str) -> list[Any]:
    """Frames of some of a stream's packets, the demuxer's own: bare bytes lack the padding that decoders read."""
    context: Any = av.CodecContext.create(stream.codec, "r")
    context.extradata = stream.extradata
    context.options = options
    context.thread_type = "NONE"
    context.thread_count = 1
    frames = [frame for packet in packets for frame in context.decode(packet)]
    return frames + context.decode(None)


def prediction_of(stream: Stream, packets: list[Any], skip: str) -> list[Planes]:
    """Pictures decoded with their residual left out (`skip_idct`); MPEG-1/2/4 and H.263 only."""
    return [planes(frame) for frame in decode(stream, packets, skip_idct=skip)]
