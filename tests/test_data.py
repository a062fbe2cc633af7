"""The project's own clips: rendering is reproducible, and the files are what expected.json says."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parent.parent / "data"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
CLIPS = sorted(EXPECTED["clips"])
Planes = tuple[NDArray[np.uint8], ...]


@pytest.fixture(scope="module")
def make_clips() -> Any:
    """Import the script the way Python runs it: with its own folder on the path."""
    sys.path.insert(0, str(DATA))
    try:
        return importlib.import_module("make_clips")
    finally:
        sys.path.remove(str(DATA))


class Rendered:
    """A scene whose frames are rendered once."""

    def __init__(self, scene: Any) -> None:
        self.size, self.frames = scene.size, scene.frames
        self.planes: list[Planes] = [scene.render(frame) for frame in range(scene.frames)]

    def render(self, frame: int) -> Planes:
        return self.planes[frame]


@pytest.fixture(scope="module")
def rendered(make_clips: Any) -> dict[str, Rendered]:
    return {encoding.name: Rendered(make_clips.SCENES[encoding.scene]) for encoding in make_clips.ENCODINGS}


def digest(planes: list[Planes]) -> str:
    return hashlib.sha256(b"".join(plane.tobytes() for frame in planes for plane in frame)).hexdigest()


def decode(path: Path) -> list[Planes]:
    with av.open(str(path)) as container:
        return [tuple(samples(plane) for plane in frame.planes) for frame in container.decode(video=0)]


def samples(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def psnr(first: Planes, second: Planes) -> float:
    """Of the worst plane, in dB."""
    errors = [np.mean((a.astype(float) - b.astype(float)) ** 2) for a, b in zip(first, second, strict=True)]
    return float(10 * np.log10(255**2 / max(*errors, 1e-10)))


def packet_sizes(path: Path) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return np.array([p.size for p in packets]), np.array([p.is_keyframe for p in packets])


@pytest.mark.parametrize("name", CLIPS)
def test_rendering_gives_the_recorded_pixels(name: str, rendered: dict[str, Rendered]) -> None:
    planes = rendered[name].planes
    assert digest(planes) == EXPECTED["clips"][name]["pixels_sha256"]
    changed = [*planes[:-1], tuple(plane ^ np.uint8(index == 0) for index, plane in enumerate(planes[-1]))]
    assert digest(changed) != EXPECTED["clips"][name]["pixels_sha256"]


def test_noise_differs_from_frame_to_frame_and_has_the_stated_strength(make_clips: Any) -> None:
    scene = make_clips.SCENES["noise"]
    still = replace(scene, sprites=(), noise=0.0).render(0)[0].astype(float)
    noisy = [replace(scene, sprites=()).render(frame)[0].astype(float) - still for frame in (0, 1)]
    assert noisy[0].std() == pytest.approx(scene.noise, rel=0.05)
    assert abs(np.corrcoef(noisy[0].ravel(), noisy[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("name", CLIPS)
def test_committed_file_is_the_recorded_one(name: str) -> None:
    clip = EXPECTED["clips"][name]
    content = (DATA / name).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (clip["bytes"], clip["sha256"])


@pytest.mark.parametrize("name", CLIPS)
def test_encoding_again_gives_the_same_bytes(
    name: str, make_clips: Any, rendered: dict[str, Rendered], tmp_path: Path
) -> None:
    """The committed bytes where the libraries are those that made them, else those of another run."""
    encoding = next(encoding for encoding in make_clips.ENCODINGS if encoding.name == name)

    def encode(scene: Rendered, run: str) -> bytes:
        path = tmp_path / f"{run}.{encoding.suffix}"
        make_clips.encode(scene, encoding, path)
        return path.read_bytes()

    first = encode(rendered[name], "first")
    if (av.__version__, av.ffmpeg_version_info) == (EXPECTED["pyav"], EXPECTED["ffmpeg"]):
        assert first == (DATA / name).read_bytes()
    else:
        assert first == encode(rendered[name], "second")
    brighter = Rendered.__new__(Rendered)
    brighter.size, brighter.frames = rendered[name].size, rendered[name].frames
    brighter.planes = [(np.minimum(y, 200) + 20, *chroma) for y, *chroma in rendered[name].planes]
    assert encode(brighter, "brighter") != first


@pytest.mark.parametrize("name", CLIPS)
def test_stream_is_as_described(name: str) -> None:
    clip = EXPECTED["clips"][name]
    with av.open(str(DATA / name)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert context.name == clip["codec"]
        assert context.profile == clip["profile"]
        assert (stream.width, stream.height) == (clip["width"], clip["height"])
        assert stream.average_rate is not None
        assert stream.average_rate.as_integer_ratio() == tuple(clip["fps"])
    sizes, keys = packet_sizes(DATA / name)
    assert len(sizes) == clip["frames"]
    assert np.flatnonzero(keys).tolist() == clip["key_frames"]
    with av.open(str(DATA / name)) as container:
        kinds = [av.video.frame.PictureType(frame.pict_type).name for frame in container.decode(video=0)]
    assert ("B" in kinds) == clip["b_frames"]
    assert [index for index in clip["key_frames"] if kinds[index] != "I"] == []


@pytest.mark.parametrize("name", CLIPS)
def test_decoded_pixels_are_the_rendered_ones(name: str, rendered: dict[str, Rendered]) -> None:
    bound = EXPECTED["clips"][name]["psnr"]
    decoded = decode(DATA / name)
    assert len(decoded) == EXPECTED["clips"][name]["frames"]
    assert min(psnr(a, b) for a, b in zip(decoded, rendered[name].planes, strict=True)) >= bound
    turned = [tuple(plane[::-1] for plane in planes) for planes in rendered[name].planes]
    assert max(psnr(a, b) for a, b in zip(decoded, turned, strict=True)) < bound


@pytest.mark.parametrize("scene_name", ["event", "cut", "objects"])
def test_boxes_hold_everything_that_changes(scene_name: str, make_clips: Any) -> None:
    scene = replace(make_clips.SCENES[scene_name], noise=0.0)
    name = next(encoding.name for encoding in make_clips.ENCODINGS if encoding.scene == scene_name)
    outside = inside = 0
    for frame in range(0, scene.frames, 7):
        changed = np.any(scene.draw(frame) != scene.background(frame), axis=2)
        allowed = np.zeros_like(changed)
        for sprite in EXPECTED["clips"][name]["sprites"]:
            first, last = sprite["frames"]
            if first <= frame < last:
                x, y, w, h = sprite["boxes"][frame - first]
                allowed[y : y + h, x : x + w] = True
        outside += int((changed & ~allowed).sum())
        inside += int((changed & allowed).sum())
    assert outside == 0
    assert inside > 0


@pytest.mark.parametrize("name", CLIPS)
def test_still_background_repeats_itself_within_a_shot(name: str, make_clips: Any) -> None:
    clip = EXPECTED["clips"][name]
    scene = next(make_clips.SCENES[e.scene] for e in make_clips.ENCODINGS if e.name == name)
    last = clip["frames"] - 1
    same = np.array_equal(scene.background(0), scene.background((clip["cut"] or last + 1) - 1))
    assert same == clip["background_still"]
    if clip["cut"]:
        assert not np.array_equal(scene.background(0), scene.background(clip["cut"]))


def test_the_events_gop_costs_many_times_the_bytes_of_any_other() -> None:
    clip = EXPECTED["clips"]["event_h264.mp4"]
    sizes, _ = packet_sizes(DATA / "event_h264.mp4")
    gops = sizes.reshape(-1, clip["gop"]).mean(axis=1)
    event = clip["event"][0] // clip["gop"]
    assert clip["event"] == [event * clip["gop"], (event + 1) * clip["gop"]]
    assert gops[event] > 6 * np.delete(gops, event).max()
