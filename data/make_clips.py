"""Clips of the project: renders and encodes them, and writes their properties known by construction.

    python data/make_clips.py --out DIR

writes the clips and `expected.json` to DIR. The pixels are the same on every machine; the files are the
same, byte for byte, with the same PyAV (single-threaded encoders, no time stamps, no random identifiers).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
from av.video.stream import VideoStream
from drawing import Samples
from scenes import SCENES, Scene

RATE = 25


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Encoding of a scene.

    Attributes:
        scene: its name in `SCENES`.
        suffix: of the file, which also chooses the container.
        encoder: FFmpeg's name of it.
        codec: FFmpeg's name of the codec.
        profile: profile that the stream states.
        gop: distance of the key frames; cuts add none except where `keys` says so.
        b_frames: the stream contains them.
        psnr: every decoded plane is at least this close to the rendered one, in dB.
        keys: key frames beyond the multiples of `gop`.
        options: of the encoder.
    """

    scene: str
    suffix: str
    encoder: str
    codec: str
    profile: str
    gop: int
    b_frames: bool
    psnr: float
    options: dict[str, str]
    keys: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """File name of the clip."""
        return f"{self.scene}_{self.codec}.{self.suffix}"

    def key_frames(self, frames: int) -> list[int]:
        """Return frames that start a GoP: every `gop`-th, counted again from each of `keys`."""
        starts = [0, *self.keys, frames]
        return [k for a, b in pairwise(starts) for k in range(a, b, self.gop)]


# Plain C, so that the bytes do not depend on the processor, and no macroblock tree, which has been seen to differ
# between runs.
X264 = "threads=1:sliced-threads=0:deterministic=1:mbtree=0:asm=0"
ENCODINGS = (
    Encoding(
        scene="event",
        suffix="mp4",
        encoder="libx264",
        codec="h264",
        profile="High",
        gop=30,
        b_frames=True,
        psnr=38.0,
        options={
            "preset": "medium",
            "crf": "26",
            "x264-params": f"{X264}:keyint=30:min-keyint=30:scenecut=0:bframes=3:b-pyramid=normal:ref=4:qcomp=1",
        },
    ),
    Encoding(
        scene="cut",
        suffix="mkv",
        encoder="libx264",
        codec="h264",
        profile="Constrained Baseline",
        gop=25,
        b_frames=False,
        psnr=44.0,
        keys=(37,),
        options={
            "preset": "medium",
            "profile": "baseline",
            "crf": "25",
            "x264-params": f"{X264}:keyint=25:min-keyint=5:scenecut=40:ref=2",
        },
    ),
    Encoding(
        scene="noise",
        suffix="avi",
        encoder="mpeg4",
        codec="mpeg4",
        profile="Simple Profile",
        gop=12,
        b_frames=False,
        psnr=33.0,
        options={"qmin": "6", "qmax": "6", "flags": "+bitexact", "sc_threshold": "1000000000"},
    ),
    Encoding(
        scene="pan",
        suffix="mp4",
        encoder="libx265",
        codec="hevc",
        profile="Main",
        gop=32,
        b_frames=True,
        psnr=37.0,
        options={
            "preset": "medium",
            "crf": "27",
            "x265-params": "pools=none:frame-threads=1:wpp=0:keyint=32:min-keyint=32:scenecut=0"
            ":open-gop=0:bframes=3:log-level=none:info=0",
        },
    ),
    Encoding(
        scene="objects",
        suffix="webm",
        encoder="libvpx-vp9",
        codec="vp9",
        profile="Profile 0",
        gop=20,
        b_frames=False,
        psnr=42.0,
        options={
            "crf": "32",
            "b": "0",
            "keyint_min": "20",
            "deadline": "good",
            "cpu-used": "2",
            "row-mt": "0",
            "tile-columns": "0",
            "auto-alt-ref": "0",
            "lag-in-frames": "0",
        },
    ),
    Encoding(
        scene="still",
        suffix="mp4",
        encoder="libx264",
        codec="h264",
        profile="Main",
        gop=50,
        b_frames=True,
        psnr=45.0,
        options={
            "preset": "medium",
            "profile": "main",
            "crf": "22",
            "x264-params": f"{X264}:keyint=50:min-keyint=50:scenecut=0:bframes=2:qcomp=1",
        },
    ),
)


