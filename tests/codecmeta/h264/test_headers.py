"""NAL units, parameter sets and slice headers; and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.h264 import ResidualReader, nal
from codecmeta.h264.parameter_sets import read_sequence_parameters
from codecmeta.h264.scaling import default_lists, level_scale, read_scaling_lists
from codecmeta.h264.tables import zigzag
from tests.codecmeta.h264.bit_writer import BitWriter
from tests.codecmeta.h264.streams import CLIPS, extradata, packets


def sequence(*, profile: int = 66, columns: int = 2, rows: int = 2, number: int = 0) -> BitWriter:
    writer = BitWriter().u(profile, 8).u(0, 8).u(30, 8).ue(number).ue(0, 2, 1).u(0, 1)
    return writer.ue(columns - 1, rows - 1).u(1, 1).u(1, 1).u(0, 1).u(0, 1)


def picture(*, groups: int = 0, number: int = 0, sps: int = 0) -> BitWriter:
    writer = BitWriter().ue(number, sps).u(0, 1).u(0, 1).ue(groups)
    return writer.ue(0, 0).u(0, 1).u(0, 2).se(0, 0, 0).u(0, 1).u(0, 1).u(0, 1)


def skipped_slice(run: int, *, slice_type: int = 5, first: int = 0, pps: int = 0) -> BitWriter:
    """Write a P slice of `run` skipped macroblocks."""
    return BitWriter().ue(first, slice_type, pps).u(0, 4).u(0, 1).u(0, 1).u(0, 1).se(0).ue(run)


SETS = sequence().nal(0x67) + picture().nal(0x68)


def test_a_stream_written_here_is_read() -> None:
    residual = ResidualReader().read(SETS + skipped_slice(4).nal(0x41))
    assert residual.y.shape == (32, 32)
    assert not residual.y.any()


def test_parameter_sets_are_observed_in_band() -> None:
    reader = ResidualReader()
    with pytest.raises(BitstreamError, match="parameter set 0"):
        reader.read(skipped_slice(4).nal(0x41))
    reader.observe(SETS)
    assert reader.read(skipped_slice(4).nal(0x41)).slice_types == ("P",)


@pytest.mark.parametrize(
    ("packet", "tool"),
    [
        (sequence().nal(0x67) + picture(groups=1).nal(0x68) + skipped_slice(4).nal(0x41), "flexible macroblock"),
        (SETS + skipped_slice(4, slice_type=8).nal(0x41), "SP and SI"),
        (SETS + skipped_slice(4).nal(0x42), "data partitioning"),
        (SETS + skipped_slice(2, first=2).nal(0x41) + skipped_slice(2).nal(0x41), "arbitrary slice order"),
    ],
)
def test_unsupported_tools_are_named(packet: bytes, tool: str) -> None:
    with pytest.raises(BitstreamError) as caught:
        ResidualReader().read(packet)
    assert tool in (caught.value.unsupported or "")
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.unsupported == caught.value.unsupported


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"", "start code"),
        (b"\1\2\3\4", "start code"),
        (SETS, "no slice"),
        (SETS + skipped_slice(3).nal(0x41), "macroblock 3 is missing"),
        (SETS + skipped_slice(5).nal(0x41), "mb_skip_run"),
        (SETS + skipped_slice(4).nal(0x41) + skipped_slice(4).nal(0x41), "already coded|another picture"),
        (SETS + skipped_slice(4, first=4).nal(0x41), "starts at macroblock 4"),
        (sequence(columns=5000, rows=5000).nal(0x67) + picture().nal(0x68) + skipped_slice(4).nal(0x41), "exceed"),
        (SETS + skipped_slice(4).nal(0x41)[:6], "cut short|does not end"),
    ],
)
def test_corrupt_data_are_told(packet: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        ResidualReader().read(packet)


@pytest.mark.parametrize("name", ["high_default.mp4", "baseline_cavlc.mp4", "pcm_noise.mp4"])
def test_every_cut_is_noticed(name: str) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    packet = packets(CLIPS / name)[0]
    unit = list(nal.split(packet, 4))[-1]
    for end in range(1, len(unit.payload), max(1, len(unit.payload) // 60)):
        cut = b"\0\0\1" + bytes([unit.ref_idc << 5 | unit.kind]) + unit.payload[:end]
        with pytest.raises(BitstreamError) as caught:
            reader.read(cut)
        assert caught.value.code == "bitstream"


@pytest.mark.parametrize("tail", [b"\7", b"\0\0\7", b"\0\0\0", b"\0\0\0\0", b"\0\0\0\x09\x06abc"])
def test_slices_before_a_short_tail_are_read(tail: bytes) -> None:
    """Bytes after the last slice that are no whole NAL unit have no effect; a slice that is cut is refused."""
    path = CLIPS / "baseline_slices.mp4"
    reader = ResidualReader(extradata(path))
    packet = packets(path)[1]
    whole = reader.read(packet)
    assert np.abs(whole.y).max() > 0
    with_tail = reader.read(packet + tail)
    for name in ("y", "cb", "cr", "mb_bits", "qp"):
        np.testing.assert_array_equal(getattr(with_tail, name), getattr(whole, name))
    last = list(nal.split(packet, 4))[-1]
    for cut in (1, 4, len(last.payload), len(last.payload) + 3):
        with pytest.raises(BitstreamError, match="slice"):
            reader.read(packet[:-cut])


BROKEN_SPS = sequence(columns=5000, rows=5000).nal(0x67)
BROKEN_PPS = BitWriter().ue(0, 0).u(0, 2).ue(0, 0, 0).u(0, 3).se(90, 0, 0).u(0, 3).nal(0x68)  # QP 116
NAMELESS_SPS = BitWriter().u(66, 8).u(0, 8).u(30, 8).ue(77).nal(0x67)
NAMELESS_PPS = BitWriter().ue(300).nal(0x68)
OTHER = sequence(number=1, columns=3).nal(0x67) + picture(number=1, sps=1).nal(0x68)


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize(
    ("broken", "spares_others"),
    [(BROKEN_SPS, True), (BROKEN_PPS, True), (NAMELESS_SPS, False), (NAMELESS_PPS, False)],
    ids=["sps", "pps", "nameless sps", "nameless pps"],
)
def test_a_corrupt_set_is_never_replaced_by_the_one_before(broken: bytes, spares_others: bool, observed: bool) -> None:
    """It may have changed what the old one said: its slices are refused until it comes again, others are read."""
    reader = ResidualReader()
    other, own = skipped_slice(6, pps=1).nal(0x41), skipped_slice(4).nal(0x41)
    if observed:
        reader.observe(SETS + broken + OTHER if spares_others else SETS + OTHER + broken)
    else:
        reader.observe(SETS + OTHER)
        with pytest.raises(BitstreamError, match="parameter set"):
            reader.read(broken + own)
    for _ in range(2):
        with pytest.raises(BitstreamError, match="parameter set"):
            reader.read(own)
    if spares_others:
        assert reader.read(other).y.shape == (32, 48)
    else:
        with pytest.raises(BitstreamError, match="parameter set"):
            reader.read(other)
    reader.observe(SETS + OTHER)
    assert reader.read(own).y.shape == (32, 32)
    assert reader.read(other).y.shape == (32, 48)


def test_a_corrupt_set_in_the_extradata_is_told_by_its_slices() -> None:
    reader = ResidualReader(BROKEN_SPS + OTHER)
    assert reader.read(skipped_slice(6, pps=1).nal(0x41)).y.shape == (32, 48)
    with pytest.raises(BitstreamError, match="exceed"):
        reader.read(picture().nal(0x68) + skipped_slice(4).nal(0x41))


def test_scaling_lists_fall_back_as_tables_7_2_says() -> None:
    default = default_lists(flat=False)
    # rule A: list 0 absent, list 1 given, list 2 absent, list 3 default by a first delta of -8
    writer = BitWriter().u(0, 1).u(1, 1).se(2, *[1] * 15).u(0, 1).u(1, 1).se(-8).u(0, 4)
    rbsp = writer.nal(0)[5:]
    lists = read_scaling_lists(BitReader(rbsp, "test"), 8, default)
    assert lists[0] == default[0]
    assert lists[1] == tuple(range(10, 26)) == lists[2]
    assert lists[3] == default[3] == lists[4]
    assert lists[6] == default[6]
    assert default[0][:6] == (6, 13, 13, 20, 20, 20)
    assert default[6][:6] == (6, 10, 10, 13, 11, 13)


def test_level_scale_of_flat_lists() -> None:
    four, eight = level_scale(default_lists(flat=True))
    assert four[0, 0, :6].tolist() == [160, 208, 160, 208, 208, 256]
    assert eight[3, 5, :4].tolist() == [576, 544, 736, 544]
    assert zigzag(4).tolist() == [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15]


def test_cropping_in_the_sequence_parameter_set() -> None:
    writer = BitWriter().u(66, 8).u(0, 8).u(30, 8).ue(0).ue(0, 2, 1).u(0, 1).ue(1, 1).u(1, 1).u(1, 1)
    rbsp = writer.u(1, 1).ue(1, 2, 3, 4).u(0, 1).nal(0)[5:]
    assert read_sequence_parameters(rbsp).crop == (2, 4, 6, 8)
    packet = writer.nal(0x67) + picture().nal(0x68) + skipped_slice(4).nal(0x41)
    residual = ResidualReader().read(packet)
    assert residual.y.shape == (18, 26)
    assert residual.cb.shape == (9, 13)
    assert residual.mb_type.shape == (2, 2)
