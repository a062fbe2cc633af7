"""The .npz record: round trip, and refusal of whatever is not one."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codecmeta import MetaFormatError, VideoMeta, load
from codecmeta.errors import UsageError
from codecmeta.record import npz
from codecmeta.record.fields import FIELDS, REQUIRED

INFO: dict[str, Any] = {
    "source": {"name": "clip.mp4", "bytes": 1, "mtime_ns": 2, "sha256": "0"},
    "stream": {"width": 50, "height": 34, "orientation": [[1, 0, 0], [0, 1, 0]], "time_base": [1, 25], "codec": "h264"},
    "verdict": {"state": "complete"},
    "signals": {},
    "extraction": {"block": 4, "version": "0", "digest": "0"},
}


def record(frames: int = 3, packets: int = 7, *, full: bool = True, seed: int = 0) -> VideoMeta:
    rng = np.random.default_rng(seed)
    blocks, cells = (9, 13), (3, 4)
    counts = rng.integers(0, 5, frames)
    optional: dict[str, Any] = {
        "energy_innovation": rng.random((frames, *blocks), np.float32),
        "range_innovation": np.sort(rng.random((frames, 2), np.float32)),
        "energy_carried": rng.random((frames, *blocks), np.float32),
        "range_carried": np.sort(rng.random((frames, 2), np.float32)),
        "residual_power": rng.random((frames, 3, *blocks), np.float32),
        "residual_mean": rng.normal(size=(frames, 3, *blocks)).astype(np.float32),
        "mb_bits": rng.integers(0, 65536, (frames, *cells)).astype(np.uint16),
        "mb_type": rng.integers(0, 30, (frames, *cells)).astype(np.uint8),
        "mv_offset": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "mv": np.where(np.arange(7) == 6, 1, rng.integers(-99, 99, (counts.sum(), 7))).astype(np.int16),
        "qp": rng.integers(0, 52, (frames, *cells)).astype(np.int8),
        "frames": rng.integers(0, 256, (frames, 17, 25, 3)).astype(np.uint8),
    }
    return VideoMeta(
        info=INFO,
        packet_pts=np.arange(packets, dtype=np.int64),
        packet_dts=np.arange(packets, dtype=np.int64),
        packet_size=rng.integers(1, 1000, packets).astype(np.uint32),
        packet_key=np.arange(packets) % 3 == 0,
        frame_packet=rng.integers(0, packets, frames).astype(np.int32),
        frame_pts=np.cumsum(rng.integers(1, 9, frames)).astype(np.int64),
        frame_type=rng.choice(list("IPB?"), frames).astype("<U1"),
        **(optional if full else {}),
    )


def same(a: VideoMeta, b: VideoMeta) -> bool:
    def equal(x: Any, y: Any) -> bool:
        if x is None or y is None:
            return x is y
        return x.dtype == y.dtype and np.array_equal(x, y)

    return a.info == b.info and all(equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, t: int, p: int, full: bool, deflate: bool, s: int
) -> None:
    path = tmp_path_factory.mktemp("meta") / "a.npz"
    meta = record(t, p, full=full, seed=s)
    meta.save(path, deflate=deflate)
    assert same(load(path), meta)
    if t:
        assert not same(load(path), replace(meta, frame_pts=meta.frame_pts + 1))


def test_numpy_reads_it_and_equal_records_are_equal_files(tmp_path: Path) -> None:
    record().save(tmp_path / "a.npz")
    time.sleep(0.01)
    record().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert int(arrays["schema"]) == 2
        assert json.loads(str(arrays["info"])) == INFO
        assert np.array_equal(arrays["frames"], record().frames)


def rewrite(source: Path, target: Path, change: dict[str, Any], *, drop: tuple[str, ...] = ()) -> Path:
    """Copy a .npz with some members replaced by arrays or raw bytes."""
    with np.load(source, allow_pickle=False) as arrays:
        members: dict[str, Any] = {name: arrays[name] for name in arrays.files if name not in drop}
    members.update(change)
    with zipfile.ZipFile(target, "w") as archive:
        for name, value in members.items():
            if isinstance(value, bytes):
                archive.writestr(f"{name}.npy", value)
            else:
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.asanyarray(value), allow_pickle=True)
                archive.writestr(f"{name}.npy", buffer.getvalue())
    return target


def with_info(**changes: Any) -> np.ndarray:
    info = json.loads(json.dumps(INFO))
    for place, value in changes.items():
        section, key = place.split("__")
        info[section][key] = value
    return np.array(json.dumps(info))


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("object array", {"packet_size": np.array([{}] * 7, object)}, "packet_size"),
    ("other dtype", {"frame_pts": np.arange(3.0)}, "frame_pts"),
    ("big endian", {"frame_pts": np.arange(3, dtype=">i8")}, "frame_pts"),
    ("structured", {"packet_key": np.zeros(7, [("a", "?")])}, "packet_key"),
    ("shape", {"energy_innovation": np.zeros((3, 9, 12), np.float32)}, "energy_innovation"),
    ("dimensions", {"frames": np.zeros((3, 8, 3), np.uint8)}, "frames"),
    ("not finite", {"energy_carried": np.full((3, 9, 13), np.nan, np.float32)}, "energy_carried"),
    ("negative energy", {"range_carried": np.full((3, 2), -1, np.float32)}, "range_carried"),
    ("range upside down", {"range_carried": np.array([[0, 1], [2, 1], [0, 0]], np.float32)}, "range_carried"),
    ("frames of no pixels", {"frames": np.zeros((3, 0, 8, 3), np.uint8)}, "frames"),
    ("packet out of range", {"frame_packet": np.array([0, 1, 7], np.int32)}, "frame_packet"),
    ("negative packet", {"frame_packet": np.array([-1, 1, 2], np.int32)}, "frame_packet"),
    ("time runs back", {"frame_pts": np.array([5, 5, 6])}, "frame_pts"),
    ("picture type", {"frame_type": np.array(list("IXP"))}, "frame_type"),
    ("ragged offsets", {"mv_offset": np.array([0, 2, 1, 99])}, "mv_offset"),
    ("newer schema", {"schema": np.array(npz.SCHEMA + 1, "<i4")}, "schema"),
    ("no schema", {"schema": np.array(0, "<i4")}, "schema"),
    ("sheared", {"info": with_info(stream__orientation=[[1, 1, 0], [0, 1, 0]])}, "info"),
    ("turned, but not moved back", {"info": with_info(stream__orientation=[[0, -1, 0], [1, 0, 0]])}, "info"),
    ("orientation of a taller picture", {"info": with_info(stream__orientation=[[1, 0, 0], [0, -1, 50]])}, "info"),
    ("aspect of three numbers", {"info": with_info(stream__display_aspect=[1, 2, 3])}, "info"),
    ("samples without a width", {"info": with_info(stream__sar=["1", 1])}, "info"),
    ("info is a number", {"info": np.array(5)}, "info"),
    ("info is not JSON", {"info": np.array("{")}, "info"),
    ("info is a list", {"info": np.array("[]")}, "info"),
    ("info is deep", {"info": np.array("[" * 100_000)}, "info"),
    ("no width", {"info": np.array(json.dumps({**INFO, "stream": {}}))}, "info"),
    ("absurd width", {"info": with_info(stream__width=10**9)}, "info"),
    ("block of 5", {"info": with_info(extraction__block=5)}, "info"),
    ("time base of 0", {"info": with_info(stream__time_base=[0, 0])}, "info"),
    ("raw bytes", {"qp": b"this is no array"}, "qp"),
    ("cut member", {"qp": b"\x93NUMPY\x01\x00"}, "qp"),
]


@pytest.mark.parametrize(("name", "change", "field"), BAD, ids=[case[0] for case in BAD])
def test_bad_members_are_named(tmp_path: Path, name: str, change: dict[str, Any], field: str) -> None:
    record().save(tmp_path / "good.npz")
    bad = rewrite(tmp_path / "good.npz", tmp_path / "bad.npz", change)
    with pytest.raises(MetaFormatError) as caught:
        load(bad)
    assert caught.value.field == field
    assert str(bad) in str(caught.value)


def old_info(**stream: Any) -> np.ndarray:
    """`info` as schema 1 had it."""
    info = json.loads(json.dumps(INFO))
    del info["stream"]["orientation"]
    info["stream"] |= {"rotation": 0, "sar": None} | stream
    return np.array(json.dumps(info))


@pytest.mark.parametrize("rotation", [-90, 0, 90, 180, 270])
def test_files_of_schema_1_are_read(tmp_path: Path, rotation: int) -> None:
    record().save(tmp_path / "new.npz")
    change = {"schema": np.array(1, "<i4"), "info": old_info(rotation=rotation, sar=[4, 3])}
    meta = load(rewrite(tmp_path / "new.npz", tmp_path / "old.npz", change))
    energy = np.arange(9 * 13).reshape(9, 13)
    np.testing.assert_array_equal(meta.orientation.turn(energy), np.rot90(energy, rotation // 90))
    assert "rotation" not in meta.info["stream"]
    upright = rotation % 180 == 0
    assert meta.info["stream"]["display_aspect"] == ([100, 51] if upright else [51, 100])
    assert meta.display_size == ((67, 34) if upright else (26, 50))
    assert np.array_equal(meta.frames, record().frames)
    # what is written from it is of the schema of records without JPEG
    meta.save(tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz", allow_pickle=False) as arrays:
        assert int(arrays["schema"]) == 2
    assert same(load(tmp_path / "again.npz"), meta)


@pytest.mark.parametrize(
    "stream",
    [
        {"rotation": 45},
        {"rotation": "0"},
        {"rotation": None},
        {"sar": 5},
        {"sar": [1, 2, 3]},
        {"width": "wide"},
        {"width": 0, "height": 0},
        {"height": None},
    ],
)
def test_bad_files_of_schema_1_are_refused(tmp_path: Path, stream: dict[str, Any]) -> None:
    record().save(tmp_path / "new.npz")
    change = {"schema": np.array(1, "<i4"), "info": old_info(**stream)}
    with pytest.raises(MetaFormatError) as caught:
        load(rewrite(tmp_path / "new.npz", tmp_path / "old.npz", change))
    assert caught.value.field == "info"


@pytest.mark.parametrize("name", ["schema", "info", *REQUIRED])
def test_missing_members(tmp_path: Path, name: str) -> None:
    record().save(tmp_path / "good.npz")
    with pytest.raises(MetaFormatError) as caught:
        load(rewrite(tmp_path / "good.npz", tmp_path / "bad.npz", {}, drop=(name,)))
    assert caught.value.field == name


def test_pairs_come_together_and_extras_are_ignored(tmp_path: Path) -> None:
    record().save(tmp_path / "good.npz")
    with pytest.raises(MetaFormatError, match="stored together"):
        load(rewrite(tmp_path / "good.npz", tmp_path / "bad.npz", {}, drop=("range_carried",)))
    more = rewrite(tmp_path / "good.npz", tmp_path / "more.npz", {"unheard_of": np.zeros(3)})
    assert same(load(more), record())


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    record().save(tmp_path / "good.npz")
    for shape in [(10**12,), (10**8,), (2**62, 2**62), (-1,)]:
        with pytest.raises(MetaFormatError) as caught:
            load(rewrite(tmp_path / "good.npz", tmp_path / "bad.npz", {"packet_size": header("<u4", shape)}))
        assert caught.value.field == "packet_size"
    with pytest.raises(MetaFormatError):
        load(rewrite(tmp_path / "good.npz", tmp_path / "bad.npz", {"qp": header("|i1", (3,)) + b" " * 2_000_000}))


def test_zip_bomb(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte, with all the right headers."""
    record().save(tmp_path / "good.npz")
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(tmp_path / "good.npz") as good, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as bad:
        for entry in good.infolist():
            if entry.filename != "frames.npy":
                bad.writestr(entry.filename, good.read(entry))
        with bad.open("frames.npy", "w", force_zip64=True) as member:
            member.write(header("|u1", (3, 10_000, 12_000, 3)))
            for _ in range(1080):
                member.write(bytes(1_000_000))
    assert bomb.stat().st_size < 3_000_000
    with pytest.raises(MetaFormatError, match="expands to"):
        load(bomb)


