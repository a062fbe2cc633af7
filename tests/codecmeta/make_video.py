"""Small videos made on the spot, for shapes that no shipped clip has."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def picture(index: int, *, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Return a gradient with a square that moves three pixels a frame, RGB."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([2 * x, 3 * y, x + y], axis=-1).astype(np.uint8)
    left = (3 * index) % (width - 16)
    image[20:36, left : left + 16] = (240, 40, 40)
    return image


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 20,
    width: int = 96,
    height: int = 64,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    first_pts: int = 0,
    image: NDArray[np.uint8] | None = None,
    container: str | None = None,
) -> Path:
    """Encode `frames` pictures at 25 fps; `image` stands still if it is given."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.thread_count = 1
        stream.options = {"g": "8"} | (options or {})
        for index in range(frames):
            rgb = picture(index, width=width, height=height) if image is None else image
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
            frame.pts = index + first_pts
            frame.time_base = Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_audio(path: Path) -> Path:
    """Write a second of silence."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        stream.layout = "mono"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        samples.pts = 0
        output.mux(stream.encode(samples))
        output.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> list[av.VideoFrame]:
    """Every frame of a video as plain PyAV gives them, one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.thread_count = 1
        return list(container.decode(stream))


def write_uncoded(path: Path, source: Path, *, every: int = 3) -> list[int]:
    """Copy an MPEG-4 video at 25 fps, a P plane in `every` replaced by one that is not coded; returns their packets."""
    replaced = []
    with av.open(str(source)) as reader, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(packet for packet in reader.demux(video=0) if packet.size):
            payload = bytes(packet)
            at = payload.index(b"\0\0\1\xb6") + 4
            bits = "".join(f"{byte:08b}" for byte in payload[at : at + 8])
            header = bits[: bits.index("0", 2) + 8]
            if bits.startswith("01") and number % every == 1:
                replaced.append(number)
                stuffed = f"{header}00".ljust(-(-(len(header) + 2) // 8) * 8, "1")
                body = int(stuffed, 2).to_bytes(len(stuffed) // 8, "big")
                new = av.Packet(payload[:at] + body)
                new.pts, new.dts, new.time_base, new.is_keyframe = packet.pts, packet.dts, packet.time_base, False
                packet = new
            packet.stream = copy
            output.mux(packet)
    return replaced
