"""The loader ``codecmeta`` next to vLLM's own: the same frames, bit for bit, and the codec's metadata with them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

from compress.serving.vllm.codec import decode_record
from compress.serving.vllm.loader import register_loader
from compress.serving.vllm.video_options import LOADER, SAMPLINGS

DATA = Path(__file__).resolve().parents[2] / "data"
CLIPS = ("event_h264.mp4", "pan_hevc.mp4", "objects_vp9.webm")


@pytest.fixture(scope="module")
def loader() -> VideoLoader:
    register_loader()
    found: VideoLoader = VIDEO_LOADER_REGISTRY.load(LOADER)
    return found


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("clip", CLIPS)
def test_frames_and_times_are_those_of_the_loader_it_follows(loader: VideoLoader, clip: str, sampling: str) -> None:
    data = (DATA / clip).read_bytes()
    options = {"num_frames": 9} if sampling == "opencv" else {"fps": 3}
    expected, told = VIDEO_LOADER_REGISTRY.load(sampling).load_bytes(data, **options)
    frames, said = loader.load_bytes(data, sampling=sampling, **options)
    np.testing.assert_array_equal(frames, expected)
    seconds = np.array(told["frames_indices"]) / told["fps"]
    np.testing.assert_allclose(np.array(said["frames_indices"]) / said["fps"], seconds, atol=2e-6)
    assert said["do_sample_frames"] is False
    record = decode_record(said["codec"])
    assert len(record.frame_pts) == len(frames)
    assert record.packet_size.sum() > 0.5 * len(data)


def test_options_of_the_rule_reach_it(loader: VideoLoader) -> None:
    data = (DATA / "event_h264.mp4").read_bytes()
    for options in ({"fps": 1}, {"fps": 4, "max_frames": 6}):
        expected, _ = VIDEO_LOADER_REGISTRY.load("qwen3_vl").load_bytes(data, **options)
        frames, _ = loader.load_bytes(data, sampling="qwen3_vl", **options)
        np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sampling": "opencv", "backend": "opencv"}, "reads no 'backend'"),
        (
            {"sampling": "opencv", "max_frames": 4},
            "no 'max_frames'; allowed are sampling, pixels, fps, num_frames",
        ),
        ({"sampling": "qwen2_vl", "num_frames": 9}, "with sampling qwen2_vl reads no 'num_frames'"),
        ({"sampling": "glm4"}, "name the rule that chooses frames, one of qwen2_vl"),
        ({}, "sampling None; name the rule"),
    ],
)
def test_options_that_nothing_reads_are_refused(loader: VideoLoader, options: dict[str, Any], reason: str) -> None:
    data = (DATA / "event_h264.mp4").read_bytes()
    with pytest.raises(ValueError, match=reason):
        loader.load_bytes(data, **options)


@pytest.mark.parametrize("data", [b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", b"\0" * 64])
def test_what_is_no_video_is_a_fault_of_the_request(loader: VideoLoader, data: bytes) -> None:
    with pytest.raises(ValueError, match="the video cannot be read"):
        loader.load_bytes(data, sampling="opencv")


def test_pictures_beyond_the_limit_of_vllm_are_refused(loader: VideoLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "1000")
    with pytest.raises(ValueError, match="allowed are 1000 pixels"):
        loader.load_bytes((DATA / "event_h264.mp4").read_bytes(), sampling="opencv")


def test_more_frames_than_a_request_may_have_are_refused(loader: VideoLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.serving.vllm.loader._MOST_FRAMES", 10)
    with pytest.raises(ValueError, match="300 packets; allowed are 10"):
        loader.load_bytes((DATA / "event_h264.mp4").read_bytes(), sampling="opencv")


def test_the_log_says_what_a_codec_lacks(loader: VideoLoader, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("vllm").propagate = True
    with caplog.at_level(logging.INFO, "vllm.compress"):
        loader.load_bytes((DATA / "objects_vp9.webm").read_bytes(), num_frames=4, sampling="opencv")
    assert "video: vp9 241x161, 4 frames" in caplog.text
    assert "no residual" in caplog.text


def test_same_frames_with_other_packet_sizes_have_another_key(loader: VideoLoader) -> None:
    frames, said = loader.load_bytes((DATA / "event_h264.mp4").read_bytes(), num_frames=4, sampling="opencv")
    other = dict(said, codec={"record": said["codec"]["record"].copy()})

    def key(metadata: object) -> str:
        return MultiModalHasher.hash_kwargs("sha256", video=(frames, metadata))

    assert key(other) == key(said)
    other["codec"]["record"][-1] ^= 1
    assert key(other) != key(said)
