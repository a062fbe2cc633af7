"""The parameter sets in force at a packet: what the header says, what packets bring, what replaces what."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecmeta.container import parameter_history
from codecmeta.container.parameter_history import ParameterHistory, read_configuration
from codecmeta.errors import SourceError

SPS = b"\x67\x64\x00\x0b\xac\xd9\x42\x84\x68\x40\x00\x00\x03\x00\x40\x00\x00\x0c\x83\xc5\x0a\x65\x80"
PPS = b"\x68\xeb\xe3\xcb\x22\xc0"
OTHER_PPS = b"\x68\xeb\xe3\xcb\x32\xc0"
SECOND_PPS = b"\x68\x5b\xe3\xcb\x22\xc0"
SLICE = struct.pack(">I", 5) + b"\x41\x9a\x24\x6c\x41"


def avc_record(*pictures: bytes, length_size: int = 4) -> bytes:
    head = bytes([1, 0x64, 0, 0x0B, 0xFC | length_size - 1, 0xE1]) + struct.pack(">H", len(SPS)) + SPS
    return head + bytes([len(pictures)]) + b"".join(struct.pack(">H", len(unit)) + unit for unit in pictures)


def prefixed(*units: bytes, size: int = 4) -> bytes:
    return b"".join(len(unit).to_bytes(size, "big") + unit for unit in units)


def test_what_the_header_says_stays_in_force() -> None:
    history = ParameterHistory("h264", avc_record(PPS))
    assert history.before(7) == (SPS, PPS)
    assert history.note(3, [SPS, PPS])
    assert history.is_plain
    assert history.lead(9, SLICE) == SLICE


def test_a_set_concerns_the_packets_after_it() -> None:
    history = ParameterHistory("h264", avc_record(PPS))
    history.note(3, [OTHER_PPS])
    history.note(5, [SECOND_PPS])
    history.note(8, [PPS])
    expected = {3: (SPS, PPS), 4: (SPS, OTHER_PPS), 6: (SPS, OTHER_PPS, SECOND_PPS), 9: (SPS, PPS, SECOND_PPS)}
    for packet in (9, 3, 6, 4, 9, 4):
        assert history.before(packet) == expected[packet]
    assert history.lead(4, SLICE) == prefixed(SPS, OTHER_PPS) + SLICE


def test_a_new_configuration_concerns_its_own_packet() -> None:
    history = ParameterHistory("h264", avc_record(PPS))
    history.switch(6, avc_record(OTHER_PPS, length_size=2))
    assert history.before(5) == (SPS, PPS)
    assert history.before(6) == (SPS, OTHER_PPS)
    assert history.changes_at(6)
    assert not history.changes_at(7)
    assert history.is_repackaged(7)
    short = prefixed(SLICE[4:], size=2)
    assert history.lead(7, short) == prefixed(SPS, OTHER_PPS) + SLICE
    history.switch(9, avc_record(PPS))
    assert history.lead(9, SLICE) == prefixed(SPS, PPS) + SLICE


def test_streams_whose_header_says_nothing() -> None:
    """The first sets of a byte stream are what others have in the header."""
    history = ParameterHistory("h264", b"")
    history.note(0, [SPS, PPS])
    history.note(8, [SPS, PPS + b"\0"])
    assert history.is_plain
    history.note(11, [OTHER_PPS])
    assert history.lead(12, b"\0\0\1\x41\x9a") == b"\0\0\0\1" + SPS + b"\0\0\0\1" + OTHER_PPS + b"\0\0\1\x41\x9a"


def test_user_data_of_mpeg4_stay_in_force() -> None:
    """Only the first packet names the encoder; a decoder that begins later has to know."""
    layer, name, plane = b"\0\0\1\x20\0\xd4\x8d", b"\0\0\1\xb2DivX503b1393p", b"\0\0\1\xb6\x10"
    history = ParameterHistory("mpeg4", layer)
    history.note(0, [layer, name])
    assert history.lead(5, layer + plane) == name + layer + plane
    assert history.lead(6, plane) == layer + name + plane


def test_parameter_sets_beyond_any_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_history, "MOST_BYTES", 64)
    history = ParameterHistory("h264", avc_record(PPS))
    with pytest.raises(SourceError, match="parameter sets") as caught:
        for packet in range(100):
            history.note(packet, [(PPS, OTHER_PPS)[packet % 2]])
    assert caught.value.code == "damaged"


def test_hevc_sets_are_known_by_their_numbers() -> None:
    """Sequence parameter sets of three sub-layers have their numbers after the profiles of all."""
    units = []
    for number in ("1", "010", "1"):
        layers = f"{0:04b}{2:03b}1" + "01" * 48 + "11" * 2 + "00" * 6 + "01" * 96 + number + "1"
        body = int(layers.ljust(-(-len(layers) // 8) * 8, "1"), 2)
        units.append(b"\x42\x01" + body.to_bytes(-(-len(layers) // 8), "big"))
    units[2] += b"\x01"
    history = ParameterHistory("hevc", b"")
    for packet, unit in enumerate(units):
        history.note(packet, [unit])
    assert history.before(9) == (units[2], units[1])


@given(codec=st.sampled_from(["h264", "hevc", "vvc", "av1", "mpeg4", "vp9"]), record=st.binary(max_size=80))
def test_any_record(codec: str, record: bytes) -> None:
    for data in (record, b"\1" + record, b"\0\0\1" + record):
        ParameterHistory(codec, data).before(3)


def test_records_of_hevc_and_av1() -> None:
    units = [bytes([kind << 1, 1, 7]) for kind in (32, 33, 34)]
    arrays = b"".join(bytes([0x80 | unit[0] >> 1]) + struct.pack(">HH", 1, 3) + unit for unit in units)
    assert read_configuration("hevc", b"\1" + bytes(20) + b"\xff" + b"\3" + arrays) == (4, units)
    assert read_configuration("av1", b"\x81\0\0\0\x0a\x02\x00\x01") == (0, [b"\x0a\x02\x00\x01"])
