"""Only what vectors depend on is read, and what is unknown is reported."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codecmeta.errors import BitstreamError
from codecmeta.h264 import nal
from codecmeta.h264.motion import FrameMotion, MotionArrays, MotionReader
from codecmeta.h264.parameter_sets import read_sequence_parameters
from codecmeta.h264.reader import CodedPicture, ResidualReader
from codecmeta.h264.reference_pictures import ReferencePicture, ReferencePictures
from codecmeta.h264.slice_header import I, SliceHeader
from tests.codecmeta.h264.streams import extradata, packets
from tests.codecmeta.h264.test_motion_vectors import compare, encode, read_motion

PYRAMID = "direct=temporal:ref=4:bframes=3:b-pyramid=normal:b-adapt=0"


class Counting(ResidualReader):
    """A reader that counts what it reads."""

    count = 0

    def decode(self, packet: bytes | list[bytes], *, learn: bool = True) -> CodedPicture:
        self.count += 1
        return super().decode(packet, learn=learn)


def test_a_frame_costs_its_own_packet_and_those_it_takes_motion_from(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", PYRAMID)
    everything, stream = read_motion(path), packets(path)
    costs = []
    for target, (_, arrays, *_rest) in enumerate(everything):
        reader = Counting(extradata(path), motion=True)
        following = MotionReader(reader)
        frames = [following.follow(packet) for packet in stream[: target + 1]]
        assert reader.count == 0
        found = following.read(frames[-1])
        costs.append(reader.count)
        for name in ("reference", "vector", "picture"):
            assert np.array_equal(getattr(found, name), getattr(arrays, name))
    assert min(costs) == 1
    assert 1 < max(costs) <= 3


def rewire(monkeypatch: pytest.MonkeyPatch, followed: list[FrameMotion]) -> None:
    """Let every frame take motion from the one before it."""

    def lists(_self: object, head: SliceHeader, order: int) -> tuple[list[object], list[object]]:
        before = ReferencePicture(frame_num=0, order=order - 2, content=followed[-1] if followed else None)
        return [before] * head.num_ref_idx_active[0], [before]

    monkeypatch.setattr(ReferencePictures, "lists", lists)


def test_a_chain_of_frames_is_read_before_it_grows_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame takes motion from the one before it: x264 makes no such streams, so all lists are rewired."""
    path = encode(tmp_path / "clip.mp4", PYRAMID)
    reader = Counting(extradata(path), motion=True)
    following, followed = MotionReader(reader), list[FrameMotion]()
    rewire(monkeypatch, followed)
    monkeypatch.setattr(
        MotionReader, "derive", lambda _self, frame, _coded: setattr(frame, "arrays", MotionArrays.empty(4))
    )
    for packet in packets(path):
        followed.append(following.follow(packet))
    assert [frame.waits for frame in followed][:12] == [*range(10), 0, 1]
    assert reader.count == len(followed) // 10 * 10
    assert [frame for frame in followed if frame.arrays is None] == followed[reader.count :]


def test_inference_from_corners_may_be_off(tmp_path: Path) -> None:
    """Every encoder sets direct_8x8_inference_flag; the same stream without it has other vectors, of 4x4 blocks."""
    settings = "direct=temporal:partitions=all:subme=9:crf=10:ref=2:bframes=3:b-adapt=0:8x8dct=0:repeat-headers=1"
    path = encode(tmp_path / "clip.h264", settings)
    other = tmp_path / "fine.h264"
    content = path.read_bytes()
    for unit in nal.split(content, 0):
        if unit.kind == nal.SPS:
            content = content.replace(unit.payload, without_inference(unit))
    other.write_bytes(content)
    same, different = compare(other)
    assert different == 0
    assert same > 1000
    tables = [[row[3] for row in read_motion(one)] for one in (path, other)]
    assert any(not np.array_equal(a, b) for a, b in zip(*tables, strict=True))
    assert any(((table[:, 2:4] == 4).all(axis=1)).any() for table in tables[1])


