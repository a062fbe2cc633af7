"""H.264 frames whose two fields come in a packet each: one packet of the table, one frame, one residual."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta import SourceError, extract
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import PacketTable, read_packets
from codecmeta.container.video import open_video
from codecmeta.errors import BitstreamError
from codecmeta.h264 import ResidualReader
from codecmeta.h264.field_pairs import FieldPairs
from codecmeta.storage.local_file import LocalFile
from tests.codecmeta.h264.field_stream import (
    coded_frames,
    parameter_sets,
    predicted_field,
)
from tests.codecmeta.h264.streams import CLIPS
from tests.codecmeta.make_video import decode_all

FRAMES, PAIRS = 43, 38
APART = ["clip.ts", "clip.mkv", "clip.avi", "clip.mp4", "clip.mov", "clip.mpg", "clip.flv", "clip.h264"]


@pytest.fixture(scope="module")
def frames() -> list[list[bytes]]:
    return coded_frames(FRAMES)


def write_raw(path: Path, pictures: list[bytes]) -> Path:
    path.write_bytes(b"".join(pictures))
    return path


def write_stream(path: Path, frames: list[list[bytes]], *, together: bool = False, sound: bool = False) -> Path:
    """Put each picture, or each frame, into a packet of its own; with `sound`, audio lies between the fields."""
    if path.suffix == ".h264":
        return write_raw(path, [picture for pictures in frames for picture in pictures])
    raw = write_raw(path.with_name("raw.h264"), frames[0])
    tick = Fraction(1, 50)
    with av.open(str(raw)) as source, av.open(str(path), "w", options={"flush_packets": "1"}) as output:
        video = output.add_stream_from_template(source.streams.video[0])
        video.time_base = tick
        audio = output.add_stream("pcm_s16le", rate=8000) if sound else None
        if audio is not None:
            audio.layout = "mono"
        for index, pictures in enumerate(frames):
            parts = [b"".join(pictures)] if together else pictures
            for number, part in enumerate(parts):
                packet = av.Packet(part)
                packet.stream, packet.time_base = video, tick
                packet.pts = packet.dts = 2 * index + number
                packet.duration = 2 // len(parts)
                packet.is_keyframe = index % 8 == 0 and number == 0
                output.mux(packet)
                if audio is not None:
                    samples = av.AudioFrame.from_ndarray(np.zeros((1, 160), np.int16), format="s16", layout="mono")
                    samples.sample_rate, samples.pts = 8000, (2 * index + number) * 160
                    output.mux(audio.encode(samples))
    return path


def read_table(path: Path) -> PacketTable:
    with open_video(path) as video:
        return read_packets(video)


def check(path: Path, frames: list[list[bytes]], *, pairs: int) -> None:
    """One record of all frames and one of a few, against the frames as they were written and as FFmpeg shows them."""
    meta = extract(path, frames="all", maps=("innovation",), qp=True)
    verdict = meta.info["verdict"]
    counts = (len(frames), len(frames), pairs, 0, 0)
    assert tuple(verdict[n] for n in ("packets", "frames", "field_pairs", "hidden", "missing_frames")) == counts
    assert verdict["state"] in ("complete", "unknown")
    assert meta.info["stream"]["fps"] == pytest.approx(25, rel=0.01)
    if path.suffix != ".avi":
        # which counts packets, be they fields or frames
        np.testing.assert_allclose(meta.frame_seconds - meta.frame_seconds[0], np.arange(len(frames)) / 25)
    assert [gop.packets for gop in meta.gops] == [8, 8, 8, 8, 8, 3]
    assert meta.frame_packet.tolist() == list(range(len(frames)))
    assert meta.info["signals"]["innovation"] == {"source": "bitstream"}
    reader, plain = ResidualReader(), decode_all(path)
    assert meta.residual_power is not None
    assert meta.frames is not None
    for index, pictures in enumerate(frames):
        moments = reader.measure(b"".join(pictures), block=4)
        assert np.array_equal(meta.residual_power[index], moments.energy.power)
        rgb = plain[index].to_ndarray(format="rgb24", interpolation="BICUBIC")
        assert np.array_equal(meta.frames[index], rgb), index
    assert not np.array_equal(meta.residual_power[1], meta.residual_power[3])
    # pictures that nothing refers to, and the last one, each from a seek of its own
    few = [2, 21, 37, len(frames) - 1]
    some = extract(path, frames=few, maps=("innovation",), qp=True)
    assert some.frames is not None
    assert np.array_equal(some.frames, meta.frames[few])
    bare = extract(path, frames=few, maps=("innovation",), qp=True, pixels=None)
    for record in (some, bare):
        for name in ("energy_innovation", "residual_power", "mb_bits", "qp", "frame_type", "frame_pts"):
            assert np.array_equal(getattr(record, name), getattr(meta, name)[few]), name


@pytest.mark.parametrize("name", APART)
def test_fields_in_a_packet_each(tmp_path: Path, frames: list[list[bytes]], name: str) -> None:
    path = write_stream(tmp_path / name, frames)
    with av.open(str(path)) as source:
        demuxed = [packet.size for packet in source.demux(video=0) if packet.size]
    two = [len(pictures) == 2 for pictures in frames]
    assert len(demuxed) == len(frames) + sum(two)
    check(path, frames, pairs=sum(two))
    table = read_table(path)
    assert table.origin == ("index" if path.suffix in (".mp4", ".mov") else "demux")
    sizes = iter(demuxed)
    assert table.size.tolist() == [next(sizes) + (next(sizes) if pair else 0) for pair in two]


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4", "clip.ts"])
def test_fields_in_one_packet(tmp_path: Path, frames: list[list[bytes]], name: str) -> None:
    path = write_stream(tmp_path / name, frames, together=True)
    # the parser of a transport stream takes the fields of one PES packet apart, the second one without a time stamp
    check(path, frames, pairs=PAIRS if path.suffix == ".ts" else 0)


def test_fields_that_do_not_lie_side_by_side(tmp_path: Path, frames: list[list[bytes]]) -> None:
    path = write_stream(tmp_path / "sound.mov", frames, sound=True)
    table = read_table(path)
    assert table.position is not None
    assert table.second_position is not None
    pair = table.second > 0
    assert (table.second_position - table.position > table.size - table.second)[pair].any()
    check(path, frames, pairs=PAIRS)


def test_frame_times_are_those_of_the_first_fields(tmp_path: Path, frames: list[list[bytes]]) -> None:
    meta = extract(write_stream(tmp_path / "clip.mp4", frames), frames="all", residual="none", pixels=None)
    np.testing.assert_allclose(meta.frame_seconds, np.arange(FRAMES) / 25)
    assert not meta.info["extraction"]["warnings"]


def test_a_stream_cut_between_the_last_fields(tmp_path: Path, frames: list[list[bytes]]) -> None:
    for name in ("clip.ts", "clip.h264"):
        with pytest.raises(SourceError, match="bottom field") as caught:
            extract(write_stream(tmp_path / name, [*frames[:-1], frames[-1][:1]]))
        assert caught.value.code == "truncated"


def test_fields_that_have_no_partner(tmp_path: Path, frames: list[list[bytes]]) -> None:
    """One lost field makes one frame that the bitstream does not have; its neighbours are paired as before."""
    lossy = [*frames[:9], frames[9][1:], frames[10], frames[11][:1], *frames[12:]]
    path = write_stream(tmp_path / "lossy.mkv", lossy)
    table = read_table(path)
    assert table.size.size == FRAMES
    assert np.flatnonzero(table.second == 0).tolist() == [4, 9, 11, 12, 20, 28, 36]
    whole = extract(write_stream(tmp_path / "clip.mkv", frames), frames="all", pixels=None, maps=("innovation",))
    kept = [index for index in range(FRAMES) if index not in (9, 11)]
    meta = extract(path, frames=kept, pixels=None, maps=("innovation",), residual="bitstream")
    assert meta.residual_power is not None
    assert whole.residual_power is not None
    assert np.array_equal(meta.residual_power, whole.residual_power[kept])
    with pytest.raises(SourceError, match="top field, macroblock 0 is missing"):
        extract(path, frames=[9], pixels=None, maps=("innovation",), residual="bitstream")


def test_streams_without_field_packets_are_left_alone(clips: Path) -> None:
    for path in (*sorted(CLIPS.glob("mbaff*.m*")), clips / "derived" / "bedroom_h264_cavlc_multislice.mp4"):
        table = read_table(path)
        with av.open(str(path)) as source:
            sizes = [packet.size for packet in source.demux(video=0) if packet.size]
        assert not table.second.any()
        assert table.size.tolist() == sizes


def field(rng: np.random.Generator, *, bottom: bool, frame_num: int = 3) -> bytes:
    return predicted_field(rng, bottom=bottom, frame_num=frame_num, reference=False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_what_makes_a_pair(rng: np.random.Generator) -> None:
    top, bottom = field(rng, bottom=False), field(rng, bottom=True)
    other = field(rng, bottom=True, frame_num=4)
    idr_top = b"\0\0\1\x65" + top[5:]  # idr_pic_id shifts what follows, not what comes before

    def continued(*packets: bytes) -> list[bool]:
        pairs = FieldPairs(parameter_sets())
        return [pairs.continues(packet) for packet in packets]

    assert continued(top, bottom, top, bottom) == [False, True, False, True]
    assert continued(bottom, top, bottom, top) == [False, True, False, True]
    assert continued(top, top, bottom) == [False, False, True]
    assert continued(top, other) == [False, False]
    assert continued(bottom, idr_top) == [False, False]
    assert continued(idr_top, b"\0\0\1\x65" + bottom[5:])[0] is False
    # a frame that is complete takes no further field, whichever comes first in it
    assert continued(top + bottom, bottom + top, top, bottom) == [False, False, False, True]
    # several slices of a field
    assert continued(top + top, bottom + bottom, bottom) == [False, True, False]
    # noise stands alone, and so does what follows it
    assert continued(top, b"\0\0\1\x41\xff\xff", bottom) == [False, False, False]


def test_headers_are_enough(tmp_path: Path, frames: list[list[bytes]]) -> None:
    """From an MP4 little more than the headers is read, and the pairs are the same."""
    path = write_stream(tmp_path / "clip.mp4", frames)
    with av.open(str(path)) as container:
        extradata = bytes(container.streams.video[0].codec_context.extradata or b"")
        spans = [
            (int(packet.pos or 0), packet.size, bytes(packet)) for packet in container.demux(video=0) if packet.size
        ]
    by_headers, by_packets = FieldPairs(extradata), FieldPairs(extradata)
    read = 0
    with LocalFile(path) as source:
        for position, size, packet in spans:
            headers = by_headers.read_headers(source.read_at, position, size)
            read += len(headers)
            assert by_headers.continues(headers) == by_packets.continues(packet)
    assert read < 0.4 * sum(size for _, size, _ in spans)


def test_hostile_packets_are_read_in_little_time_and_memory() -> None:
    """A sample of nothing but empty NAL units: not one of them is kept."""
    extradata = bytes([1, 77, 0, 30, 0xFC, 0xE0, 0])  # lengths of one byte, no parameter sets
    zeros = bytes(2_000_000)
    pairs = FieldPairs(extradata)
    assert pairs.needs_packet(key=True)
    headers = pairs.read_headers(lambda at, count: zeros[at : at + count], 0, len(zeros))
    assert len(headers) <= 1 << 14
    assert not pairs.continues(headers)
    tracemalloc.start()
    assert not pairs.continues(zeros)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    rng = np.random.default_rng(3)
    for _ in range(300):
        noise = bytearray(rng.bytes(200))
        noise[:6] = b"\0\0\1\x67\x4d\0"
        with suppress(BitstreamError):
            FieldPairs(bytes(noise[:7])).continues(bytes(noise))


def test_payloads_hold_both_fields(tmp_path: Path, frames: list[list[bytes]]) -> None:
    path = write_stream(tmp_path / "clip.ts", frames)
    with open_video(path) as video:
        found = dict(read_payloads(video, read_packets(video), range(FRAMES)))
    expected: dict[int, NDArray[np.int16]] = {}
    reader = ResidualReader()
    for number, pictures in enumerate(frames):
        expected[number] = reader.read(b"".join(pictures)).y
        assert np.array_equal(reader.read(found[number]).y, expected[number])
