"""NAL units, parameter sets and slice segment headers of HEVC; and what is refused."""

from __future__ import annotations

import pickle

import pytest

from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.hevc import ResidualReader, nal
from codecmeta.hevc.reference_sets import ReferenceSet, read_reference_set
from codecmeta.hevc.scaling_lists import default_lists, read_scaling_lists, scaling_factors
from codecmeta.hevc.sequence_parameters import read_sequence_parameters
from tests.codecmeta.entropy.bit_writer import BitWriter
from tests.codecmeta.h264.streams import extradata, packets
from tests.codecmeta.hevc.stream_writer import PPS, SPS
from tests.codecmeta.hevc.streams import CLIPS


def sequence(
    *,
    chroma: int = 1,
    separate: int = 0,
    depths: tuple[int, int] = (8, 8),
    size: tuple[int, int] = (64, 64),
    crop: tuple[int, ...] = (),
    extension: str = "",
    flags: str = "000000000",
) -> bytes:
    """Write an SPS of 16x16 coding tree blocks; `extension` has eight extension flags, `flags` those of version 2."""
    writer = BitWriter().u(0, 4).u(0, 3).u(1, 1).u(4, 8).u(0, 32).u(0, 32).u(0, 16).u(93, 8)
    writer.ue(0, chroma).u(separate, 1 if chroma == 3 else 0).ue(*size).u(bool(crop), 1).ue(*crop)
    writer.ue(depths[0] - 8, depths[1] - 8, 0).u(1, 1).ue(1, 0, 0)
    writer.ue(0, 1, 0, 2, 0, 0).u(0, 4).ue(0).u(0, 1).u(0, 3).u(bool(extension), 1)
    if extension:
        writer.u(int(extension, 2), 8).u(int(flags, 2), 9)
    return writer.nal(SPS << 9 | 1, header_bytes=2)


def picture(*, tiles: int = 0, sync: int = 0, extension: str = "") -> bytes:
    writer = BitWriter().ue(0, 0).u(0, 1).u(0, 4).u(0, 2).ue(0, 0).se(0).u(0, 3).se(0, 0).u(0, 4).u(tiles, 1).u(sync, 1)
    if tiles:
        writer.ue(1, 0).u(1, 1).u(0, 1)
    writer.u(0, 4).ue(0).u(0, 1).u(bool(extension), 1)
    if extension:
        writer.u(int(extension, 2), 8)
    return writer.nal(PPS << 9 | 1, header_bytes=2)


def slice_segment(*, address: int | None = None, kind: int = 19) -> bytes:
    """Write an intra slice without any data."""
    writer = BitWriter().u(address is None, 1).u(0, 1).ue(0)
    if address is not None:
        writer.u(address, 4)
    writer.ue(2).se(0)
    writer.bits += "1"
    return writer.align_zero().nal(kind << 9 | 1, header_bytes=2)


@pytest.mark.parametrize(
    ("packet", "tool"),
    [
        (sequence(chroma=3, separate=1) + picture(), "separate colour planes"),
        (sequence(depths=(8, 10)) + picture(), "different bit depths"),
        (sequence(depths=(14, 14)) + picture(), "bit depths above 12"),
        (sequence(extension="00010000") + picture(), "screen content coding"),
        (sequence(extension="10000000", flags="000010000") + picture(), "extended precision"),
        (sequence(extension="10000000", flags="000000001") + picture(), "bypass alignment"),
        (sequence() + picture(tiles=1, sync=1), "tiles with wavefront"),
        (sequence() + picture(extension="00010000"), "screen content coding"),
    ],
)
def test_unsupported_tools_are_named(packet: bytes, tool: str) -> None:
    with pytest.raises(BitstreamError) as caught:
        ResidualReader().read(packet + slice_segment())
    assert tool in (caught.value.unsupported or "")
    assert pickle.loads(pickle.dumps(caught.value)).unsupported == caught.value.unsupported


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"", "start code"),
        (sequence() + picture(), "no slice"),
        (slice_segment(), "picture parameter set 0"),
        (picture() + slice_segment(), "sequence parameter set 0"),
        (sequence(size=(60, 64)) + picture() + slice_segment(), "not a multiple of coding blocks"),
        (sequence(size=(65536, 65536)) + picture() + slice_segment(), "are allowed"),
        (sequence(crop=(20, 20, 0, 0)) + picture() + slice_segment(), "leaves nothing"),
        (sequence() + picture() + slice_segment(address=3), "starts at coding tree unit 3; 0 is expected"),
        (sequence() + picture() + slice_segment(), "slice segment 0, coding tree unit"),
    ],
)
def test_corrupt_data_are_reported(packet: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message) as caught:
        ResidualReader().read(packet)
    assert caught.value.unsupported is None


