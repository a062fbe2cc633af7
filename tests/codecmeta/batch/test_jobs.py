"""Many videos: isolation, limits, and the manifest."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

import codecmeta
from codecmeta.batch.engines import LocalEngine, SerialEngine
from codecmeta.batch.inputs import Input
from codecmeta.batch.jobs import Job, extract_inputs, extract_job
from codecmeta.batch.outcome import Outcome
from codecmeta.errors import OutputError
from codecmeta.record.limits import Limits
from codecmeta.record.options import Options
from tests.codecmeta.batch.run_batch import LIGHT, inputs, run
from tests.codecmeta.make_video import write_video


def test_good_and_bad_files(videos: Path, tmp_path: Path) -> None:
    counts, seen = run(videos, tmp_path / "meta")
    assert counts == {"done": 2, "kept": 0, "failed": 4}
    assert sorted(path.name for path in (tmp_path / "meta").iterdir()) == [
        "cut_h264.mkv.npz",
        "manifest.jsonl",
        "run.json",
        "still_h264.mp4.npz",
        "summary.json",
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
        "verdict",
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
    assert (done.residual, done.verdict) == ("bitstream", "complete")
    assert {outcome.verdict for outcome in seen if outcome.status == "failed"} == {None}


def test_a_map_that_a_codec_does_not_have_is_told(data: Path, tmp_path: Path) -> None:
    options = Options(frames="uniform:2", pixels=None, maps=("carried",))
    hevc = extract_job(Job(source=str(data / "pan_hevc.mp4"), meta=str(tmp_path / "a.npz"), options=options))
    assert (hevc.status, hevc.residual) == ("done", None)
    assert "no carried map (hevc: there are no motion vectors that can be followed)" in hevc.warnings
    avc = extract_job(Job(source=str(data / "still_h264.mp4"), meta=str(tmp_path / "b.npz"), options=options))
    assert (avc.residual, avc.warnings) == ("bitstream", ())


def test_two_inputs_of_one_place(videos: Path, tmp_path: Path) -> None:
    place = "same.npz"
    both = [Input(path=str(videos / name), place=place) for name in ("still_h264.mp4", "cut_h264.mkv")]
    seen: list[Outcome] = []
    extract_inputs(both, tmp_path / "meta", options=LIGHT, engine=SerialEngine(), report=seen.append)
    assert [outcome.status for outcome in seen] == ["done", "failed"]
    assert "another --out" in seen[1].message
    assert codecmeta.load(tmp_path / "meta" / "same.npz").info["source"]["name"] == "still_h264.mp4"


@pytest.mark.parametrize(
    "name", ["x/" * 3000 + "y.mp4", "n\0l/a.mp4", "z" * 300 + "/a.mp4"], ids=["path", "nul", "name"]
)
def test_a_path_that_cannot_be_stops_nothing(videos: Path, tmp_path: Path, name: str) -> None:
    items = [
        Input(path=name, place=name + ".npz"),
        Input(path=str(videos / "still_h264.mp4"), place="still.npz"),
    ]
    seen: list[Outcome] = []
    counts = extract_inputs(items, tmp_path / "meta", options=LIGHT, engine=SerialEngine(), report=seen.append)
    assert counts == {"done": 1, "kept": 0, "failed": 1}
    assert [outcome.code for outcome in seen] == ["not_a_file", ""]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EIO, "io_error"),
        (errno.EROFS, "read_only"),
    ],
)
def test_a_disk_that_cannot_be_written_ends_the_run(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("codecmeta.record.npz.replace_file", refuse)
    seen = fail(videos, tmp_path / "meta", os.strerror(number))
    assert [outcome.code for outcome in seen] == [code], "once, not for every video"


def fail(videos: Path, out: Path, message: str) -> list[Outcome]:
    seen: list[Outcome] = []
    good = [item for item in inputs(videos) if "h264" in item.path]
    with pytest.raises(OutputError, match=message):
        extract_inputs(good, out, options=LIGHT, engine=SerialEngine(), report=seen.append)
    return seen


def test_a_file_that_gets_too_large_ends_the_run(videos: Path, tmp_path: Path) -> None:
    """As the kernel refuses it; Python has SIGXFSZ ignored."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        seen = fail(videos, tmp_path / "meta", "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [outcome.code for outcome in seen] == ["file_too_large"]
    assert not [path for path in (tmp_path / "meta").iterdir() if path.suffix in (".npz", ".tmp")]
    assert run(videos, tmp_path / "meta")[0]["done"] == 2


