"""NAL units: byte stream and length-prefixed packaging, emulation prevention (H.264 and H.265, 7.3.1, Annex B)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from codecmeta.errors import BitstreamError

_START_CODE = re.compile(rb"\x00\x00\x01")
_STARTS_WITH_CODE = re.compile(rb"\x00\x00+\x01")


def remove_emulation_prevention(payload: bytes) -> bytes:
    """Return the RBSP of a NAL unit: its bytes after the header without emulation prevention bytes (7.3.1)."""
    return payload.replace(b"\0\0\3", b"\0\0")


def split_units(packet: bytes, length_size: int) -> Iterator[bytes]:
    """Split a packet into its NAL units; see `list_bounds`.

    Yields:
        The NAL units with their headers, in order, without empty ones.

    Raises:
        BitstreamError: the packet can be read in neither way.
    """
    for start, end in list_bounds(packet, length_size):
        yield packet[start : find_end(packet, start, end)]


def list_bounds(packet: bytes, length_size: int) -> list[tuple[int, int]]:
    """Find the NAL units of a packet without copying any.

    Args:
        packet: one access unit.
        length_size: bytes of the length before each NAL unit, 1 to 4; 0 for a byte stream with start codes.
            Packets that begin with a start code are accepted where lengths are announced but do not fit.

    Returns:
        Offsets of the first byte of each unit's header and of its end, in order, without empty units. A tail too short
        for a unit is skipped, and the end of the last unit may exceed the packet: its parser detects that.

    Raises:
        BitstreamError: the packet can be read in neither way.
    """
    if length_size:
        bounds = _length_prefixed(packet, length_size)
        whole = bounds and bounds[-1][1] <= len(packet)
        if whole or (bounds and not _STARTS_WITH_CODE.match(packet)):
            return bounds
    starts = [match.end() for match in _START_CODE.finditer(packet)]
    if not starts or packet[: starts[0] - 3].strip(b"\0"):
        expected = f"{length_size}-byte lengths" if length_size else "a start code"
        raise BitstreamError(f"a packet of {len(packet)} bytes does not divide into NAL units; expected {expected}")
    ends = [start - 3 for start in starts[1:]] + [len(packet)]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if end > start]


def find_end(packet: bytes, start: int, end: int) -> int:
    """Return where a unit within some bounds ends.

    Some muxers leave the start code of an end-of-stream unit inside a length-prefixed one.
    """
    code = packet.find(b"\0\0\1", start + 1, end)
    return code if code >= 0 else end


def read_record_units(record: bytes, position: int, count: int) -> tuple[list[bytes], int]:
    """Read NAL units of a container's decoder configuration record (ISO/IEC 14496-15), each after its 16-bit length.

    Args:
        record: the record.
        position: offset of the first length.
        count: number of units.

    Returns:
        The units with their headers, without empty ones, and the offset after the last.

    Raises:
        BitstreamError: the record is cut short.
    """
    units: list[bytes] = []
    for _ in range(count):
        size = int.from_bytes(record[position : position + 2], "big")
        end = position + 2 + size
        if end > len(record):
            raise BitstreamError("a parameter set in the decoder configuration record is cut short")
        if size:
            units.append(record[position + 2 : find_end(record, position + 2, end)])
        position = end
    return units, position


def _length_prefixed(packet: bytes, length_size: int) -> list[tuple[int, int]]:
    """Return begin and end of each unit that is not empty, as announced; the last end may exceed the packet."""
    bounds = []
    position = 0
    while position + length_size < len(packet):
        start = position + length_size
        position = start + int.from_bytes(packet[position:start], "big")
        if position > start:
            bounds.append((start, position))
    return bounds
