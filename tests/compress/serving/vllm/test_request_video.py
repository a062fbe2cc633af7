"""Videos of requests: frames and metadata from the same bytes, chosen by a rule of the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import codecmeta
from compress.serving.vllm.codec import decode_record, describe_video
from compress.serving.vllm.request_video import describe_reading, list_shortfalls, read_video
from tests.codecmeta.make_video import decode_all, write_video

DATA = Path(__file__).resolve().parents[4] / "data"
H264, HEVC, VP9 = (DATA / name for name in ("event_h264.mp4", "pan_hevc.mp4", "objects_vp9.webm"))


def first(count: int, fps: float, duration: float) -> Sequence[int]:
    return (0,)


@pytest.mark.parametrize("path", [H264, HEVC, VP9])
def test_frames_are_those_of_a_linear_decode_at_their_own_size(path: Path) -> None:
    meta = read_video(path.read_bytes(), lambda count, fps, duration: range(3, count, 20))
    plain = [frame.to_ndarray(format="rgb24") for frame in decode_all(path)][3::20]
    assert meta.frames is not None
    assert meta.frames.shape == (len(plain), *plain[0].shape)
    # the same pictures: another conversion to RGB differs by a rounding step or two
    assert np.abs(meta.frames.astype(int) - np.stack(plain).astype(int)).mean() < 2
    shifted = np.roll(np.stack(plain).astype(int), 1, axis=0)
    assert np.abs(meta.frames.astype(int) - shifted).mean() > 2


def test_the_rule_is_given_count_rate_and_duration() -> None:
    seen: list[tuple[int, float, float]] = []

    def sample(count: int, fps: float, duration: float) -> Sequence[int]:
        seen.append((count, fps, duration))
        return (1, 2)

    meta = read_video(H264.read_bytes(), sample)
    whole = codecmeta.extract(H264, frames="all", pixels=None, residual="none")
    assert seen == [(len(whole.frame_pts), pytest.approx(25), pytest.approx(len(whole.frame_pts) / 25))]
    np.testing.assert_array_equal(meta.frame_pts, whole.frame_pts[1:3])


def test_packets_and_residual_are_those_of_the_file() -> None:
    meta = read_video(H264.read_bytes(), lambda count, fps, duration: (0, 10, 20))
    plain = codecmeta.extract(H264, frames=(0, 10, 20))
    again = decode_record(describe_video(meta)["codec"])
    np.testing.assert_array_equal(again.packet_size, plain.packet_size)
    np.testing.assert_array_equal(again.gop_packet_size(), plain.gop_packet_size())
    np.testing.assert_array_equal(again.energy_innovation, plain.energy_innovation)


def test_times_travel_as_they_are() -> None:
    """Also those of pictures at unequal distances, which a number divided by a rate does not know."""
    path = DATA.parent.parent / "shared" / "clips" / "screenrec_editor_vfr_h264.mp4"
    if not path.exists():
        pytest.skip(f"needs {path}")
    meta = read_video(path.read_bytes(), lambda count, fps, duration: range(0, count, 9))
    seconds = meta.frame_seconds - meta.frame_seconds[0]
    assert np.ptp(np.diff(seconds)) > 0.01
    given = describe_video(meta)
    np.testing.assert_allclose(np.array(given["frames_indices"]) / given["fps"], seconds, atol=1e-6)


def test_a_single_picture_needs_no_rule(tmp_path: Path) -> None:
    def refuse(count: int, fps: float, duration: float) -> Sequence[int]:
        raise ZeroDivisionError

    path = write_video(tmp_path / "one.mp4", frames=1)
    meta = read_video(path.read_bytes(), refuse)
    assert len(meta.frame_pts) == 1
    assert describe_video(meta)["frames_indices"] == [0]


def test_frames_can_be_scaled_down() -> None:
    meta = read_video(H264.read_bytes(), first, pixels=96)
    assert meta.frames is not None
    assert min(meta.frames.shape[1:3]) == 96


def test_what_was_read_is_described() -> None:
    meta = read_video(H264.read_bytes(), first)
    assert describe_reading(meta).startswith(f"h264 320x240, 1 frames of {len(meta.packet_size)} packets in ")
    assert "residual from bitstream" in describe_reading(meta)
    assert list_shortfalls(meta) == []


def test_what_a_codec_lacks_is_said() -> None:
    meta = read_video(VP9.read_bytes(), first)
    assert "packet sizes from" in describe_reading(meta)
    assert "residual from" not in describe_reading(meta)
    assert any(sentence.startswith("no residual: ") for sentence in list_shortfalls(meta))


def test_demands_beyond_the_limits_are_refused() -> None:
    with pytest.raises(codecmeta.SourceError, match="allowed are 1000 pixels"):
        read_video(H264.read_bytes(), first, limits=codecmeta.Limits(pixels=1000))
    with pytest.raises(codecmeta.SourceError, match="allowed are 1000;"):
        read_video(H264.read_bytes(), first, limits=codecmeta.Limits(bytes=1000))


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", H264.read_bytes()[:20_000]])
def test_what_is_no_whole_video_is_refused(data: bytes) -> None:
    with pytest.raises(codecmeta.SourceError):
        read_video(data, first)
