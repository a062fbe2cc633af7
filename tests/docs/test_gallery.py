"""The gallery's dataset pipeline; its other examples are run in tests/compress/models/test_examples.py."""

from __future__ import annotations

import io
import json
import re
import runpy
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_gallery_shows_examples_that_are_run() -> None:
    shown = re.findall(r'--8<-- "examples/(\w+\.py)"', (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8"))
    assert shown == ["webdataset_shards.py", "generate.py", "own_method.py"]


@pytest.mark.slow
def test_whole_videos_become_shards_and_the_others_are_named(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "shards"
    videos.mkdir()
    names = ("still_h264.mp4", "cut_h264.mkv", "sprites/sprites_07.mp4")
    for name in names:
        shutil.copy(data / name, videos)
    (videos / "half.mp4").write_bytes((data / "event_h264.mp4").read_bytes()[:9000])
    argv = ["webdataset_shards.py", str(videos), "--out", str(out), "--per-shard", "2", "--jobs", "0"]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(ROOT / "examples" / "webdataset_shards.py"), run_name="__main__")
    assert "3 videos in shards, 1 skipped" in capsys.readouterr().out
    (skipped,) = map(json.loads, (out / "skipped.jsonl").read_text().splitlines())
    assert Path(skipped["source"]).name == "half.mp4"
    assert skipped["code"] in ("truncated", "unreadable", "damaged")
    shards = sorted(out.glob("*.tar"))
    members = {}
    for shard in shards:
        with tarfile.open(shard) as opened:
            for entry in opened:
                stream = opened.extractfile(entry)
                assert stream is not None
                members[entry.name] = stream.read()
    assert len(shards) == 2
    assert sorted(name.split(".")[0] for name in members) == sorted(3 * ["00000000", "00000001", "00000002"])
    assert members["00000000.mkv"] == (videos / "cut_h264.mkv").read_bytes()
    assert json.loads(members["00000002.json"])["codec"] == "h264"
    with np.load(io.BytesIO(members["00000002.npz"]), allow_pickle=False) as arrays:
        assert arrays["density"].shape == (8, 14, 14)
        assert arrays["packet_size"].sum() == json.loads(members["00000002.json"])["bytes"]
