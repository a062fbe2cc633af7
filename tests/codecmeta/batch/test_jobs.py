"""Many videos: isolation, time limits, resuming, and the manifest."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import pytest

import codecmeta
from codecmeta.batch.engines import LocalEngine, SerialEngine
from codecmeta.batch.inputs import Input
from codecmeta.batch.jobs import Job, extract_job, extract_many, find_fresh
from codecmeta.batch.outcome import Outcome
from codecmeta.errors import MetaFormatError, OutputError, UsageError
from codecmeta.record.limits import Limits
from codecmeta.record.options import Options
from tests.codecmeta.make_video import write_audio, write_video

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
    good = [item for item in inputs(videos) if "h264" in item.path.name]
    with pytest.raises(OutputError, match=message):
        extract_many(good, out, options=LIGHT, engine=SerialEngine(), report=seen.append)
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
        extract_many(
            [Input(path=videos / "still_h264.mp4", place=PurePath("still.npz"))],
            out,
            options=LIGHT,
            engine=SerialEngine(),
            report=lambda outcome: None,
        )
        assert [path.name for path in out.glob(".*")] == [".codecmeta-new.tmp"]


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
        item = Input(path=video, place=PurePath("clip.mp4.npz"))
        extract_many([item], tmp_path / "meta", options=LIGHT, engine=SerialEngine(), report=seen.append)
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
            with pytest.raises(UsageError, match="another run with other options or versions is going on"):
                run(videos, out, options=Options(frames="uniform:3"), overwrite=True)
        seen.append(outcome)

    extract_many(inputs(videos), out, options=LIGHT, engine=SerialEngine(), report=report)
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

    extract_many(inputs(videos), out, options=LIGHT, engine=SerialEngine(), report=report)
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


def test_a_folder_is_searched_once_for_what_was_left(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Path] = []
    monkeypatch.setattr(Path, "glob", lambda path, pattern: searched.append(path) or [])
    run(videos, tmp_path / "meta")
    assert searched == [tmp_path / "meta"]


def test_local_workers_write_the_same_files(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "one")
    counts, _ = run(videos, tmp_path / "two", engine=LocalEngine(workers=2, timeout=120.0))
    assert counts == {"done": 2, "kept": 0, "failed": 4}
    for name in ("still_h264.mp4.npz", "cut_h264.mkv.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
