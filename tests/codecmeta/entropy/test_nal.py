"""NAL units in both kinds of packaging."""

from __future__ import annotations

from codecmeta.entropy.nal import remove_emulation_prevention, split_units


def test_emulation_prevention_is_removed() -> None:
    assert remove_emulation_prevention(b"\0\0\3\0\0\3\1\0\0\3") == b"\0\0\0\0\1\0\0"


def test_lengths_and_start_codes_give_the_same_units() -> None:
    units = [b"\x67abc", b"\x41" + bytes(range(4, 60))]
    for size in (1, 2, 4):
        prefixed = b"".join(len(unit).to_bytes(size, "big") + unit for unit in units)
        assert list(split_units(prefixed, size)) == units
    started = b"\0" + b"".join(b"\0\0\1" + unit for unit in units)
    for size in (0, 4):
        assert list(split_units(started, size)) == units


def test_a_start_code_is_no_length() -> None:
    """Packets with start codes in a stream of lengths: 00 00 01 65 also reads as a unit of 357 bytes."""
    units = [b"\x65" + bytes(range(2, 250)) * 3, b"\x41" + bytes(range(2, 250)) * 2]
    started = b"".join(b"\0\0\1" + unit for unit in units)
    assert list(split_units(started, 4)) == units
