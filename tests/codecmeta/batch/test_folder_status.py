"""What a folder of several runs holds, and what is to be done again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from codecmeta.batch.engines import SerialEngine
from codecmeta.batch.folder_status import find_unfinished, options_of_run, read_status
from codecmeta.batch.inputs import Input
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.outcome import Outcome
from codecmeta.batch.shards import Shard
from codecmeta.errors import OutputError, UsageError
from codecmeta.record.options import Options
from tests.codecmeta.batch.run_batch import LIGHT, inputs, run


def test_sums(videos: Path, tmp_path: Path, data: Path) -> None:
    out = tmp_path / "meta"
    run(videos, out)
    failures: list[Outcome] = []
    status = read_status(out, failures=failures)
    assert (status.inputs, status.done, status.failed, status.missing, status.gone, status.stale) == (6, 2, 4, 0, 0, 0)
    assert dict(status.tally.failed) == {"unreadable": 2, "truncated": 1, "no_video_stream": 1}
    assert {Path(outcome.source).name for outcome in failures} == {
        "empty.mp4",
        "half.mp4",
        "line\nbreak.mp4",
        "sound.m4a",
    }
    (share,) = status.tally.codecs.values()
    records = [out / f"{name}.npz" for name in ("still_h264.mp4", "cut_h264.mkv")]
    assert share.videos == 2
    assert share.meta_bytes == sum(path.stat().st_size for path in records)
    assert share.source_bytes == sum((data / path.stem).stat().st_size for path in records)
    # 50 and 75 frames at 25 a second
    assert share.hours == pytest.approx((2.0 + 3.0) / 3600, rel=0.05)
    assert list(status.tally.residuals) == ["bitstream"]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["ended"], summary["listed"], summary["shard"]) == ("complete", 6, "0/1")
    assert summary["counts"] == {"done": 2, "kept": 0, "failed": 4}
    assert summary["codecs"]["h264"]["videos"] == 2


def test_what_is_gone_is_missing(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    run(videos, out)
    (out / "still_h264.mp4.npz").unlink()
    (out / "cut_h264.mkv.npz").write_bytes(b"cut")
    status = read_status(out)
    assert (status.done, status.gone, status.missing) == (0, 2, 2)


def test_a_shard_that_never_ran_is_missing(videos: Path, tmp_path: Path) -> None:
    """The other shards have listed its videos, too."""
    out = tmp_path / "meta"
    _, seen = run(videos, out, shard=Shard(0, 2))
    assert 0 < len(seen) < 6
    assert read_status(out).missing == 6 - len(seen)


def test_a_run_that_was_interrupted(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"

    def stop(outcome: Outcome) -> None:
        raise OutputError(None, "the disk is full")

    with pytest.raises(OutputError):
        extract_inputs(inputs(videos), out, options=LIGHT, engine=SerialEngine(), report=stop)
    status = read_status(out)
    assert (status.ends, status.missing, status.unfinished) == ({"0/1": "interrupted"}, 0, True)
    run(videos, out)
    status = read_status(out)
    assert (status.ends, status.unfinished) == ({"0/1": "complete"}, False)


def test_other_versions_are_stale(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "meta"
    run(videos, out)
    some = [item for item in inputs(videos) if "still" in item.path]
    monkeypatch.setattr("codecmeta.batch.jobs.__version__", "999")
    extract_inputs(some, out, options=LIGHT, engine=SerialEngine(), report=lambda outcome: None)
    assert read_status(out).stale == 1


def test_what_failed_is_done_again(videos: Path, tmp_path: Path, data: Path) -> None:
    """With the options of the folder; what other shards have failed at, and have done meanwhile, counts as done."""
    out = tmp_path / "meta"
    run(videos, out, shard=Shard(0, 1))
    for index in range(2):
        run(videos, out, shard=Shard(index, 2))
    shutil.copy(data / "event_h264.mp4", videos / "half.mp4")
    assert sorted(item.place for item in find_unfinished(out, codes={"truncated"})) == ["half.mp4.npz"]
    (out / "cut_h264.mkv.npz").unlink()
    unfinished = list(find_unfinished(out))
    assert len(unfinished) == 5
    assert Input(str(videos / "half.mp4"), "half.mp4.npz") in unfinished
    options, deflate, packed = options_of_run(out)
    assert (options, deflate, packed) == (LIGHT, False, False)
    extract_inputs(unfinished, out, options=options, engine=SerialEngine(), summary=False, report=lambda outcome: None)
    status = read_status(out)
    assert (status.done, status.failed, status.gone, status.missing) == (3, 3, 0, 0)
    assert len(list(find_unfinished(out))) == 3


def test_options_come_back(videos: Path, tmp_path: Path) -> None:
    options = Options(frames=(0, 3), residual="none", pixels=64, qp=True, track=0)
    run(videos, tmp_path / "meta", options=options, deflate=True)
    assert options_of_run(tmp_path / "meta") == (options, True, False)


def test_what_is_no_output_folder(tmp_path: Path) -> None:
    for read in (read_status, options_of_run):
        with pytest.raises(UsageError, match="give a folder"):
            read(tmp_path)
    assert list(find_unfinished(tmp_path)) == []
    (tmp_path / "run.json").write_text('{"options": {"speed": 3}}')
    with pytest.raises(UsageError, match="not those of this version"):
        options_of_run(tmp_path)
    # what others wrote is passed over
    (tmp_path / "manifest.jsonl").write_text('{"place": "a.npz", "status": 3}\n{"place": "b.npz"\n[1]\n')
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(UsageError):
        read_status(tmp_path)
