"""Packets that a container announces and that are not there, or that no decoder takes, are noticed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from codecmeta import extract
from codecmeta.container import avi_structure, matroska_structure
from codecmeta.container.announced import count_malformed, find_missing
from codecmeta.container.packets import read_packets
from codecmeta.container.unit_table import read_units
from codecmeta.container.video import open_video
from codecmeta.storage.local_file import LocalFile
from tests.codecmeta.make_video import write_video

Edit = Callable[[bytearray], None]


def remux(source: Path, path: Path, options: dict[str, str] | None = None) -> Path:
    with av.open(str(source)) as reader, av.open(str(path), "w", options=options or {}) as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"bf": "0", "g": "10", "crf": "20"}
    return write_video(tmp_path_factory.mktemp("announced") / "clip.mp4", frames=50, options=options)


@pytest.fixture(scope="module")
def matroska(source: Path) -> Path:
    """Several clusters without checksums, as most writers make them."""
    return remux(source, source.with_suffix(".mkv"), {"write_crc32": "0", "cluster_time_limit": "300"})


@pytest.fixture(scope="module")
def avi(source: Path) -> Path:
    return write_video(source.with_suffix(".avi"), codec="mpeg4", frames=50)


def judge(path: Path) -> tuple[str, str]:
    """State and evidence where nothing but packets is read."""
    verdict = extract(path, residual="none", pixels=None).info["verdict"]
    assert verdict["checked"] == 0
    return verdict["state"], verdict["evidence"]


def edit(path: Path, folder: Path, change: Edit) -> Path:
    content = bytearray(path.read_bytes())
    change(content)
    edited = folder / path.name
    edited.write_bytes(content)
    return edited


def clusters(content: bytes | bytearray) -> list[int]:
    places, at = [], content.find(b"\x1f\x43\xb6\x75")
    while at >= 0:
        places.append(at)
        at = content.find(b"\x1f\x43\xb6\x75", at + 4)
    return places


def test_whole_files_are_complete(source: Path, matroska: Path, avi: Path) -> None:
    for path in (source, matroska, avi):
        assert judge(path)[0] == "complete"
    with LocalFile(matroska) as one, LocalFile(avi) as other:
        assert matroska_structure.read_structure(one).blocks == {1: 50}
        assert avi_structure.read_structure(other).chunks == {0: 50}
    assert len(clusters(matroska.read_bytes())) > 4


def zero_cluster(content: bytearray) -> None:
    begin, end = clusters(content)[2:4]
    content[begin:end] = bytes(end - begin)


def zero_header(content: bytearray) -> None:
    begin = clusters(content)[2]
    content[begin : begin + 4] = bytes(4)


def move_block_to_another_track(content: bytearray) -> None:
    at = content.index(b"\xa3", clusters(content)[1])
    place = content.index(b"\x81", at + 2)
    content[place] = 0x85


def make_block_a_number(content: bytearray) -> None:
    """One bit of a SimpleBlock's identifier makes it a PrevSize, which a cluster may hold, too."""
    content[content.index(b"\xa3", clusters(content)[1])] = 0xAB


def insert(content: bytearray) -> None:
    begin = clusters(content)[1] + 40
    content[begin:begin] = b"noise that was not there"


@pytest.mark.parametrize(
    "change", [zero_cluster, zero_header, move_block_to_another_track, make_block_a_number, insert]
)
def test_a_matroska_file_that_loses_a_cluster(matroska: Path, tmp_path: Path, change: Edit) -> None:
    """libav goes on at the next cluster, without an error."""
    damaged = edit(matroska, tmp_path, change)
    assert judge(damaged)[0] == "damaged"


def test_the_end_that_a_matroska_header_announces(matroska: Path, tmp_path: Path) -> None:
    """Empty space instead of the last clusters: everything joins, and more than a second is missing."""

    def cut(content: bytearray) -> None:
        begin, end = clusters(content)[2], content.rindex(b"\x1c\x53\xbb\x6b")
        void = end - begin - 9
        content[begin:end] = b"\xec\x01" + void.to_bytes(7, "big") + bytes(void)

    state, evidence = judge(edit(matroska, tmp_path, cut))
    assert state == "damaged" and "announces 2.00 s" in evidence


