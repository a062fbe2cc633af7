"""NAL units of HEVC and their packaging in containers (Rec. ITU-T H.265, 7.3.1; ISO/IEC 14496-15, 8.3.3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from codecmeta.entropy.nal import find_end, list_bounds, read_record_units, remove_emulation_prevention
from codecmeta.errors import BitstreamError

RADL_N, RADL_R, RASL_N, RASL_R = 6, 7, 8, 9
BLA_W_LP, IDR_W_RADL, IDR_N_LP, CRA = 16, 19, 20, 21
FIRST_IRAP, LAST_IRAP = 16, 23
VPS, SPS, PPS = 32, 33, 34
"""nal_unit_type values used here (Table 7-1)."""

_RECORD_HEADER = 22
"""Bytes of a decoder configuration record before the number of its arrays."""


class NalUnit(NamedTuple):
    """NAL unit, still with its emulation prevention bytes.

    Attributes:
        kind: nal_unit_type.
        layer: nuh_layer_id; only pictures of layer 0 are read.
        temporal_id: TemporalId.
        payload: everything after the two-byte header.
    """

    kind: int
    layer: int
    temporal_id: int
    payload: bytes

    @property
    def is_slice(self) -> bool:
        """Whether it is a slice segment of a type that is not reserved."""
        return self.kind <= RASL_R or BLA_W_LP <= self.kind <= CRA

    def rbsp(self) -> bytes:
        """Return the payload without emulation prevention bytes (7.3.1.1)."""
        return remove_emulation_prevention(self.payload)


def split(packet: bytes, length_size: int, *, slices: bool = True) -> Iterator[NalUnit]:
    """Split a packet into its NAL units.

    Args:
        packet: one access unit.
        length_size: see `codecmeta.entropy.nal.list_bounds`.
        slices: whether slice segments are wanted; otherwise all VCL units are passed over unread.

    Raises:
        BitstreamError: the packet does not divide into NAL units.
    """
    for start, end in list_bounds(packet, length_size):
        if slices or packet[start] >> 1 & 63 >= VPS:
            end = find_end(packet, start, end)
            if len(unit := packet[start:end]) > 1:
                yield _parse(unit)


def _parse(unit: bytes) -> NalUnit:
    layer = (unit[0] & 1) << 5 | unit[1] >> 3
    return NalUnit(unit[0] >> 1 & 63, layer, (unit[1] & 7) - 1, unit[2:])


def read_extradata(extradata: bytes) -> tuple[int, list[NalUnit]]:
    """Read parameter sets and packaging from a container's codec private data.

    Args:
        extradata: an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, 8.3.3.1), a byte stream, or nothing.

    Returns:
        The length size for `split` and the NAL units found.

    Raises:
        BitstreamError: the record is cut short.
    """
    if not extradata:
        return 0, []
    if extradata[:3] in (b"\0\0\0", b"\0\0\1"):
        return 0, list(split(extradata, 0))
    if len(extradata) <= _RECORD_HEADER:
        raise BitstreamError(f"the HEVC configuration record has {len(extradata)} bytes; at least 23 are needed")
    units: list[NalUnit] = []
    position = _RECORD_HEADER + 1
    for _ in range(extradata[_RECORD_HEADER]):
        count = int.from_bytes(extradata[position + 1 : position + 3], "big")
        found, position = read_record_units(extradata, position + 3, count)
        units.extend(_parse(unit) for unit in found if len(unit) > 1)
    return (extradata[21] & 3) + 1, units
