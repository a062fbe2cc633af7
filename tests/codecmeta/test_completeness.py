"""Half files are told from whole ones by their structure."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from codecmeta.completeness import judge_file
from tests.codecmeta.make_video import write_video

FORMATS = [("mp4", "libx264"), ("mov", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")]


def state(path: Path) -> str:
    return judge_file(path, path.stat().st_size)[0]


def cut(path: Path, size: int) -> Path:
    part = path.with_name(f"part-{path.name}")
    part.write_bytes(path.read_bytes()[:size])
    return part


@pytest.mark.parametrize(("ending", "codec"), FORMATS)
def test_announced_lengths(tmp_path: Path, ending: str, codec: str) -> None:
    path = write_video(tmp_path / f"clip.{ending}", codec=codec)
    size = path.stat().st_size
    assert state(path) == "complete"
    for part in (size // 2, size * 9 // 10, size - 1):
        assert state(cut(path, part)) == "truncated", part


def test_fragmented_mp4(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    whole = write_video(tmp_path / "whole.mp4")
    with (
        av.open(str(whole)) as source,
        av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out,
    ):
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    assert state(path) == "complete"
    assert state(cut(path, path.stat().st_size * 2 // 3)) == "truncated"


def test_program_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mpg", codec="mpeg2video", frames=60)
    size = path.stat().st_size
    assert state(path) in ("complete", "unknown")
    assert state(cut(path, size * 2 // 3 + 100)) == "truncated"
    # cut between two packs, a program stream without an end code looks whole
    assert state(cut(path, size // 2048 // 2 * 2048)) == "unknown"


def test_transport_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.ts")
    assert state(path) == "unknown"
    assert state(cut(path, path.stat().st_size // 2 // 188 * 188 + 77)) == "truncated"


def test_streams_without_a_container_say_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.h264", container="h264")
    assert state(path) == "unknown"


def test_real_clips_halved(clips: Path, tmp_path: Path) -> None:
    for path in sorted(path for path in clips.rglob("*.*") if path.suffix != ".md"):
        assert state(path) != "truncated", path.name
        part = tmp_path / path.name
        part.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        # a raw stream has no structure: its last picture tells, see test_extraction
        assert state(part) == ("unknown" if path.suffix == ".264" else "truncated"), path.name