def test_a_checksum_tells_of_a_single_bit(source: Path, tmp_path: Path) -> None:
    path = remux(source, tmp_path / "sum.mkv")
    assert judge(path)[0] == "complete"

    def flip(content: bytearray) -> None:
        content[clusters(content)[0] + 400] ^= 1

    (tmp_path / "flipped").mkdir()
    state, evidence = judge(edit(path, tmp_path / "flipped", flip))
    assert state == "damaged" and "checksum" in evidence


def zero_chunks(content: bytearray) -> None:
    begin = content.index(b"00dc", content.index(b"movi") + 2000)
    content[begin : begin + 300] = bytes(300)


def drop_index_entry(content: bytearray) -> None:
    begin = content.index(b"idx1") + 8
    content[begin + 160 : begin + 164] = b"01dc"


def move_chunk_to_another_stream(content: bytearray) -> None:
    begin = content.index(b"00dc", content.index(b"movi") + 2000)
    content[begin : begin + 4] = b"07dc"


@pytest.mark.parametrize("change", [zero_chunks, drop_index_entry, move_chunk_to_another_stream])
def test_an_avi_that_loses_chunks(avi: Path, tmp_path: Path, change: Edit) -> None:
    assert judge(edit(avi, tmp_path, change))[0] == "damaged"


def test_chunks_without_content_are_frames_that_were_dropped(avi: Path, tmp_path: Path) -> None:
    """Their number is in the header; nothing is missing."""

    def empty(content: bytearray) -> None:
        begin = content.index(b"00dc", content.index(b"movi") + 2000)
        length = int.from_bytes(content[begin + 4 : begin + 8], "little")
        index = content.index(b"idx1") + 8
        offset = (begin - content.index(b"movi")).to_bytes(4, "little")
        entry = content.index(b"00dc", index)
        while content[entry + 8 : entry + 12] != offset:
            entry += 16
        content[entry + 12 : entry + 16] = bytes(4)
        padded = length + (length & 1)
        rest = b"JUNK" + (padded - 8).to_bytes(4, "little") + bytes(padded - 8)
        content[begin + 4 : begin + 8 + padded] = bytes(4) + rest

    path = edit(avi, tmp_path, empty)
    with open_video(path) as video:
        packets = read_packets(video)
        assert packets.size.size == 49
        assert find_missing(video, packets) is None


def test_packets_whose_units_do_not_join(source: Path, tmp_path: Path) -> None:
    """Of an MP4's unread packets too, where any payload is read; packets only, nothing is looked at."""
    with av.open(str(source)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]

    def break_length(content: bytearray) -> None:
        at = places[7]
        assert at is not None
        content[at + 2] ^= 0x40

    path = edit(source, tmp_path, break_length)
    for name, count in ((source, 0), (path, 1)):
        with open_video(name) as video:
            packets = read_packets(video)
            assert count_malformed(video, packets, read_units(video, packets)) == count
    sparse = extract(path, frames=[40], pixels=None, maps=("innovation",)).info["verdict"]
    assert (sparse["state"], sparse["corrupt_packets"], sparse["checked"]) == ("damaged", 1, 1)
    assert judge(path)[0] == "complete"


@pytest.mark.parametrize(("pix_fmt", "profile", "first"), [("yuv420p", "0", 0x82), ("yuv444p", "1", 0xA2)])
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_vp9_frames_of_another_profile_or_without_a_sync_code(
    tmp_path: Path, suffix: str, pix_fmt: str, profile: str, first: int
) -> None:
    settings = {"g": "10", "profile": profile}
    path = tmp_path / f"clip.{suffix}"
    source = write_video(path, codec="libvpx-vp9", frames=20, width=64, pix_fmt=pix_fmt, options=settings)
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert packets[0][0] == first
    options: dict[str, Any] = {"frames": [0], "pixels": None, "maps": ("innovation",)}
    assert extract(source, **options).info["verdict"]["state"] == "complete"
    for number, at, bits in ((7, 0, 0x10), (7, 0, 0x20), (10, 1, 0x01)):
        content = source.read_bytes()
        begin = content.index(packets[number])
        damaged = tmp_path / f"{number}-{bits}.{suffix}"
        damaged.write_bytes(content[: begin + at] + bytes([content[begin + at] ^ bits]) + content[begin + at + 1 :])
        assert extract(damaged, **options).info["verdict"]["state"] == "damaged"


