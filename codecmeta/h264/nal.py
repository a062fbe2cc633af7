"""NAL units of H.264 and their packaging in containers (Rec. ITU-T H.264, 7.3.1; ISO/IEC 14496-15, 5.3.3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from codecmeta.entropy.nal import find_end, list_bounds, read_record_units, remove_emulation_prevention
from codecmeta.errors import BitstreamError

SLICE, PARTITION_A, PARTITION_C, IDR_SLICE, SEI, SPS, PPS = 1, 2, 4, 5, 6, 7, 8
"""nal_unit_type values used here (Table 7-1)."""


class NalUnit(NamedTuple):
    """NAL unit, still with its emulation prevention bytes.

    Attributes:
        kind: nal_unit_type.
        ref_idc: nal_ref_idc, 0 where no other picture refers to this one.
        payload: everything after the one-byte header.
    """

    kind: int
    ref_idc: int
    payload: bytes

    def rbsp(self) -> bytes:
        """Return the payload without emulation prevention bytes (7.3.1)."""
        return remove_emulation_prevention(self.payload)


def split(packet: bytes, length_size: int, *, slice_bytes: int | None = None) -> Iterator[NalUnit]:
    """Split a packet into its NAL units.

    Args:
        packet: one access unit.
        length_size: see `codecmeta.entropy.nal.list_bounds`.
        slice_bytes: bytes of the payload of slices that are wanted, None for all; 0 omits slices and their partitions.

    Raises:
        BitstreamError: the packet does not divide into NAL units.
    """
    for start, end in list_bounds(packet, length_size):
        header = packet[start]
        if slice_bytes is not None and SLICE <= header & 31 <= IDR_SLICE:
            if slice_bytes == 0:
                continue
            end = min(end, start + 1 + slice_bytes)
        yield NalUnit(header & 31, header >> 5 & 3, packet[start + 1 : find_end(packet, start, end)])


def _parse(unit: bytes) -> NalUnit:
    return NalUnit(unit[0] & 31, unit[0] >> 5 & 3, unit[1:])


def read_extradata(extradata: bytes) -> tuple[int, list[NalUnit]]:
    """Read parameter sets and packaging from a container's codec private data.

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
        raise BitstreamError(f"the AVC configuration record has {len(extradata)} bytes; at least 7 are needed")
    units: list[NalUnit] = []
    position = 5
    for mask in (31, 255):
        if position >= len(extradata):
            break
        found, position = read_record_units(extradata, position + 1, extradata[position] & mask)
        units.extend(_parse(unit) for unit in found)
    return (extradata[4] & 3) + 1, units