def test_flat_pictures_are_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They fold up so well that a file without padding would be refused."""
    monkeypatch.setattr(npz, "FREE_BYTES", 1 << 20)
    flat = replace(record(), frames=np.zeros((3, 1000, 1000, 3), np.uint8))
    flat.save(tmp_path / "a.npz", deflate=True)
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    assert same(load(tmp_path / "a.npz"), flat)
    flat.save(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "b.npz") as archive:
        assert "padding.npy" not in archive.namelist()


def test_an_honest_file_beyond_the_limit_is_refused_by_size(tmp_path: Path) -> None:
    record().save(tmp_path / "a.npz")
    with pytest.raises(MetaFormatError, match="at most 1000"):
        load(tmp_path / "a.npz", max_bytes=1000)


def test_what_is_no_zip(tmp_path: Path) -> None:
    record().save(tmp_path / "good.npz")
    content = (tmp_path / "good.npz").read_bytes()
    bad = tmp_path / "bad.npz"
    for part in (b"", b"x", b"\x80\x04N.", content[: len(content) // 2], content[:-10], content[100:]):
        bad.write_bytes(part)
        with pytest.raises(MetaFormatError):
            load(bad)
    with pytest.raises(OSError):
        load(tmp_path / "missing.npz")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(MetaFormatError, match="not a regular file"):
        load(tmp_path / "a.npz")
    with pytest.raises(MetaFormatError, match=r"a folder; give one \.npz of it"):
        load(tmp_path)


def test_flipped_bytes_never_escape(tmp_path: Path) -> None:
    record().save(tmp_path / "good.npz", deflate=True)
    content = (tmp_path / "good.npz").read_bytes()
    rng = np.random.default_rng(0)
    bad = tmp_path / "bad.npz"
    refused = 0
    for _ in range(400):
        flipped = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            flipped[at] ^= 1 << int(rng.integers(0, 8))
        bad.write_bytes(flipped)
        try:
            load(bad)
        except MetaFormatError:
            refused += 1
    assert refused > 300


def test_saving_refuses_a_wrong_record_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MetaFormatError):
        replace(record(), frame_pts=np.array([1, 1, 2])).save(tmp_path / "a.npz")
    with pytest.raises(OSError):
        record().save(tmp_path / "no folder" / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(seed=1).save(tmp_path / "a.npz")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        record(seed=2).save(tmp_path / "a.npz")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert same(load(tmp_path / "a.npz"), record(seed=1))


def test_killed_writers_leave_whole_files(tmp_path: Path) -> None:
    script = """
import sys
sys.path.insert(0, {root!r})
from tests.codecmeta.record.test_meta import record
meta = record(40, 400)
print("ready", flush=True)
while True:
    meta.save({path!r})
"""
    path = tmp_path / "a.npz"
    root = str(Path(__file__).resolve().parents[3])
    for attempt in range(4):
        code = script.format(root=root, path=str(path))
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.05 + 0.03 * attempt)
            child.send_signal(signal.SIGKILL)
        assert same(load(path), record(40, 400))


def test_density_and_packet_sizes() -> None:
    meta = record()
    assert meta.density((2, 3)).shape == (3, 2, 3)
    assert [gop.start for gop in meta.gops] == [0, 3, 6]
    assert sum(gop.bytes for gop in meta.gops) == meta.packet_size.sum()
    with pytest.raises(UsageError, match=r"no map 'carried' \(not extracted\); it has innovation, .*--maps carried"):
        replace(meta, energy_carried=None, range_carried=None).density((2, 2), map="carried")
    with pytest.raises(UsageError, match="inside the displayed picture"):
        meta.density((2, 2), (0, 0, 51, 34))
    assert "3 frames of 7 packets" in repr(meta)