def test_packets_of_a_codec_without_what_is_asked_for(tmp_path: Path) -> None:
    """No residual is read of VP9, but the form of its packets is looked at all the same."""
    source = write_video(tmp_path / "clip.mp4", codec="libvpx-vp9", frames=20)
    with av.open(str(source)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]

    def zero(content: bytearray) -> None:
        at = places[7]
        assert at is not None
        content[at : at + 4] = bytes(4)

    (tmp_path / "zeroed").mkdir()
    path = edit(source, tmp_path / "zeroed", zero)
    states = [
        extract(name, frames=[3], pixels=None, maps=("innovation",)).info["verdict"]["state"] for name in (source, path)
    ]
    assert states == ["complete", "damaged"]
    assert judge(path)[0] == "complete"


def test_a_frame_whose_time_is_damaged(tmp_path: Path) -> None:
    """One composition offset is far off: the edit list hides the frame, and a gap stays where it was."""
    source = write_video(tmp_path / "b.mp4", frames=30, options={"bf": "2"})
    assert judge(source)[0] == "complete"

    def change(content: bytearray) -> None:
        at = content.index(b"ctts") + 12 + 8 * 6
        content[at + 5] ^= 0x10

    (tmp_path / "changed").mkdir()
    state, evidence = judge(edit(source, tmp_path / "changed", change))
    assert state == "damaged" and "gaps in the times" in evidence


def test_a_plane_of_many_bytes_that_is_not_coded(avi: Path, tmp_path: Path) -> None:
    """A decoder passes over it without an error; one of a few bytes is a picture."""

    def change(content: bytearray) -> None:
        at = content.index(b"\0\0\1\xb6", content.index(b"movi") + 2000) + 4
        content[at + 1 : at + 40] = bytes(39)

    state, _ = judge(edit(avi, tmp_path, change))
    assert state == "damaged"


def test_a_last_picture_that_stays(source: Path, matroska: Path, tmp_path: Path) -> None:
    """In a file of varying rate the header's duration counts it, and no block does."""
    varying = tmp_path / "varying.mkv"
    with av.open(str(source)) as reader, av.open(str(varying), "w", options={"write_crc32": "0"}) as output:
        stream = reader.streams.video[0]
        copy = output.add_stream_from_template(stream)
        assert stream.time_base is not None
        second = int(1 / stream.time_base)
        for number, packet in enumerate(packet for packet in reader.demux(stream) if packet.size):
            packet.pts = packet.dts = number * second // 25 + (number > 30) * second
            packet.stream = copy
            output.mux(packet)

    def stay(content: bytearray) -> None:
        at = content.index(b"\x44\x89\x88") + 3
        (duration,) = struct.unpack_from(">d", content, at)
        struct.pack_into(">d", content, at, duration + 3000)

    (tmp_path / "stays").mkdir()
    for path, state in ((varying, "complete"), (matroska, "damaged")):
        assert judge(path)[0] == "complete"
        assert judge(edit(path, tmp_path / "stays", stay))[0] == state


def move_fragments(content: bytes, starts: list[int]) -> bytes:
    """Set the decode time at which each fragment begins, in the track's time scale."""
    moved, at = bytearray(content), 0
    for start in starts:
        at = moved.index(b"tfdt", at) + 4
        version = moved[at]
        moved[at + 4 : at + (12 if version else 8)] = start.to_bytes(8 if version else 4, "big")
    return bytes(moved)


def test_fragments_that_begin_before_others_end(source: Path, tmp_path: Path) -> None:
    """libav hides their frames; a pause between fragments hides none."""
    fragments = remux(source, tmp_path / "clip.mp4", {"movflags": "frag_keyframe+empty_moov"})
    content = fragments.read_bytes()
    starts = [fragment * 10 * 512 for fragment in range(5)]
    assert move_fragments(content, starts) == content
    assert judge(fragments)[0] == "complete"
    fragments.write_bytes(move_fragments(content, [*starts[:2], *(start + 50 * 512 for start in starts[2:])]))
    assert judge(fragments)[0] == "complete"
    fragments.write_bytes(move_fragments(content, [0] * 5))
    meta = extract(fragments, residual="none", pixels=None)
    hidden = meta.info["verdict"]["hidden"]
    assert hidden > 0
    assert judge(fragments) == (
        "damaged",
        f"{hidden} frames are hidden: their fragments begin before those that precede them end",
    )