@pytest.mark.parametrize("name", ["main_default.mp4", "syn_pcm.mp4", "slices_wpp.ts", "syn_tiles_dep.hevc"])
def test_every_cut_is_noticed(name: str) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    packet = packets(CLIPS / name)[0]
    reader.read(packet)
    units = [unit for unit in nal.split(packet, reader.length_size) if unit.is_slice and unit.layer == 0]
    header = b"\0\0\1" + bytes([units[0].kind << 1, units[0].temporal_id + 1])
    payload = units[0].payload
    for end in range(1, len(payload) - 1, max(1, len(payload) // 40)):
        with pytest.raises(BitstreamError) as caught:
            reader.read(header + payload[:end])
        assert caught.value.code == "bitstream"


def test_a_missing_slice_is_noticed() -> None:
    reader = ResidualReader(extradata(CLIPS / "slices_wpp.ts"))
    packet = packets(CLIPS / "slices_wpp.ts")[0]
    reader.observe(packet)
    slices = [unit for unit in nal.split(packet, 0) if unit.is_slice]
    assert len(slices) > 2

    def joined(units: list[nal.NalUnit]) -> bytes:
        return b"".join(b"\0\0\1" + bytes([unit.kind << 1, unit.temporal_id + 1]) + unit.payload for unit in units)

    reader.read(joined(slices))
    with pytest.raises(BitstreamError, match="do not cover the picture"):
        reader.read(joined(slices[:-1]))
    with pytest.raises(BitstreamError, match="slice segment 1 starts at coding tree unit"):
        reader.read(joined([slices[0], *slices[2:]]))
    with pytest.raises(BitstreamError, match="0 is expected"):
        reader.read(joined(slices[1:]))


def test_the_conformance_window_is_in_chroma_units() -> None:
    rbsp = nal.NalUnit(SPS, 0, 0, sequence(crop=(1, 2, 3, 4))[6:]).rbsp()
    parameters = read_sequence_parameters(rbsp)
    assert parameters.crop == (2, 4, 6, 8)
    assert parameters.display_size == (50, 58)


def test_a_reference_set_is_predicted_from_another() -> None:
    """Equations 7-61 and 7-62 on the pictures -1, -4, +2 of the set before, moved by -1."""
    before = ReferenceSet(((-1, True), (-4, False)), ((2, True),))
    # prediction, sign, 1 - 1; used flags of the set's pictures, then of the picture that it belonged to
    writer = BitWriter().u(1, 1).u(1, 1).ue(0).u(1, 1).u(0b01, 2).u(0b00, 2).u(1, 1)
    found = read_reference_set(BitReader(writer.nal(0)[5:], "test"), 1, 2, [before])
    assert found.negative == ((-1, True), (-2, True), (-5, False))
    assert found.positive == ()
    assert found.used == 2


def test_scaling_lists_are_predicted_and_spread() -> None:
    writer = BitWriter()
    # 4x4: the first is given, flat 20; the second is the first; the rest are defaults
    writer.u(1, 1).se(12, *[0] * 15).u(0, 1).ue(1)
    for _ in range(4 + 6 + 6 + 2):
        writer.u(0, 1).ue(0)
    lists = read_scaling_lists(BitReader(writer.nal(0)[5:], "test"), chroma_32=True)
    assert lists.lists[0][0] == lists.lists[0][1] == (20,) * 16
    assert lists.lists[1:] == default_lists().lists[1:]
    factors = scaling_factors(lists)
    assert factors[:32].tolist() == [20] * 32
    eight = factors[96:160].reshape(8, 8)
    # the last row of Table 7-6's intra list
    assert eight[7].tolist() == [24, 25, 29, 36, 47, 65, 88, 115]
    sixteen = factors[96 + 384 : 96 + 384 + 256].reshape(16, 16)
    assert sixteen[14].tolist() == eight[7].repeat(2).tolist()
