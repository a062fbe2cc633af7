"""Videos whose bytes are in memory: the record of the file that holds the same bytes, and nothing else is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import codecmeta
from codecmeta.record.fields import FIELDS
from tests.codecmeta.make_video import write_video

DATA = Path(__file__).parents[3] / "data"
CLIPS = ("event_h264.mp4", "cut_h264.mkv", "pan_hevc.mp4", "objects_vp9.webm", "noise_mpeg4.avi")


@pytest.mark.parametrize("name", CLIPS)
def test_bytes_give_the_record_of_their_file(name: str) -> None:
    path = DATA / name
    by_path = codecmeta.extract(path, frames="uniform:5", motion=True, qp=True)
    by_bytes = codecmeta.extract(path.read_bytes(), frames="uniform:5", motion=True, qp=True)
    for field in FIELDS:
        expected, found = by_path.stored(field), by_bytes.stored(field)
        assert (expected is None) == (found is None), field
        if expected is not None and found is not None:
            np.testing.assert_array_equal(found, expected, err_msg=field)
    assert {**by_bytes.info, "source": None} == {**by_path.info, "source": None}
    assert by_bytes.info["source"]["sha256"] == by_path.info["source"]["sha256"]


def test_transport_streams_which_are_opened_again_to_rewind(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.ts", container="mpegts")
    by_path, by_bytes = codecmeta.extract(path), codecmeta.extract(path.read_bytes())
    np.testing.assert_array_equal(by_bytes.frame_pts, by_path.frame_pts)
    np.testing.assert_array_equal(by_bytes.frames, by_path.frames)


def test_a_file_cut_short_is_refused_as_on_disk() -> None:
    data = (DATA / "event_h264.mp4").read_bytes()
    with pytest.raises(codecmeta.SourceError) as caught:
        codecmeta.extract(data[: len(data) // 2])
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("head", ["ffconcat version 1.0\nfile {}\n", "#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"])
def test_no_second_file_is_opened(head: str) -> None:
    playlist = head.format(DATA / "event_h264.mp4").encode()
    with pytest.raises(codecmeta.SourceError) as caught:
        codecmeta.extract(playlist)
    assert caught.value.code == "format_refused"


def test_no_bytes_are_no_video() -> None:
    with pytest.raises(codecmeta.SourceError, match="no bytes are given"):
        codecmeta.extract(b"")


def test_a_function_chooses_frames_by_their_times() -> None:
    seen: list[NDArray[np.float64]] = []

    def choose(seconds: NDArray[np.float64], fps: float | None) -> list[int]:
        seen.append(seconds)
        assert fps == pytest.approx(25)
        return [len(seconds) - 1, 3, 3]

    data = (DATA / "event_h264.mp4").read_bytes()
    record = codecmeta.extract(data, frames=choose, pixels=None)
    everything = codecmeta.extract(data, frames="all", pixels=None)
    np.testing.assert_array_equal(seen[-1], everything.frame_seconds)
    np.testing.assert_array_equal(record.frame_seconds, everything.frame_seconds[[3, -1]])
    again = codecmeta.extract(data, frames=record.info["extraction"]["sampling"], pixels=None)
    assert again.info == record.info


def test_a_function_that_chooses_no_frame_of_the_video_is_refused() -> None:
    data = (DATA / "event_h264.mp4").read_bytes()
    with pytest.raises(codecmeta.SamplingError, match="outside the video"):
        codecmeta.extract(data, frames=lambda seconds, fps: [len(seconds)])
    with pytest.raises(codecmeta.SamplingError, match="selects no frame"):
        codecmeta.extract(data, frames=lambda seconds, fps: [])
