"""Sample tables of MP4 files against libavformat's index, and tables that lie."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from codecmeta.container import mp4_boxes
from codecmeta.container.sample_table import SampleTable
from codecmeta.errors import SourceError
from codecmeta.storage.local_file import LocalFile
from tests.codecmeta.container.mp4_writer import box, insert, rewrite, table, with_edits
from tests.codecmeta.make_video import write_video

FRAMES = 24


def read_track(path: Path, track_id: int = 1) -> mp4_boxes.Track:
    with LocalFile(path) as source:
        track = mp4_boxes.read_track(source, track_id)
    assert track is not None
    return track


def libav_packets(path: Path) -> NDArray[np.int64]:
    """pts, dts, size, whether shown, and position of each packet, by demuxing."""
    with av.open(str(path)) as source:
        packets = [p for p in source.demux(source.streams.best("video")) if p.size]
    return np.array([(p.pts, p.dts, p.size, not p.is_discard, p.pos) for p in packets], np.int64).reshape(-1, 5)


def libav_keys(path: Path) -> list[bool] | None:
    """Key flags of libavformat's index; None where PyAV does not show it (before version 16)."""
    with av.open(str(path)) as source:
        stream: Any = source.streams.best("video")
        return [e.is_keyframe for e in stream.index_entries] if hasattr(stream, "index_entries") else None


