"""Clips that the benchmarks of extraction render and encode."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np


class Encoding(NamedTuple):
    """An encoder and its settings.

    Attributes:
        codec: name in FFmpeg.
        container: ending of the file.
        options: of the encoder.
    """

    codec: str
    container: str
    options: Mapping[str, str]


WEB: Encoding = Encoding("libx264", "mp4", {"preset": "veryfast", "crf": "26"})
"""x264 at web settings."""


def render(path: Path, *, seconds: int = 60, width: int = 1280, height: int = 720, encoding: Encoding = WEB) -> Path:
    """Render a texture that pans, noise that comes and goes, and a block that moves faster."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 80, width // 8 + 160, 3)).astype(np.uint8)
    texture = np.repeat(np.repeat(coarse, 8, 0), 8, 1)
    noise = rng.integers(-6, 7, (height, width, 3)).astype(np.int16)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(encoding.codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = dict(encoding.options)
        for index in range(25 * seconds):
            x = int(600 + 500 * np.sin(index / 90))
            y = int(250 + 200 * np.cos(index / 140))
            image = texture[y : y + height, x : x + width].astype(np.int16)
            if index // 100 % 2:
                image += np.roll(noise, 37 * index, 1)
            left = 9 * index % (width - 160)
            image[300:420, left : left + 160] = (230, 60, 40)
            frame = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def join(path: Path, source: Path, times: int, *, options: Mapping[str, str] | None = None) -> Path:
    """Repeat the same packets the given number of times; the options are those of the muxer."""
    with av.open(str(source)) as reader, av.open(str(path), "w", options=dict(options or {})) as output:
        template = reader.streams.video[0]
        copy = output.add_stream_from_template(template)
        packets = [(p.pts, p.dts, bytes(p), p.is_keyframe) for p in reader.demux(template) if p.size]
        length = max(pts for pts, *_ in packets) + packets[0][0] - packets[0][1] + 512
        for turn in range(times):
            for pts, dts, content, key in packets:
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.time_base = pts + turn * length, dts + turn * length, template.time_base
                packet.is_keyframe = key
                packet.stream = copy
                output.mux(packet)
    return path
