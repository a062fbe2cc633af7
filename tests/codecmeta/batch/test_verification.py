"""Records are checked against their videos."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from codecmeta import load
from codecmeta.batch.engines import SerialEngine
from codecmeta.batch.inputs import Input
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.verification import Finding, find_checks, lost_check, verify_record
from codecmeta.decoding.linear_decode import decode_linearly
from codecmeta.errors import UsageError
from codecmeta.record.limits import Limits
from codecmeta.record.options import Options
from tests.codecmeta.make_video import write_video

PACKETS = Options(frames="uniform:2", residual="none", pixels=None)
NAMES = ("a.mp4", "sub/b.mkv", "sub/c.mp4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make videos, and their records next to them."""
    items = []
    for name in NAMES:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, codec="mpeg4", frames=12, width=64, height=48)
        items.append(Input(path=str(path), place=name + ".npz"))
    items.append(Input(path=str(tmp_path / "videos" / "gone.mp4"), place="gone.mp4.npz"))
    extract_inputs(items, tmp_path / "meta", options=PACKETS, engine=SerialEngine(), report=lambda outcome: None)
    return tmp_path


def findings(folder: Path, *, deep: bool = False, videos: Path | None = None) -> dict[str, Finding]:
    checks = find_checks(folder / "meta", videos=videos, deep=deep, limits=Limits())
    return {Path(check.meta).relative_to(folder / "meta").as_posix(): verify_record(check) for check in checks}


def codes(folder: Path, *, deep: bool = False, videos: Path | None = None) -> list[str]:
    found = findings(folder, deep=deep, videos=videos)
    return [found[name + ".npz"].code for name in NAMES]


@pytest.mark.parametrize("deep", [False, True])
def test_sound_records(folder: Path, deep: bool) -> None:
    found = findings(folder, deep=deep)
    assert [found[name + ".npz"].status for name in NAMES] == ["sound"] * 3
    missing = found["gone.mp4.npz"]
    assert (missing.status, missing.code) == ("failed", "no_record")
    assert missing.message == "it was not extracted: no such file"
    line = json.loads(missing.json())
    assert list(line) == ["source", "meta", "status", "code", "message", "seconds"]


def keep_times(path: Path, content: bytes) -> None:
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_damage_that_keeps_length_and_time(folder: Path) -> None:
    """A later extraction trusts such files."""
    record = folder / "meta" / "a.mp4.npz"
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 1
    keep_times(record, content)
    video = folder / "videos" / "sub" / "b.mkv"
    content = bytearray(video.read_bytes())
    content[len(content) // 2] ^= 1
    keep_times(video, content)
    assert codes(folder) == ["bad_record", "stale", ""]
    assert str(record) in findings(folder)["a.mp4.npz"].message


def test_what_is_gone(folder: Path) -> None:
    (folder / "meta" / "a.mp4.npz").unlink()
    (folder / "videos" / "sub" / "b.mkv").unlink()
    assert codes(folder) == ["no_record", "no_source", ""]


def test_videos_that_moved(folder: Path) -> None:
    (folder / "videos").rename(folder / "elsewhere")
    assert codes(folder) == ["no_source"] * 3
    assert codes(folder, videos=folder / "elsewhere") == [""] * 3
    (folder / "meta" / "manifest.jsonl").unlink()
    assert codes(folder, videos=folder / "elsewhere") == [""] * 3
    assert "--videos" in findings(folder)["a.mp4.npz"].message


def test_a_record_that_says_something_else(folder: Path) -> None:
    path = folder / "meta" / "a.mp4.npz"
    record = load(path)
    record.packet_size[3] += 1
    record.save(path)
    assert codes(folder) == ["differs", "", ""]
    record.packet_size[3] -= 1
    record.info["verdict"]["state"] = "damaged"
    record.save(path)
    assert codes(folder) == ["damaged", "", ""]


def test_pictures_are_those_of_a_full_decode(tmp_path: Path, data: Path) -> None:
    """Also where they were read out of the middle, cut by the container, or turned."""
    names = ("event_h264.mp4", "noise_mpeg4.avi", "cut_h264.mkv", "pan_hevc.mp4")
    items = [Input(path=str(data / name), place=name + ".npz") for name in names]
    pixels = Options(frames="uniform:3", residual="none", pixels=64)
    extract_inputs(items, tmp_path / "meta", options=pixels, engine=SerialEngine(), report=lambda outcome: None)
    assert {finding.code for finding in findings(tmp_path, deep=True).values()} == {""}
    path = tmp_path / "meta" / "event_h264.mp4.npz"
    record = load(path)
    assert record.frames is not None
    record.frames[1] = record.frames[0]
    record.save(path)
    assert findings(tmp_path)["event_h264.mp4.npz"].status == "sound"
    found = findings(tmp_path, deep=True)["event_h264.mp4.npz"]
    assert (found.code, "frames[1] differs from a full decode" in found.message) == ("differs", True)


def test_coded_data_that_a_decoder_takes_without_an_error(tmp_path: Path, data: Path) -> None:
    """FFmpeg's HEVC decoder conceals contradictory slice data in silence; sound data is a row of the test above."""
    content = bytearray((data / "pan_hevc.mp4").read_bytes())
    start = len(content) * 3 // 10
    content[start : start + 12] = bytes(12)
    path = tmp_path / "videos" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(content)
    assert decode_linearly(path).sound
    sparse = Options(frames=(0,), residual="none", pixels=None)
    item = Input(path=str(path), place="a.mp4.npz")
    extract_inputs([item], tmp_path / "meta", options=sparse, engine=SerialEngine(), report=lambda outcome: None)
    assert findings(tmp_path)["a.mp4.npz"].status == "sound"
    found = findings(tmp_path, deep=True)["a.mp4.npz"]
    assert (found.code, "the coded data of 1 of 64 pictures contradicts itself" in found.message) == ("damaged", True)


def test_only_a_full_decode_finds_damage_that_was_there_before(tmp_path: Path) -> None:
    """The record is of the damaged file, whose sampled frames are sound."""
    path = tmp_path / "videos" / "a.mp4"
    path.parent.mkdir()
    write_video(path, codec="mpeg4", frames=24, width=64, height=48, options={"g": "6"})
    packets = Input(path=str(path), place="a.mp4.npz")
    first = Options(frames=(0,), residual="none", pixels=None)

    def extract() -> np.ndarray:
        extract_inputs([packets], tmp_path / "meta", options=first, engine=SerialEngine(), report=lambda outcome: None)
        return load(tmp_path / "meta" / "a.mp4.npz").packet_size

    sizes = extract()
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4 + int(sizes[:9].sum())
    content[begin + 4 : begin + int(sizes[9])] = b"\xff" * (int(sizes[9]) - 4)
    path.write_bytes(content)
    extract()
    assert findings(tmp_path)["a.mp4.npz"].status == "sound"
    found = findings(tmp_path, deep=True)["a.mp4.npz"]
    assert found.code == "damaged"
    assert "decoding all 24 packets gives" in found.message


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no record"):
        list(find_checks(tmp_path, videos=None, deep=False, limits=Limits()))


def test_a_check_that_was_lost(folder: Path) -> None:
    check = next(find_checks(folder / "meta", videos=None, deep=False, limits=Limits()))
    lost = lost_check(check, "timeout", "not done", 3.0)
    assert (lost.status, lost.code, lost.meta) == ("failed", "timeout", check.meta)