def check(path: Path, samples: SampleTable) -> None:
    """All that the tables say is what the demuxer gives, up to one shift of each kind of time."""
    packets = libav_packets(path)
    present = samples.size > 0
    assert len(packets) == np.count_nonzero(present)
    assert np.unique(packets[:, 0] - samples.pts[present]).size == 1
    assert np.unique(packets[:, 1] - samples.dts[present]).size == 1
    for column, name in ((2, "size"), (3, "shown"), (4, "position")):
        assert np.array_equal(packets[:, column], getattr(samples, name)[present]), name
    keys = libav_keys(path)
    assert keys is None or keys == samples.key.tolist()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """B-frames, a key frame every eight frames, leading pictures."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    options = {"g": "8", "bf": "2", "x264-params": "open-gop=1:scenecut=0"}
    return write_video(path, frames=FRAMES, options=options).read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """No B-frames, so no composition offsets."""
    path = tmp_path_factory.mktemp("straight") / "straight.mp4"
    return write_video(path, frames=FRAMES, options={"g": "8", "bf": "0"}).read_bytes()


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "changed.mp4"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["event_h264.mp4", "pan_hevc.mp4", "still_h264.mp4"])
def test_shipped_clips(data: Path, name: str) -> None:
    samples = read_track(data / name).samples
    assert samples is not None
    check(data / name, samples)


def test_real_clips(clips: Path) -> None:
    checked = 0
    for path in sorted(clips.rglob("*.m[po][4v]")):
        with av.open(str(path)) as source:
            track_id = source.streams.best("video").id
        samples = read_track(path, track_id).samples
        if samples is not None:
            check(path, samples)
            checked += 1
    assert checked == 17


@settings(max_examples=40, deadline=None)
@given(begin=st.integers(0, 13000), duration=st.integers(1, 1200), empty=st.integers(0, 300), reorders=st.booleans())
def test_edits(
    plain: bytes,
    straight: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    begin: int,
    duration: int,
    empty: int,
    reorders: bool,
) -> None:
    """One edit anywhere, after nothing or an empty one: the same packets, the same of them shown."""
    edits = [(empty, -1), (duration, begin)] if empty else [(duration, begin)]
    path = put(tmp_path_factory.mktemp("edits"), with_edits(plain if reorders else straight, edits))
    samples = read_track(path).samples
    if samples is None:
        assert not libav_packets(path)[:, 3].any()
    else:
        check(path, samples)


def test_edits_in_pieces_are_left_to_the_demuxer(tmp_path: Path, plain: bytes) -> None:
    assert read_track(put(tmp_path, with_edits(plain, [(200, 6144), (200, 1024)]))).samples is None
    assert read_track(put(tmp_path, with_edits(plain, [(200, 1024)]))).samples is not None


def compact(width: int) -> Any:
    def convert(stsz: bytes) -> bytes:
        sizes = np.minimum(np.frombuffer(stsz, ">u4", -1, 12), (1 << width) - 1)
        if width == 4:
            packed = bytes((int(a) << 4) | int(b) for a, b in zip(sizes[::2], sizes[1::2], strict=True))
        else:
            packed = sizes.astype(f">u{width // 8}").tobytes()
        return stsz[:4] + struct.pack(">II", width, sizes.size) + packed

    return convert


@pytest.mark.parametrize("width", [4, 8, 16])
def test_compact_sizes(tmp_path: Path, straight: bytes, width: int) -> None:
    """The bytes of a sample are cut, but the demuxer reads the same tables."""
    content = rewrite(straight, {b"stsz": compact(width)}).replace(b"stsz", b"stz2")
    samples = read_track(put(tmp_path, content)).samples
    assert samples is not None
    assert samples.size.max() < 1 << width
    check(tmp_path / "changed.mp4", samples)


def test_offsets_of_64_bits(tmp_path: Path, plain: bytes) -> None:
    content = rewrite(plain, {b"stco": lambda old: old[:8] + bytes(4) + old[8:12]}).replace(b"stco", b"co64")
    samples = read_track(put(tmp_path, content)).samples
    assert samples is not None
    check(tmp_path / "changed.mp4", samples)


def test_chunks_of_several_descriptions(tmp_path: Path, straight: bytes) -> None:
    """Three chunks, the second of another sample entry."""
    samples = read_track(put(tmp_path, straight)).samples
    assert samples is not None
    begin = samples.position[[0, 10, 17]].tolist()
    content = rewrite(
        straight,
        {
            b"stco": table(*((place,) for place in begin)),
            b"stsc": table((1, 10, 1), (2, 7, 2), (3, 7, 1)),
            b"stsd": lambda old: old[:4] + struct.pack(">I", 2) + 2 * old[8:],
        },
    )
    track = read_track(put(tmp_path, content))
    assert track.samples is not None
    assert len(track.descriptions) == 2
    assert track.descriptions[0].record[0] == 1
    assert track.samples.description.tolist() == [0] * 10 + [1] * 7 + [0] * 7
    check(tmp_path / "changed.mp4", track.samples)


@pytest.mark.parametrize(
    ("boxes", "key"),
    [
        ({b"stss": None}, range(FRAMES)),
        ({b"stss": table()}, [0]),
        ({b"stss": table((1,), (9,))}, [0, 8]),
        ({b"stss": table((0,), (8,))}, [0, 8]),
        ({b"stss": table((1,), (9,), (99,))}, [0, 8]),
    ],
    ids=["no list", "an empty list", "some", "from zero", "one beyond the end"],
)
def test_sync_samples(tmp_path: Path, plain: bytes, boxes: dict[bytes, Any], key: Any) -> None:
    samples = read_track(put(tmp_path, rewrite(plain, boxes))).samples
    assert samples is not None
    assert np.flatnonzero(samples.key).tolist() == list(key)
    check(tmp_path / "changed.mp4", samples)


@pytest.mark.parametrize(
    "group",
    [box(b"stps", table((17,))), box(b"sbgp", table((16, 0), (1, 1), (7, 0), header=bytes(4) + b"rap "))],
    ids=["partial sync samples", "sample group"],
)
def test_open_random_access_points(tmp_path: Path, plain: bytes, group: bytes) -> None:
    description = box(b"sgpd", struct.pack(">B3x4sIIB", 1, b"rap ", 1, 1, 0))
    content = insert(rewrite(plain, {b"stss": table((1,), (9,))}), into=b"stbl", boxes=description + group)
    samples = read_track(put(tmp_path, content)).samples
    assert samples is not None
    assert np.flatnonzero(samples.key).tolist() == [0, 8, 16]
    check(tmp_path / "changed.mp4", samples)


@pytest.mark.parametrize(
    "boxes",
    [
        {b"stsc": table((1, 7, 1))},
        {b"stsc": table((2, FRAMES, 1))},
        {b"stsc": table((1, FRAMES, 2))},
        {b"stsc": table((1, FRAMES, 0))},
        {b"stsc": table()},
        {b"stco": None},
        {b"stco": table()},
        {b"stco": bytes(4) + struct.pack(">I", 1 << 31) + bytes(64)},
        {b"stts": table((FRAMES - 1, 512))},
        {b"stts": table((FRAMES, 0xFFFFFFFF))},
        {b"ctts": table((FRAMES + 1, 512))},
        {b"ctts": bytes(4) + b"\xff" * 12},
        {b"stsd": bytes(8)},
        {b"mdhd": bytes(24)},
        {b"stsz": None},
        {b"stsz": bytes(4) + struct.pack(">II", 0, FRAMES + 4)},
    ],
    ids=lambda boxes: next(iter(boxes)).decode(),
)
def test_tables_that_contradict_each_other(tmp_path: Path, plain: bytes, boxes: dict[bytes, Any]) -> None:
    assert read_track(put(tmp_path, rewrite(plain, boxes))).samples is None


@pytest.mark.parametrize("claim", [struct.pack(">II", 1, 1 << 25), struct.pack(">II", 1 << 30, 3)])
def test_more_than_the_file_can_hold(tmp_path: Path, plain: bytes, claim: bytes) -> None:
    with pytest.raises(SourceError, match="the index lists") as caught:
        read_track(put(tmp_path, rewrite(plain, {b"stsz": bytes(4) + claim})))
    assert caught.value.code == "damaged"


def test_more_than_is_allowed_is_refused_before_memory_is_taken(tmp_path: Path, plain: bytes) -> None:
    """A constant size claims as many samples as the file has bytes in a header of twelve."""
    content = rewrite(plain, {b"stsz": bytes(4) + struct.pack(">II", 1, 1 << 30)})
    path = put(tmp_path, content)
    with path.open("r+b") as file:
        file.truncate(2 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=r"lists 1073741824 packets; allowed are 67108864$") as caught:
            read_track(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert caught.value.code == "limit_exceeded"
    small = put(tmp_path, plain)
    with LocalFile(small) as source, pytest.raises(SourceError, match="lists 24 packets; allowed are 23"):
        mp4_boxes.read_track(source, 1, most_samples=23)


def test_damaged_headers_never_escape_the_error_tree(tmp_path: Path, plain: bytes) -> None:
    rng = np.random.default_rng(3)
    begin = plain.index(b"moov")
    for _ in range(300):
        changed = bytearray(plain)
        for place in rng.integers(begin + 4, len(plain), 3).tolist():
            changed[place] = int(rng.integers(0, 256))
        path = put(tmp_path, bytes(changed))
        with LocalFile(path) as source:
            try:
                mp4_boxes.read_track(source, 1)
            except SourceError as error:
                assert error.code == "damaged"
