"""Short video for the first request to a server, made where it is needed."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np

SIDE = 224
FRAMES = 32
RATE = 8


def encode_clip() -> bytes:
    """Encode a textured square that moves over a gradient, as H.264 in MP4: 4 seconds, 224 x 224.

    Raises:
        av.FFmpegError: libav has no H.264 encoder.
    """
    rows, cols = np.mgrid[:SIDE, :SIDE]
    texture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=RATE, options={"g": "16"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for number in range(FRAMES):
            picture = np.stack([rows, cols, (rows + cols) // 2], axis=-1).astype(np.uint8)
            left = 5 * number
            picture[88:136, left : left + 48] = texture
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()
