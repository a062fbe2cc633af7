"""Damaged videos: small clips in four containers, and seeded ways to damage their bytes."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

DATA = Path(__file__).resolve().parent.parent / "data"

CLIPS: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", {"g": "12", "bf": "2", "crf": "6"}),
    "h264.mkv": ("libx264", {"g": "12", "bf": "2", "crf": "6"}),
    "h264.ts": ("libx264", {"g": "12", "bf": "2", "crf": "6"}),
    "h264.avi": ("libx264", {"g": "12", "bf": "0", "crf": "6"}),
    "hevc.mp4": ("libx265", {"g": "12", "crf": "6", "x265-params": "log-level=none:pools=none:frame-threads=1"}),
    "hevc.mkv": ("libx265", {"g": "12", "crf": "6", "x265-params": "log-level=none:pools=none:frame-threads=1"}),
    "hevc.ts": ("libx265", {"g": "12", "crf": "6", "x265-params": "log-level=none:pools=none:frame-threads=1"}),
    "vp9.mp4": ("libvpx-vp9", {"g": "12", "cpu-used": "8", "crf": "4", "b": "0"}),
    "vp9.mkv": ("libvpx-vp9", {"g": "12", "cpu-used": "8", "crf": "4", "b": "0"}),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2", "b": "900k"}),
    "mpeg4.mkv": ("mpeg4", {"g": "12", "b": "900k"}),
    "mpeg4.ts": ("mpeg4", {"g": "12", "bf": "2", "b": "900k"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "b": "900k"}),
}
"""Encoder and its options of each clip."""

KINDS = ("flip", "cut", "splice", "zero", "insert")
CONTAINERS = {"mp4": "mp4", "mkv": "matroska", "ts": "mpegts", "avi": "avi"}


def make_clips(folder: Path, *, frames: int = 36) -> list[Path]:
    """Encode the clips from the pictures of data/pan_hevc.mp4, 160x120 at 25 fps."""
    with av.open(str(DATA / "pan_hevc.mp4")) as source:
        decoded = [frame for _, frame in zip(range(frames), source.decode(video=0), strict=False)]
        pictures = [frame.reformat(width=160, height=120, format="yuv420p") for frame in decoded]
    paths = []
    for name, (codec, options) in CLIPS.items():
        path = folder / name
        # most writers of Matroska add no checksums: one clip has them, three do not
        container_options = {"write_crc32": str(int(codec == "libx265"))} if path.suffix == ".mkv" else {}
        with av.open(str(path), "w", format=CONTAINERS[path.suffix[1:]], options=container_options) as output:
            stream = output.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            stream.thread_count = 1
            stream.options = options
            for index, picture in enumerate(pictures):
                picture.pts, picture.time_base = index, Fraction(1, 25)
                picture.pict_type = 0
                output.mux(stream.encode(picture))
            output.mux(stream.encode(None))
        paths.append(path)
    return paths


def remux(source: Path, path: Path) -> bool:
    """Copy the video stream into the container that the ending names; False where that container cannot hold it."""
    try:
        with av.open(str(source)) as reader, av.open(str(path), "w", format=CONTAINERS[path.suffix[1:]]) as output:
            stream = reader.streams.best("video")
            assert isinstance(stream, av.VideoStream)
            copy = output.add_stream_from_template(stream)
            name = stream.codec_context.codec.canonical_name
            # what a container without global headers has in its packets
            in_band = None
            if name in ("h264", "hevc") and path.suffix in (".ts", ".avi"):
                in_band = BitStreamFilterContext(f"{name}_mp4toannexb", stream, copy)
            elif path.suffix == ".ts":
                in_band = BitStreamFilterContext("dump_extra", stream, copy)
            for packet in reader.demux(stream):
                parts: list[Any] = (
                    [packet] if in_band is None else list(in_band.filter(packet if packet.size else None))
                )
                for part in parts:
                    if part.size:
                        part.stream = copy
                        output.mux(part)
        with av.open(str(path)) as reader:
            holds = bool(reader.streams.video)
    except (av.FFmpegError, ValueError):
        holds = False
    if not holds:
        path.unlink(missing_ok=True)
    return holds


def damage(content: bytes, *, seed: int) -> tuple[str, bytes]:
    """Damage a file in one of five ways.

    Args:
        content: the file.
        seed: fixes kind, places and bytes.

    Returns:
        The kind, and the damaged file.
    """
    random_ = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    size = len(content)
    begin = random_.randrange(size)
    length = min(random_.choice((1, 16, 188, 1000, 4096)) * random_.randint(1, 8), size - begin)
    if kind == "flip":
        damaged = bytearray(content)
        for _ in range(random_.choice((1, 1, 2, 8, 64))):
            damaged[random_.randrange(size)] ^= 1 << random_.randrange(8)
        return kind, bytes(damaged)
    if kind == "cut":
        return kind, content[:begin] + (content[begin + length :] if random_.random() < 0.7 else b"")
    if kind == "splice":
        other = random_.randrange(size)
        piece = content[other : other + length]
        keeps_length = random_.random() < 0.5
        return kind, content[:begin] + piece + content[begin + (len(piece) if keeps_length else 0) :]
    if kind == "zero":
        return kind, content[:begin] + bytes(length) + content[begin + length :]
    return kind, content[:begin] + random_.randbytes(length) + content[begin:]
