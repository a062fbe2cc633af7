"""Many videos in one call, by exported names only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import codecmeta

LIGHT = codecmeta.Options(frames="uniform:2", pixels=None, residual="none")


@pytest.fixture
def videos(tmp_path: Path, data: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(data / "still_h264.mp4", folder / "a.mp4")
    shutil.copy(data / "still_h264.mp4", folder / "deep" / "b.mp4")
    (folder / "empty.mp4").touch()
    return folder


def test_a_folder_becomes_a_folder(videos: Path, tmp_path: Path) -> None:
    seen: list[codecmeta.Outcome] = []
    counts = codecmeta.extract_many(videos, tmp_path / "meta", options=LIGHT, jobs=0, report=seen.append)
    assert counts == {"done": 2, "kept": 0, "failed": 1}
    assert {one.status for one in seen} == {"done", "failed"}
    assert codecmeta.load(tmp_path / "meta" / "deep" / "b.mp4.npz").frame_packet.size == 2
    counts = codecmeta.extract_many([str(videos / "a.mp4")], str(tmp_path / "meta"), options=LIGHT, jobs=0)
    assert counts == {"done": 0, "kept": 1, "failed": 0}


def test_wrong_usage_is_refused(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(codecmeta.UsageError, match="cannot be written"):
        codecmeta.extract_many(videos, "http://host/meta", jobs=0)
    with pytest.raises(codecmeta.UsageError, match="has one slash of s3://"):
        codecmeta.extract_many(videos, Path("s3://bucket/meta"), jobs=0)
    with pytest.raises(codecmeta.UsageError, match="is empty"):
        codecmeta.extract_many(videos, "", jobs=0)
    with pytest.raises(codecmeta.UsageError, match="nothing matches"):
        codecmeta.extract_many([videos / "*.mkv"], tmp_path / "meta", jobs=0)
    assert not Path("s3:").exists()
    codecmeta.extract_many(videos / "a.mp4", tmp_path / "meta", options=LIGHT, jobs=0)
    with pytest.raises(codecmeta.UsageError):
        codecmeta.extract_many(videos / "a.mp4", tmp_path / "meta", jobs=0)


def test_a_rate_of_pictures_that_a_video_does_not_use_is_said(videos: Path, tmp_path: Path) -> None:
    seen: list[codecmeta.Outcome] = []
    options = codecmeta.Options(frames="uniform:2", pixels=None, residual="none", fps=10.0)
    codecmeta.extract_many(videos / "a.mp4", tmp_path / "meta", options=options, jobs=0, report=seen.append)
    (warning,) = seen[0].warnings
    assert "frames='fps:10'" in warning


def test_a_script_that_starts_workers(videos: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import codecmeta\n"
        "if __name__ == '__main__':\n"
        "    light = codecmeta.Options(frames='uniform:2', pixels=None, residual='none')\n"
        f"    print(codecmeta.extract_many({str(videos)!r}, {str(tmp_path / 'meta')!r}, options=light, jobs=2))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, env=os.environ, cwd=tmp_path
    )
    assert done.stdout == "{'done': 2, 'kept': 0, 'failed': 1}\n"
