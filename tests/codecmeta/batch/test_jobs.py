"""Many videos: isolation, time limits, resuming, and the manifest."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import pytest

import codecmeta
from codecmeta.batch.engines import LocalEngine, SerialEngine
from codecmeta.batch.inputs import Input
from codecmeta.batch.jobs import Job, extract_job, extract_many, find_fresh
from codecmeta.batch.outcome import Outcome
from codecmeta.batch.ray_engine import RayEngine
from codecmeta.record.options import Options
from tests.codecmeta.make_video import write_audio

LIGHT = Options(frames="uniform:2", pixels=None, maps=("innovation",))


def inputs(folder: Path) -> Iterator[Input]:
    for path in sorted(folder.iterdir()):
        yield Input(path=path, place=PurePath(path.name + ".npz"))


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


def run(videos: Path, out: Path, **options: object) -> tuple[dict[str, int], list[Outcome]]:
    seen: list[Outcome] = []
    arguments = {"options": LIGHT, "engine": SerialEngine(), **options}
    counts = extract_many(inputs(videos), out, report=seen.append, **arguments)  # type: ignore[arg-type]
    return dict(counts), seen


def test_good_and_bad_files(videos: Path, tmp_path: Path) -> None:
    counts, seen = run(videos, tmp_path / "meta")
    assert counts == {"done": 2, "kept": 0, "failed": 4}
    assert sorted(path.name for path in (tmp_path / "meta").iterdir()) == [
        "cut_h264.mkv.npz",
        "manifest.jsonl",
        "run.json",
        "still_h264.mp4.npz",
    ]
    codes = {Path(outcome.source).name: outcome.code for outcome in seen if outcome.status == "failed"}
    assert codes == {
        "empty.mp4": "unreadable",
        "half.mp4": "truncated",
        "line\nbreak.mp4": "unreadable",
        "sound.m4a": "no_video_stream",
    }
    assert all("\n" not in outcome.message for outcome in seen)
    lines = (tmp_path / "meta" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines].count("failed") == 4
    keys = [
        "source",
        "meta",
        "status",
        "code",
        "message",
        "warnings",
        "frames",
        "packets",
        "gops",
        "residual",
        "seconds",
    ]
    assert list(json.loads(seen[0].json())) == keys
    assert all(set(keys) < set(json.loads(line)) for line in lines)
    done = next(outcome for outcome in seen if outcome.status == "done")
    record = codecmeta.load(done.meta)
    assert (done.frames, done.packets, done.gops) == (2, len(record.packet_size), len(record.gops))
    assert done.residual == "bitstream"


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


def test_a_map_that_a_codec_does_not_have_is_told(data: Path, tmp_path: Path) -> None:
    options = Options(frames="uniform:2", pixels=None, maps=("carried",))
    hevc = extract_job(Job(source=str(data / "pan_hevc.mp4"), meta=str(tmp_path / "a.npz"), options=options))
    assert (hevc.status, hevc.residual) == ("done", None)
    assert "no carried map (hevc: there are no motion vectors that can be followed)" in hevc.warnings
    avc = extract_job(Job(source=str(data / "still_h264.mp4"), meta=str(tmp_path / "b.npz"), options=options))
    assert (avc.residual, avc.warnings) == ("bitstream", ())


def test_two_inputs_of_one_place(videos: Path, tmp_path: Path) -> None:
    place = PurePath("same.npz")
    both = [Input(path=videos / name, place=place) for name in ("still_h264.mp4", "cut_h264.mkv")]
    seen: list[Outcome] = []
    extract_many(both, tmp_path / "meta", options=LIGHT, engine=SerialEngine(), report=seen.append)
    assert [outcome.status for outcome in seen] == ["done", "failed"]
    assert "another --out" in seen[1].message
    assert codecmeta.load(tmp_path / "meta" / "same.npz").info["source"]["name"] == "still_h264.mp4"


@pytest.mark.parametrize(
    "name", ["x/" * 3000 + "y.mp4", "n\0l/a.mp4", "z" * 300 + "/a.mp4"], ids=["path", "nul", "name"]
)
def test_a_path_that_cannot_be_stops_nothing(videos: Path, tmp_path: Path, name: str) -> None:
    items = [
        Input(path=Path(name), place=PurePath(name + ".npz")),
        Input(path=videos / "still_h264.mp4", place=PurePath("still.npz")),
    ]
    seen: list[Outcome] = []
    counts = extract_many(items, tmp_path / "meta", options=LIGHT, engine=SerialEngine(), report=seen.append)
    assert counts == {"done": 1, "kept": 0, "failed": 1}
    assert [outcome.code for outcome in seen] == ["not_a_file", ""]


def test_a_full_disk_ends_the_run(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(videos, tmp_path / "meta")
    monkeypatch.undo()
    assert list((tmp_path / "meta").glob("*.npz")) == []
    assert list((tmp_path / "meta").glob(".*")) == []


def test_stale_temporary_files_are_swept(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    out.mkdir()
    for name, age in ((".codecmeta-old.tmp", 10_000), (".codecmeta-new.tmp", 10)):
        (out / name).touch()
        os.utime(out / name, (time.time() - age,) * 2)
    run(videos, out)
    assert [path.name for path in out.glob(".*")] == [".codecmeta-new.tmp"]


def test_a_folder_is_searched_once_for_what_was_left(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Path] = []
    monkeypatch.setattr(Path, "glob", lambda path, pattern: searched.append(path) or [])
    run(videos, tmp_path / "meta")
    assert searched == [tmp_path / "meta"]


@dataclass(frozen=True)
class Misdeed:
    """What a job does to its worker."""

    deed: str
    number: int


def misbehave(job: Misdeed) -> str:
    if job.deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.deed == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.deed == "hang":
        time.sleep(600)
    return f"{job.deed} {job.number}"


def test_a_worker_that_dies_or_hangs_takes_nothing_with_it() -> None:
    deeds = ["good"] * 10
    deeds[2], deeds[5], deeds[7] = "kill", "hang", "segfault"
    jobs = [Misdeed(deed, number) for number, deed in enumerate(deeds)]
    begin = time.monotonic()
    results = list(
        LocalEngine(workers=2, timeout=4.0).run(
            misbehave, jobs, failure=lambda job, code, message, seconds: f"{code} {job.number} {message}"
        )
    )
    assert time.monotonic() - begin < 60
    assert len(results) == 10
    assert sorted(result for result in results if result.startswith("good")) == [
        f"good {number}" for number in range(10) if number not in (2, 5, 7)
    ]
    bad = sorted(result for result in results if not result.startswith("good"))
    assert bad == [
        "crashed 2 the worker was killed by SIGKILL",
        "crashed 7 the worker was killed by SIGSEGV",
        "timeout 5 not done after 4 s",
    ]


def write_slowly(path: Path) -> str:
    """Leave a file for ten minutes, but not if told to end."""
    if path.suffix == ".txt":
        return "done"
    try:
        path.touch()
        time.sleep(600)
    finally:
        path.unlink()
    return "never"


def test_a_job_that_is_ended_removes_what_it_began(tmp_path: Path) -> None:
    """After its time is over, and when the whole run ends."""
    engine = LocalEngine(workers=1, timeout=3.0)
    (timed_out,) = engine.run(write_slowly, [tmp_path / "a"], failure=lambda job, code, message, seconds: code)
    assert timed_out == "timeout"
    assert list(tmp_path.iterdir()) == []

    jobs = [tmp_path / "b.txt", tmp_path / "c", tmp_path / "d"]
    results = LocalEngine(workers=2, timeout=None).run(write_slowly, jobs, failure=lambda *_: "failed")
    assert next(results) == "done"
    deadline = time.monotonic() + 20
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.iterdir())
    results.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_local_workers_write_the_same_files(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "one")
    counts, _ = run(videos, tmp_path / "two", engine=LocalEngine(workers=2, timeout=120.0))
    assert counts == {"done": 2, "kept": 0, "failed": 4}
    for name in ("still_h264.mp4.npz", "cut_h264.mkv.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_ray_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(_node_ip_address="127.0.0.1", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        jobs = [Misdeed(deed, number) for number, deed in enumerate(["good", "kill", "hang", "good"])]
        engine = RayEngine(workers=2, timeout=6.0)
        results = engine.run(misbehave, jobs, failure=lambda job, code, message, seconds: f"{code} {job.number}")
        assert sorted(results) == ["crashed 1", "good 0", "good 3", "timeout 2"]
    finally:
        ray.shutdown()
