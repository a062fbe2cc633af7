"""Every residual sample equals what a decoder with its prediction removed, or the writer of the stream, gives."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from codecmeta.entropy.bits import stop_bit
from codecmeta.errors import BitstreamError
from codecmeta.hevc import ResidualReader, nal
from codecmeta.hevc.slice_header import SliceHeader, read_slice_header
from codecmeta.hevc.tables import build_tables, constants
from codecmeta.record.macroblock_types import MB_TYPE_NAMES, is_intra
from tests.codecmeta.h264.streams import clipped, digests, extradata, packets
from tests.codecmeta.hevc.streams import CLIPS, shown_packets

EXPECTED: dict[str, list[list[str]]] = json.loads((CLIPS / "residual_digests.json").read_text())
REAL = ("bbb_hevc_1080p.ts", "nasa_hevc_main10_hdr.mp4", "pan_hevc.mp4")


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_residual(name: str) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    shown = shown_packets(CLIPS / name)
    assert len(shown) == len(EXPECTED[name])
    found = {packet: digests(reader.read(packet)) for packet in packets(CLIPS / name)}
    assert [found[packet] for packet in shown] == EXPECTED[name]


@pytest.mark.parametrize("name", REAL)
def test_real_clips(name: str, shared: Path) -> None:
    path = shared / "clips" / name
    if not path.exists():
        path = Path(__file__).resolve().parents[3] / "data" / name
    expected = np.load(shared / "hevc" / "real" / f"{path.name}.residual.npz")
    reader = ResidualReader(extradata(path))
    shown = shown_packets(path)
    reader.observe(packets(path)[0])
    for number, index in enumerate(expected["frame_index"]):
        picture = reader.read(shown[index])
        for plane, key, size in zip(clipped(picture), ("y", "cb", "cr"), (8, 4, 4), strict=True):
            total, square = expected[f"{key}_sum"][number], expected[f"{key}_sqsum"][number]
            padded = np.zeros((total.shape[0] * size, total.shape[1] * size), np.int64)
            padded[: plane.shape[0], : plane.shape[1]] = plane
            blocks = padded.reshape(total.shape[0], size, total.shape[1], size)
            whole = square >= 0
            np.testing.assert_array_equal(blocks.sum((1, 3))[whole], total[whole])
            np.testing.assert_array_equal((blocks**2).sum((1, 3))[whole], square[whole])


def slice_data_bits(reader: ResidualReader, packet: bytes) -> int:
    """Bits of slice segment data of a packet, the last of each segment its stop bit."""
    total = 0
    previous: SliceHeader | None = None
    for unit in nal.split(packet, reader.length_size):
        if unit.is_slice and unit.layer == 0:
            previous = read_slice_header(unit.rbsp(), unit.kind, reader.sets.picture, previous)
            total += stop_bit(unit.rbsp()) + 1 - 8 * previous.data_position
    return total


@pytest.mark.parametrize("name", ["main_default.mp4", "syn_wpp_dep.mkv", "syn_tiles_dep.hevc", "ctu16.hevc"])
def test_the_bits_of_a_picture_are_those_of_its_slice_data(name: str) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    for packet in packets(CLIPS / name):
        picture = reader.read(packet)
        assert int(picture.mb_bits.sum(dtype=np.int64)) == slice_data_bits(reader, packet)


def test_a_changed_constant_shows() -> None:
    name = "main_default.mp4"
    changed = copy.deepcopy(constants())
    changed["rangeTabLPS"][20][1] += 1
    reader = ResidualReader(extradata(CLIPS / name))
    reader._tables = build_tables(changed)
    same = 0
    for packet, expected in zip(shown_packets(CLIPS / name), EXPECTED[name], strict=True):
        try:
            same += digests(reader.read(packet)) == expected
        except BitstreamError:
            continue
    assert same < len(EXPECTED[name])


@pytest.mark.parametrize("name", ["main_default.mp4", "syn_444.mp4"])
def test_a_flipped_bit_shows(name: str) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    packet = shown_packets(CLIPS / name)[0]
    wrong = bytearray(packet)
    wrong[len(wrong) // 2] ^= 16
    try:
        picture = reader.read(bytes(wrong))
    except BitstreamError:
        return
    assert digests(picture) != EXPECTED[name][0]


def test_maps() -> None:
    name = "main_default.mp4"
    reader = ResidualReader(extradata(CLIPS / name))
    kinds = set()
    for packet in shown_packets(CLIPS / name):
        picture = reader.read(packet)
        kinds |= {MB_TYPE_NAMES[kind] for kind in np.unique(picture.mb_type)}
        coded = np.abs(picture.y.reshape(9, 16, 11, 16)).max((1, 3)) > 0
        skipped = np.isin(picture.mb_type, [MB_TYPE_NAMES.index("P_Skip"), MB_TYPE_NAMES.index("B_Skip")])
        assert not (coded & skipped).any()
        if picture.slice_types == ("I",):
            assert is_intra(picture.mb_type).all()
    assert {"I_16x16", "I_8x8", "P_16x16", "P_Skip", "B_16x16", "B_Skip"} <= kinds
    assert "not coded" not in kinds


def test_pictures_may_be_read_in_any_order() -> None:
    name = "main_default.mp4"
    reader = ResidualReader(extradata(CLIPS / name))
    shown = shown_packets(CLIPS / name)
    for index in (7, 3, 12, 3):
        assert digests(reader.read(shown[index])) == EXPECTED[name][index]
