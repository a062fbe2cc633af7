"""A second run: what it keeps, what it makes again, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import codecmeta
from codecmeta.batch.engines import SerialEngine
from codecmeta.batch.inputs import Input
from codecmeta.batch.jobs import Job, extract_inputs, extract_job, find_fresh
from codecmeta.batch.outcome import Outcome
from codecmeta.errors import MetaFormatError, UsageError
from codecmeta.record.options import Options
from tests.codecmeta.batch.run_batch import LIGHT, inputs, run


def test_running_again_does_only_what_is_missing_or_stale(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    run(videos, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    counts, _ = run(videos, out)
    assert counts == {"done": 0, "kept": 2, "failed": 4}
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")} == before
    (out / "still_h264.mp4.npz").unlink()
    (out / "cut_h264.mkv.npz").write_bytes(b"poison")
    assert run(videos, out)[0]["done"] == 2
    # another time, the same content: opened, and kept
    os.utime(videos / "cut_h264.mkv", ns=(5, 5))
    assert run(videos, out)[0] == {"done": 0, "kept": 2, "failed": 4}
    content = bytearray((videos / "cut_h264.mkv").read_bytes())
    content[-20] ^= 1
    (videos / "cut_h264.mkv").write_bytes(content)
    assert run(videos, out)[0]["kept"] == 1
    assert run(videos, out, overwrite=True)[0]["kept"] == 0


def test_another_version_is_stale(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(source=str(videos / "still_h264.mp4"), meta=str(tmp_path / "a.npz"), options=LIGHT)
    assert find_fresh(job) is None
    done = extract_job(job)
    assert done.status == "done"
    kept = find_fresh(job)
    assert kept == replace(done, status="kept", seconds=0.0)
    assert kept.stamp == done.stamp
    monkeypatch.setattr("codecmeta.batch.jobs.__version__", "999")
    assert find_fresh(job) is None


def test_what_a_later_run_trusts(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the manifest, while both files have the recorded lengths and times; nothing is opened then."""
    out = tmp_path / "meta"
    run(videos, out)

    def refuse(*_: object, **__: object) -> None:
        raise MetaFormatError("a.npz", None, "opened")

    record = out / "cut_h264.mkv.npz"
    with monkeypatch.context() as patched:
        patched.setattr("codecmeta.record.npz.read", refuse)
        _, seen = run(videos, out)
        kept = [outcome for outcome in seen if outcome.status == "kept"]
        assert len(kept) == 2
        assert all(outcome.packets for outcome in kept)
        # damage that keeps length and time is for `verify` to find
        times, content = record.stat(), bytearray(record.read_bytes())
        content[len(content) // 2] ^= 1
        record.write_bytes(content)
        os.utime(record, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert run(videos, out)[0]["kept"] == 2
    os.utime(record)
    # opened, found unreadable, made again
    assert run(videos, out)[0] == {"done": 1, "kept": 1, "failed": 4}
    assert codecmeta.load(record).frame_pts.size == 2
    # opened, found in order: the next run trusts it again
    os.utime(record)
    assert run(videos, out)[0]["kept"] == 2
    monkeypatch.setattr("codecmeta.record.npz.read", refuse)
    assert run(videos, out)[0]["kept"] == 2
    (out / "manifest.jsonl").unlink()
    assert run(videos, out)[0]["kept"] == 0


def test_another_video_of_the_same_length_and_time(tmp_path: Path, data: Path) -> None:
    """Named files go to their names: the record there may be of another one."""
    videos = [tmp_path / folder / "clip.mp4" for folder in "ab"]
    content = (data / "still_h264.mp4").read_bytes()
    for video, last in zip(videos, (content, content[:-1] + b"x"), strict=True):
        video.parent.mkdir()
        video.write_bytes(last)
        os.utime(video, ns=(10**18, 10**18))
    for video, status in ((videos[0], "done"), (videos[0], "kept"), (videos[1], "done"), (videos[1], "kept")):
        seen: list[Outcome] = []
        item = Input(path=str(video), place="clip.mp4.npz")
        extract_inputs([item], tmp_path / "meta", options=LIGHT, engine=SerialEngine(), report=seen.append)
        assert [outcome.status for outcome in seen] == [status]


def test_another_libav(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures may differ; what was read from packets alone does not."""
    pixels = Options(frames="uniform:2", pixels=64, maps=("innovation",))
    run(videos, tmp_path / "packets")
    run(videos, tmp_path / "pictures", options=pixels)
    monkeypatch.setattr("av.ffmpeg_version_info", "99.9")
    assert run(videos, tmp_path / "packets")[0]["kept"] == 2
    assert run(videos, tmp_path / "pictures", options=pixels)[0]["done"] == 2


def test_other_options_are_refused(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    run(videos, out)
    other = Options(frames="uniform:3", pixels=None, maps=("innovation",), qp=True)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError, match="frames 'uniform:2', now 'uniform:3'; qp False, now True") as caught:
        run(videos, out, options=other)
    assert "--overwrite" in str(caught.value)
    with pytest.raises(UsageError, match="deflate False, now True"):
        run(videos, out, deflate=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run(videos, out, options=other, overwrite=True)[0]["done"] == 2
    assert run(videos, out, options=other)[0]["kept"] == 2
    with pytest.raises(UsageError, match="frames 'uniform:3', now 'uniform:2'"):
        run(videos, out)


def test_other_options_at_the_same_time(videos: Path, tmp_path: Path) -> None:
    """Two runs of the same options share a folder, and lose no line; one of others waits, even to overwrite."""
    out = tmp_path / "meta"
    pytest.importorskip("fcntl")
    seen: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        if not seen:
            assert run(videos, out)[0]["failed"] == 4
            with pytest.raises(UsageError, match="another run with other options or versions is in progress"):
                run(videos, out, options=Options(frames="uniform:3"), overwrite=True)
        seen.append(outcome)

    extract_inputs(inputs(videos), out, options=LIGHT, engine=SerialEngine(), report=report)
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(lines) >= 10


def test_the_manifest_survives_its_folder(videos: Path, tmp_path: Path) -> None:
    """Whoever deletes the folder during a run finds what came afterwards, and the next run does the rest."""
    out = tmp_path / "meta"
    seen: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        seen.append(outcome)
        if len(seen) == 2:
            shutil.rmtree(out)

    extract_inputs(inputs(videos), out, options=LIGHT, engine=SerialEngine(), report=report)
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == [outcome.source for outcome in seen[2:]]
    assert run(videos, out)[0] == {"done": 1, "kept": 1, "failed": 4}


@pytest.mark.parametrize("year", [1901, 1969, 2300, 2440])
def test_times_of_any_year(data: Path, tmp_path: Path, year: int) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    path = videos / "still.mp4"
    path.write_bytes((data / "still_h264.mp4").read_bytes())
    time_ns = (year - 1970) * 365 * 86400 * 10**9
    os.utime(path, ns=(time_ns, time_ns))
    assert run(videos, tmp_path / "meta")[0] == {"done": 1, "kept": 0, "failed": 0}
    assert run(videos, tmp_path / "meta")[0] == {"done": 0, "kept": 1, "failed": 0}
    assert codecmeta.load(tmp_path / "meta" / "still.mp4.npz").info["source"]["mtime_ns"] == path.stat().st_mtime_ns


def test_a_folder_is_searched_once_for_what_was_left(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir
    searched: list[Path] = []

    def watched(path: str) -> list[str]:
        searched.append(Path(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", watched)
    run(videos, tmp_path / "meta")
    assert searched.count(tmp_path / "meta") == 1