def test_an_output_that_concerns_one_video_ends_nothing(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "meta" / "cut_h264.mkv.npz").mkdir(parents=True)
    counts, seen = run(videos, tmp_path / "meta")
    assert counts["done"] == 1
    assert "output" in [outcome.code for outcome in seen]


def test_stale_temporary_files_are_swept(videos: Path, tmp_path: Path) -> None:
    """Also when there is nothing else to do."""
    out = tmp_path / "meta"
    (videos / "empty.mp4").unlink()
    for _ in range(2):
        out.mkdir(exist_ok=True)
        for name, age in ((".codecmeta-old.tmp", 10_000), (".codecmeta-new.tmp", 10)):
            (out / name).touch()
            os.utime(out / name, (time.time() - age,) * 2)
        extract_inputs(
            [Input(path=str(videos / "still_h264.mp4"), place="still.npz")],
            out,
            options=LIGHT,
            engine=SerialEngine(),
            report=lambda outcome: None,
        )
        assert [path.name for path in out.glob(".*")] == [".codecmeta-new.tmp"]


def test_a_picture_as_large_as_the_limit(tmp_path: Path) -> None:
    """Decoders count the borders that pictures have in memory."""
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "a.mp4", codec="mpeg4", frames=2, width=70, height=50)
    for pixels, code in ((3500, ""), (3499, "limit_exceeded")):
        pictures = Options(frames="all", pixels=16)
        _, seen = run(videos, tmp_path / str(pixels), options=pictures, limits=Limits(pixels=pixels))
        assert [outcome.code for outcome in seen] == [code]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(pixels=1000), "allowed are 1000 pixels"),
        (Limits(frames=10), "allowed are 10"),
        (Limits(bytes=1000), "allowed are 1000"),
    ],
)
def test_limits(videos: Path, tmp_path: Path, limits: Limits, message: str) -> None:
    _, seen = run(videos, tmp_path / "meta", limits=limits)
    refused = [outcome for outcome in seen if outcome.code == "limit_exceeded"]
    assert len(refused) == 2
    assert all(message in outcome.message for outcome in refused)


def test_memory_that_a_video_takes_is_limited(tmp_path: Path) -> None:
    """The decoder's memory, too; and the worker goes on with the next video."""
    videos = tmp_path / "videos"
    videos.mkdir()
    still = np.zeros((5600, 5600, 3), np.uint8)
    write_video(videos / "a.mp4", codec="mpeg4", frames=8, width=5600, height=5600, image=still, options={"g": "1"})
    write_video(videos / "b.mp4", codec="mpeg4", frames=2, width=64, height=64, options={"g": "1"})
    pixels = Options(frames="all", residual="none", pixels=4000)
    engine = LocalEngine(workers=1, timeout=None, memory=800 << 20)
    _, seen = run(videos, tmp_path / "meta", options=pixels, engine=engine)
    assert [(outcome.code, outcome.status) for outcome in seen] == [("out_of_memory", "failed"), ("", "done")]
    assert "within 0.781 GiB of address space per worker" in seen[0].message
    unlimited = LocalEngine(workers=1, timeout=None)
    assert run(videos, tmp_path / "meta", options=pixels, engine=unlimited)[0] == {"done": 1, "kept": 1, "failed": 0}


def test_local_workers_write_the_same_files(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "one")
    counts, _ = run(videos, tmp_path / "two", engine=LocalEngine(workers=2, timeout=120.0))
    assert counts == {"done": 2, "kept": 0, "failed": 4}
    for name in ("still_h264.mp4.npz", "cut_h264.mkv.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
