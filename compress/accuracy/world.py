"""Scenes as pictures and as MP4 files."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from compress.accuracy.drawing import Picture, backdrop, lay
from compress.accuracy.scene import FPS, SIDE, Scene, Shot

Frame = NDArray[np.uint8]
FIELDS = 8
"""Noise fields per clip; every frame takes one at a random shift, so that no two frames are equal."""


def draw(scene: Scene) -> Iterator[Frame]:
    """Render the pictures of a scene in order, uint8 (128, 128, 3) RGB."""
    rng = np.random.default_rng([scene.seed, 1])
    fields = _noise_fields(rng, scene)
    for shot in scene.shots:
        ground = backdrop(shot)
        for frame in range(shot.start, shot.stop):
            picture = _look(ground, shot, frame - shot.start)
            at = np.array([frame], np.int64)
            for thing in scene.things:
                if thing.start <= frame < thing.stop:
                    x, y = thing.place(at)[0]
                    lay(picture, thing, float(x), float(y))
            if scene.fade != 1.0:
                picture *= scene.fade ** (frame / (scene.frames - 1) - 0.5)
            field = fields[rng.integers(FIELDS)]
            top, left = rng.integers(0, field.shape[0] - SIDE, 2)
            picture += field[top : top + SIDE, left : left + SIDE, None]
            yield np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def encode(scene: Scene) -> bytes:
    """Encode the scene as an MP4 file of H.264, 4:2:0, 25 frames a second, on one thread."""
    file = io.BytesIO()
    settings = scene.encoding
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {
            "preset": settings.preset,
            "crf": str(settings.crf),
            "x264-params": f"keyint={settings.keyint}:bframes={settings.bframes}:threads=1",
        }
        for picture in draw(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def decode(data: bytes, frames: NDArray[np.int64]) -> Frame:
    """Decode some frames of an MP4 file plainly, uint8 (T, 128, 128, 3) RGB."""
    wanted = set(frames.tolist())
    with av.open(io.BytesIO(data), "r") as container:
        container.streams.video[0].thread_count = 1
        pictures = {
            number: frame.to_ndarray(format="rgb24")
            for number, frame in enumerate(container.decode(video=0))
            if number in wanted
        }
    return np.stack([pictures[number] for number in frames.tolist()])


def _look(ground: Picture, shot: Shot, since: int) -> Picture:
    """Return the window of the background that the camera sees."""
    spare = np.array([ground.shape[1] - SIDE - 1, ground.shape[0] - SIDE - 1])
    start = np.where(np.array(shot.pan) < 0, spare, 0)
    x, y = start + np.array(shot.pan) * since
    if not (x % 1 or y % 1):
        return ground[int(y) : int(y) + SIDE, int(x) : int(x) + SIDE].copy()
    move = np.array([[1, 0, -x], [0, 1, -y]])
    return np.asarray(cv2.warpAffine(ground, move, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE), np.float32)


def _noise_fields(rng: np.random.Generator, scene: Scene) -> Picture:
    fields = rng.normal(0, scene.noise, (FIELDS, SIDE + 24, SIDE + 24)).astype(np.float32)
    if not scene.grain:
        return fields
    coarse = np.stack([cv2.GaussianBlur(field, (0, 0), 0.8) for field in fields])
    return np.asarray(coarse * (scene.noise / coarse.std()), np.float32)
