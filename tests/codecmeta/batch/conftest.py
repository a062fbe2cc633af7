"""Videos of a batch: two that are in order, and some that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.codecmeta.make_video import write_audio


@pytest.fixture
def videos(tmp_path: Path, data: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("still_h264.mp4", "cut_h264.mkv"):
        (folder / name).write_bytes((data / name).read_bytes())
    (folder / "empty.mp4").touch()
    (folder / "half.mp4").write_bytes((data / "event_h264.mp4").read_bytes()[:20_000])
    (folder / "line\nbreak.mp4").write_text("text")
    write_audio(folder / "sound.m4a")
    return folder
