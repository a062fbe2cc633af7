"""NAL units: byte stream and length-prefixed packaging, emulation prevention (Rec. ITU-T H.264, 7.3.1, Annex B)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from codecmeta.errors import BitstreamError

SLICE, PARTITION_A, PARTITION_C, IDR_SLICE, SPS, PPS = 1, 2, 4, 5, 7, 8
"""nal_unit_type values that matter here (Table 7-1)."""

_START_CODE = re.compile(rb"\x00\x00\x01")
_STARTS_WITH_CODE = re.compile(rb"\x00\x00+\x01")


class NalUnit(NamedTuple):
    """One NAL unit, still with its emulation prevention bytes.

    Attributes:
        kind: nal_unit_type.
        ref_idc: nal_ref_idc, 0 where no other picture refers to this one.
        payload: everything after the one-byte header.
    """

    kind: int
    ref_idc: int
    payload: bytes

    def rbsp(self) -> bytes:
        """The payload without emulation prevention bytes (7.3.1)."""
        return self.payload.replace(b"\0\0\3", b"\0\0")


def split(packet: bytes, length_size: int) -> Iterator[NalUnit]:
    """Cut a packet into its NAL units.

    Args:
        packet: one access unit.
        length_size: bytes of the length before each NAL unit, 1 to 4; 0 for a byte stream with start codes.
            Packets that begin with a start code are accepted where lengths are announced but do not fit.

    Yields:
        The NAL units in order; empty ones are left out. A tail too short for a unit is passed over, and a last
        unit longer than the packet is given as far as it goes: whoever parses it finds the cut.

    Raises:
        BitstreamError: the packet can be read in neither way.
    """
    if length_size:
        bounds = _length_prefixed(packet, length_size)
        whole = bounds and bounds[-1][1] <= len(packet)
        if whole or (bounds and not _STARTS_WITH_CODE.match(packet)):
            yield from _units(packet, bounds)
            return
    starts = [match.end() for match in _START_CODE.finditer(packet)]
    if not starts or packet[: starts[0] - 3].strip(b"\0"):
        expected = f"{length_size}-byte lengths" if length_size else "a start code"
        raise BitstreamError(f"a packet of {len(packet)} bytes does not divide into NAL units: expected {expected}")
    ends = [start - 3 for start in starts[1:]] + [len(packet)]
    yield from _units(packet, list(zip(starts, ends, strict=True)))


def _length_prefixed(packet: bytes, length_size: int) -> list[tuple[int, int]]:
    """Begin and end of each unit that is not empty, as announced; the last end may lie beyond the packet."""
    bounds = []
    position = 0
    while position + length_size < len(packet):
        start = position + length_size
        position = start + int.from_bytes(packet[position:start], "big")
        if position > start:
            bounds.append((start, position))
    return bounds


def _units(packet: bytes, bounds: list[tuple[int, int]]) -> Iterator[NalUnit]:
    for start, end in bounds:
        if end > start:
            header = packet[start]
            payload = packet[start + 1 : end]
            # Some muxers leave the start code of an end-of-stream unit inside a length-prefixed one.
            if (code := payload.find(b"\0\0\1")) >= 0:
                payload = payload[:code]
            yield NalUnit(header & 31, header >> 5 & 3, payload)


def read_extradata(extradata: bytes) -> tuple[int, list[NalUnit]]:
    """Parameter sets and packaging from a container's codec private data.

    Args:
        extradata: an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1), a byte stream, or nothing.

    Returns:
        The length size for `split` and the NAL units found.

    Raises:
        BitstreamError: the record is cut short.
    """
    if not extradata or extradata[0] != 1:
        return 0, list(split(extradata, 0)) if extradata else []
    if len(extradata) < 7:
        raise BitstreamError(f"the AVC configuration record has {len(extradata)} bytes, at least 7 are needed")
    units: list[NalUnit] = []
    position = 5
    for mask in (31, 255):
        if position >= len(extradata):
            break
        count = extradata[position] & mask
        position += 1
        for _ in range(count):
            size = int.from_bytes(extradata[position : position + 2], "big")
            end = position + 2 + size
            if end > len(extradata):
                raise BitstreamError("a parameter set in the AVC configuration record is cut short")
            units.extend(_units(extradata, [(position + 2, end)]))
            position = end
    return (extradata[4] & 3) + 1, units
