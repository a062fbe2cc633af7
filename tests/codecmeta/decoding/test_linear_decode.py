"""A linear decode counts what is there, and what is not."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from codecmeta.decoding.linear_decode import decode_linearly
from tests.codecmeta.make_video import decode_all, write_uncoded, write_video

CLIPS = ["event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi", "pan_hevc.mp4", "objects_vp9.webm", "still_h264.mp4"]


@pytest.mark.parametrize("name", CLIPS)
def test_own_clips_are_sound(data: Path, name: str) -> None:
    found = decode_linearly(data / name)
    assert found.sound
    assert found.pictures == len(decode_all(data / name))
    assert found.missing == 0


def test_planes_that_are_not_coded_are_pictures(tmp_path: Path) -> None:
    source = write_video(tmp_path / "whole.mkv", codec="mpeg4", frames=36, options={"g": "12"})
    uncoded = write_uncoded(tmp_path / "clip.avi", source)
    found = decode_linearly(tmp_path / "clip.avi")
    assert found.sound and found.pictures == 36
    assert len(decode_all(tmp_path / "clip.avi")) == 36 - len(uncoded) + (uncoded[-1] == 35)


def test_noise_is_missing(data: Path, tmp_path: Path) -> None:
    """The payload of the second half is overwritten."""
    with av.open(str(data / "pan_hevc.mp4")) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray((data / "pan_hevc.mp4").read_bytes())
    for position, size in places[len(places) // 2 :]:
        assert position is not None
        content[position : position + size] = bytes(size)
    path = tmp_path / "noise.mp4"
    path.write_bytes(content)
    found = decode_linearly(path)
    assert not found.sound
    assert found.missing == len(places) - len(places) // 2
    assert found.pictures == len(places) // 2
