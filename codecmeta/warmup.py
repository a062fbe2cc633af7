"""Compile the kernels once, before anything is timed: numba keeps what it compiles beside the package."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from codecmeta.extraction import extract

_CODECS = (("libx264", "clip.mp4"), ("mpeg4", "clip.avi"))


def compile_kernels() -> None:
    """Extract two tiny clips, so that every kernel of the usual sources is compiled or loaded.

    Codecs that this build of libav cannot encode are passed over; their kernels compile on first use.
    """
    with tempfile.TemporaryDirectory() as folder:
        for codec, name in _CODECS:
            if codec in av.codecs_available:
                path = Path(folder) / name
                _encode(path, codec)
                extract(path, frames="all", motion=True, qp=True, pixels=64)


def _encode(path: Path, codec: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3)).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = cast(VideoStream, output.add_stream(codec, rate=25))
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(6):
            image = np.ascontiguousarray(noise[:, 2 * index : 2 * index + 128])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