def without_inference(unit: nal.NalUnit) -> bytes:
    """Return the payload of a sequence parameter set without direct_8x8_inference_flag."""
    whole = read_sequence_parameters(unit.rbsp())
    for bit in range(8 * len(unit.payload)):
        payload = bytearray(unit.payload)
        payload[bit // 8] ^= 128 >> bit % 8
        try:
            changed = read_sequence_parameters(unit._replace(payload=bytes(payload)).rbsp())
        except BitstreamError:
            continue
        differing = [name for name in vars(whole) if getattr(whole, name) != getattr(changed, name)]
        if differing == ["direct_8x8_inference"]:
            return bytes(payload)
    raise AssertionError("the flag was not found")


def test_after_a_header_that_cannot_be_read_b_frames_are_unknown_until_all_begins_anew(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", f"{PYRAMID}:keyint=16:min-keyint=16")
    reader = ResidualReader(extradata(path), motion=True)
    following = MotionReader(reader)
    stream = packets(path)
    kinds = [frame.headers[0] for frame, *_ in read_motion(path)]
    with pytest.raises(BitstreamError):
        following.follow(stream[0][:-1] if stream[0][4] & 31 == 5 else b"\0\0\0\1\x65")
    told = 0
    for packet, head in zip(stream[1:], kinds[1:], strict=True):
        if head.idr:
            break
        if head.slice_type == 1:
            with pytest.raises(BitstreamError, match="unknown"):
                following.follow(packet)
            told += 1
        else:
            following.follow(packet)
    assert told > 5
    at = next(i for i, head in enumerate(kinds[1:], 1) if head.idr)
    for packet, (_, arrays, *_rest) in zip(stream[at:], read_motion(path)[at:], strict=True):
        found = following.read(following.follow(packet))
        assert np.array_equal(found.vector, arrays.vector)


def test_direct_prediction_from_a_picture_that_is_not_there(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", PYRAMID)
    following = MotionReader(ResidualReader(extradata(path), motion=True))
    told = 0
    for packet, (frame, *_) in zip(packets(path), read_motion(path), strict=True):
        following.restart()
        if frame.headers[0].slice_type == 1:
            try:
                following.read(following.follow(packet))
            except BitstreamError as error:
                assert "missing picture" in str(error)
                told += 1
    assert told > 5


def test_a_frame_that_was_read_for_the_sake_of_others_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "clip.mp4", PYRAMID.replace("temporal", "spatial"))
    reader, followed = ResidualReader(extradata(path), motion=True), list[FrameMotion]()
    following = MotionReader(reader)
    rewire(monkeypatch, followed)
    read = 0
    for packet in packets(path):
        frame = following.follow(packet)
        followed.append(frame)
        if frame.arrays is not None:
            read += 1
            following.prepare(frame)
            assert following.derive(frame, reader.decode(packet)) is frame.arrays
    assert read > 1


def test_a_chain_that_begins_with_a_corrupt_frame_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "clip.mp4", PYRAMID.replace("temporal", "spatial"))
    reader, followed = Counting(extradata(path), motion=True), list[FrameMotion]()
    following = MotionReader(reader)
    rewire(monkeypatch, followed)
    first, *others = packets(path)
    for packet in (first[: len(first) * 3 // 4], *others):
        followed.append(following.follow(packet))
    assert reader.count == 1
    assert not any(frame.is_waiting for frame in followed[:10])
    for frame in followed:
        with pytest.raises(BitstreamError):
            following.read(frame)
    assert reader.count == 1


def test_frames_that_nothing_refers_to_any_longer_are_forgotten(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", "ref=2:bframes=0")
    following = MotionReader(ResidualReader(extradata(path), motion=True))
    followed = [weakref.ref(following.follow(packet)) for packet in packets(path)]
    assert len(followed) == 40
    assert sum(frame() is not None for frame in followed) == 2


def test_a_frame_that_waits_keeps_the_lists_it_had(tmp_path: Path) -> None:
    """A reference may become one for long term before the frame that refers to it is read."""
    path = encode(tmp_path / "clip.mp4", f"{PYRAMID}:ref=2:weightb=0")
    everything, following = read_motion(path), MotionReader(ResidualReader(extradata(path), motion=True))
    for packet, (_, arrays, *_rest) in zip(packets(path), everything, strict=True):
        frame = following.follow(packet)
        for one in following._references:
            one.long_term = 0
        assert np.array_equal(following.read(frame).vector, arrays.vector)
        for one in following._references:
            one.long_term = None


def test_b_frames_are_unknown_where_a_reference_is_missing(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", f"{PYRAMID}:ref=2:weightb=0:keyint=20:min-keyint=20")
    stream, everything = packets(path), read_motion(path)
    refused = 0
    for left_out in range(1, 20):
        if not everything[left_out][0].headers[0].ref_idc:
            continue
        following = MotionReader(ResidualReader(extradata(path), motion=True))
        for number, (packet, (_, arrays, *_rest)) in enumerate(zip(stream, everything, strict=True)):
            if number == left_out:
                continue
            try:
                found = following.read(following.follow(packet))
            except BitstreamError as error:
                assert "unknown" in str(error)
                assert left_out < number < 20
                refused += 1
            else:
                assert np.array_equal(found.vector, arrays.vector)
    assert refused > 10


def test_b_slices_behind_another_slice_are_unknown_likewise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "clip.mp4", f"{PYRAMID}:slices=2")
    following = MotionReader(ResidualReader(extradata(path), motion=True))
    read_headers = MotionReader._read_headers

    def starting_intra(self: MotionReader, packet: bytes) -> list[SliceHeader]:
        first, *others = read_headers(self, packet)
        return [replace(first, slice_type=I), *others]

    monkeypatch.setattr(MotionReader, "_read_headers", starting_intra)
    stream = packets(path)
    following.follow(stream[0])
    with pytest.raises(BitstreamError):
        following.follow(b"")
    following.follow(stream[1])
    with pytest.raises(BitstreamError, match="unknown"):
        following.follow(stream[2])


def test_reading_an_earlier_frame_does_not_bring_its_parameter_sets_back(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.h264", "repeat-headers=1:chroma-qp-offset=0")
    other = encode(tmp_path / "other.h264", "repeat-headers=1:chroma-qp-offset=4")
    reader = ResidualReader(motion=True)
    following = MotionReader(reader)
    frame = following.follow(packets(path)[0])
    before = reader.sets.picture(0)
    reader.store(unit for unit in nal.split(packets(other)[0], 0) if unit.kind == nal.PPS)
    changed = reader.sets.picture(0)
    assert changed.chroma_qp_index_offset != before.chroma_qp_index_offset
    with pytest.raises(BitstreamError):
        following.read(frame)
    assert reader.sets.picture(0) is changed