def encode(scene: Scene, encoding: Encoding, path: Path) -> str:
    """Encode a scene.

    Returns:
        SHA-256 of all rendered planes, in order.
    """
    digest = hashlib.sha256()
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream = cast(VideoStream, container.add_stream(encoding.encoder, rate=RATE, options=encoding.options))
        stream.width, stream.height = scene.size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, RATE)
        context.thread_count = 1
        context.gop_size = encoding.gop
        for index in range(scene.frames):
            planes = scene.render(index)
            for plane in planes:
                digest.update(plane.tobytes())
            frame = to_frame(planes)
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return digest.hexdigest()


def to_frame(planes: tuple[Samples, Samples, Samples]) -> av.VideoFrame:
    """Wrap three planes as a yuv420p frame."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, "yuv420p")
    for target, plane in zip(frame.planes, planes, strict=True):
        padded = bytearray(target.buffer_size)
        rows, columns = plane.shape
        for row in range(rows):
            padded[row * target.line_size : row * target.line_size + columns] = plane[row].tobytes()
        target.update(bytes(padded))
    return frame


def describe(scene: Scene, encoding: Encoding, pixels: str) -> dict[str, Any]:
    """Describe a clip by construction, without reading the file.

    Returns:
        Stream properties; `key_frames`, the frames that start a GoP; `cut`, the first frame of the second
        shot; `event`, first frame and the one after the last; `noise`, in luma steps; `background_still`,
        whether everything outside the sprites' boxes repeats the frame before (except noise and the cut);
        `psnr`, what every decoded plane reaches; `sprites` with one box x, y, w, h per frame of `frames`,
        outside of which the sprite leaves no trace; the digest of the planes as rendered.
    """
    width, height = scene.size
    sprites = [
        {
            "name": sprite.name,
            "role": sprite.role,
            "frames": list(sprite.frames),
            "boxes": [sprite.bounds(frame, width, height) for frame in range(*sprite.frames)],
        }
        for sprite in scene.sprites
    ]
    events = [sprite for sprite in sprites if sprite["role"] == "event"]
    return {
        "shows": scene.shows,
        "codec": encoding.codec,
        "profile": encoding.profile,
        "width": width,
        "height": height,
        "fps": [RATE, 1],
        "frames": scene.frames,
        "gop": encoding.gop,
        "key_frames": encoding.key_frames(scene.frames),
        "b_frames": encoding.b_frames,
        "noise": scene.noise,
        "background_still": scene.still,
        "cut": scene.cut,
        "event": events[0]["frames"] if events else None,
        "psnr": encoding.psnr,
        "pixels_sha256": pixels,
        "sprites": sprites,
    }


def to_json(expected: dict[str, Any]) -> str:
    """Return indented JSON, with every list of boxes on one line."""
    boxes: list[str] = []

    def fold(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fold(item) for key, item in value.items()}
        if isinstance(value, list) and not any(isinstance(item, dict) for item in value):
            boxes.append(json.dumps(value, separators=(",", ":")))
            return f"@{len(boxes) - 1}@"
        return [fold(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(fold(expected), indent=1)
    for index, line in enumerate(boxes):
        text = text.replace(f'"@{index}@"', line)
    return text + "\n"


def make(out: Path) -> None:
    """Write all clips and `expected.json` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    clips: dict[str, Any] = {}
    for encoding in ENCODINGS:
        scene = SCENES[encoding.scene]
        path = out / encoding.name
        pixels = encode(scene, encoding, path)
        data = path.read_bytes()
        clips[path.name] = describe(scene, encoding, pixels) | {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        print(f"{path.name:20} {len(data):8} bytes")
    expected = {"pyav": av.__version__, "ffmpeg": av.ffmpeg_version_info, "clips": clips}
    (out / "expected.json").write_text(to_json(expected), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder (default: next to this file)")
    make(parser.parse_args().out)
