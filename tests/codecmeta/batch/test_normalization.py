"""Conversion of a corpus to H.264 with GoPs of one length."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from codecmeta_cli.codecmeta import app
from typer.testing import CliRunner

import codecmeta
from codecmeta.batch.engines import LocalEngine, SerialEngine
from codecmeta.batch.inputs import find_inputs
from codecmeta.batch.normalization import Conversion, Target, convert, normalize_inputs, target_place
from codecmeta.batch.outcome import Outcome
from codecmeta.errors import UsageError
from tests.codecmeta.make_video import write_audio, write_video

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or importlib.util.find_spec("ffmpeg") is None,
    reason="ffmpeg or ffmpeg-python is not installed: normalize was NOT tested",
)


def test_options() -> None:
    for wrong in ({"gop": 0}, {"crf": 52}, {"encoder": "libx265"}):
        with pytest.raises(UsageError, match=r"allowed|choose from"):
            Target(**wrong)
    assert target_place("a/b.avi.npz") == "a/b.avi.mp4"
    assert target_place("a/b.MP4.npz") == "a/b.MP4"


@pytest.mark.parametrize("out", ["videos", "link", "videos/../videos"])
def test_a_video_is_never_replaced(out: str, data: Path, tmp_path: Path) -> None:
    """Neither the video itself nor one next to it whose name is that of the conversion, by whatever path."""
    folder = tmp_path / "videos"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    for name in ("a.mp4", "b.avi", "b.avi.mp4"):
        shutil.copy(data / "still_h264.mp4", folder / name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("a.mp4", "b.avi"):
        place = target_place(f"{name}.npz")
        outcome = convert(
            Conversion(source=str(folder / name), meta=str(tmp_path / out / place), target=Target(), overwrite=True)
        )
        assert (outcome.status, outcome.code) == ("failed", "usage")
        assert "choose another --out" in outcome.message
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_folders_of_conversions_hold_no_records(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "still_h264.mp4", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"options": {"gop": 32, "crf": 20, "encoder": "libx264"}}))
    for command, says in (("retry", "run the same normalize command again"), ("verify", "extract them first")):
        ran = CliRunner().invoke(app, [command, str(tmp_path)])
        assert ran.exit_code == 2
        assert says in ran.stderr


@pytest.fixture
def videos(tmp_path: Path, data: Path) -> Path:
    """VP9, odd in both directions; MPEG-4 with sound; text."""
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(data / "objects_vp9.webm", folder / "deep" / "a.webm")
    silent = write_video(tmp_path / "silent.avi", codec="mpeg4", frames=50, width=64, height=48)
    sound = write_audio(tmp_path / "sound.m4a")
    join = ["-c", "copy", "-map", "0:v", "-map", "1:a", str(folder / "b.mp4")]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(silent), "-i", str(sound), *join], check=True)
    (folder / "bad.mkv").write_text("text")
    return folder


def run(videos: Path, out: Path, **options: object) -> list[Outcome]:
    seen: list[Outcome] = []
    arguments = {"target": Target(gop=8), "engine": SerialEngine(), **options}
    normalize_inputs(
        find_inputs([str(videos)], out=out, stdin=None),
        out,
        report=seen.append,
        **arguments,
    )
    return sorted(seen, key=lambda outcome: outcome.source)


@needs_ffmpeg
def test_gops_pictures_and_sound(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "h264"
    avi, bad, webm = run(videos, out)
    assert [one.status for one in (avi, bad, webm)] == ["done", "failed", "done"]
    assert bad.code == "unreadable"
    assert webm.meta == str(out / "deep" / "a.webm.mp4")
    for made, frames in ((avi, 50), (webm, 60)):
        record = codecmeta.extract(made.meta, frames="uniform:4", residual="none", pixels=None)
        assert record.info["stream"]["codec"] == "h264"
        assert (len(record.packet_size), made.packets) == (frames, frames)
        assert [gop.packets for gop in record.gops] == [8] * (frames // 8) + [frames % 8] * (frames % 8 > 0)
        assert record.info["verdict"]["state"] == "complete"
    with av.open(avi.meta) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
    with av.open(str(videos / "deep" / "a.webm")) as before, av.open(webm.meta) as after:
        one, two = (next(file.decode(video=0)).to_ndarray(format="rgb24") for file in (before, after))
        assert two.shape[0] == one.shape[0] + one.shape[0] % 2
        assert two.shape[1] == one.shape[1] + one.shape[1] % 2
        assert np.abs(two[: one.shape[0], : one.shape[1]].astype(int) - one).mean() < 4


@needs_ffmpeg
def test_it_goes_on_where_it_was(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "h264"
    run(videos, out)
    assert [outcome.status for outcome in run(videos, out)] == ["kept", "failed", "kept"]
    (out / "b.mp4").unlink()
    assert [outcome.status for outcome in run(videos, out)] == ["done", "failed", "kept"]
    with pytest.raises(UsageError, match="gop 8, now 9"):
        run(videos, out, target=Target(gop=9))


@needs_ffmpeg
def test_ffmpeg_ends_with_its_worker(tmp_path: Path) -> None:
    """A conversion that takes too long leaves no process and no file."""
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "long.avi", codec="mpeg4", frames=400, width=640, height=480)
    slow = tmp_path / "bin" / "ffmpeg"
    slow.parent.mkdir()
    real = shutil.which("ffmpeg")
    slow.write_text(f'#!/bin/bash\n[ "$1" = -nostdin ] || exec {real} "$@"\necho $$ > {tmp_path}/pid\nexec sleep 600\n')
    slow.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
        engine = LocalEngine(workers=1, timeout=4.0, modules=("codecmeta.batch.normalization",))
        (outcome,) = run(videos, tmp_path / "h264", engine=engine)
    assert outcome.code == "timeout"
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert sorted(path.name for path in (tmp_path / "h264").iterdir()) == ["manifest.jsonl", "run.json", "summary.json"]


@needs_ffmpeg
def test_the_command(videos: Path, tmp_path: Path) -> None:
    words = ["normalize", str(videos), "--out", str(tmp_path / "h264"), "--gop", "8", "--jobs", "0", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(line["status"] for line in lines) == ["done", "done", "failed"]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.setitem(sys.modules, "ffmpeg", None)
    with pytest.raises(UsageError, match=r"codecmeta\[ffmpeg\]"):
        run(tmp_path, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "ffmpeg", os)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="5\\.1 or later"):
        run(tmp_path, tmp_path / "out")
