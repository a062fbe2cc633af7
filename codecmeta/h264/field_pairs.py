"""Field pairs: packets with one field each that form one frame (Rec. ITU-T H.264, 3.30 and 7.4.1.2.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from codecmeta.errors import BitstreamError
from codecmeta.h264 import nal
from codecmeta.h264.parameter_sets import ParameterSets, read_sequence_parameters
from codecmeta.h264.slice_header import Field, read_field

_HEADER_BYTES = 32
"""Bytes of a slice that contain its header up to bottom_field_flag, including emulation prevention."""

_MAX_UNITS = 1 << 14
"""NAL units of a packet that are examined; a picture has far fewer slices."""


class FieldPairs:
    """Finder of packets that hold the second field of a frame whose first field was the packet before.

    Packets are passed in decode order, without omissions from one key packet to the next.

    Args:
        extradata: the container's codec private data.

    Raises:
        BitstreamError: `extradata` is corrupt.
    """

    def __init__(self, extradata: bytes) -> None:
        self._sets = ParameterSets()
        self._length_size, units = nal.read_extradata(extradata)
        self._seen = False
        self._interlaced = False
        self._open: Field | None = None
        self._store(units)
        # the record of an MP4 or Matroska file has all sets, unless it has none (ISO/IEC 14496-15, 5.3.3.1)
        self._sets_in_band = not (self._length_size and self._seen)

    def needs_packet(self, *, key: bool) -> bool:
        """Return whether a packet must be passed: all of an interlaced stream, else those that may contain new sets."""
        return self._interlaced or (key and self._sets_in_band)

    def continues(self, packet: bytes) -> bool:
        """Return whether a packet is the second field of the frame that the packet before began.

        It has the frame_num of the first field and the other parity, and is an IDR picture only if the first field is
        one. A packet that cannot be parsed is a frame of its own.

        Args:
            packet: the packet, or its headers from `read_headers`.
        """
        try:
            fields = self._fields(packet)
        except BitstreamError:
            fields = []
        if len(fields) == 1 and self._open is not None and _are_pair(self._open, fields[0]):
            self._open = None
            return True
        self._open = None
        for field in fields:
            paired = self._open is not None and _are_pair(self._open, field)
            self._open = None if paired or field.structure == "frame" else field
        return False

    def read_headers(self, read_at: Callable[[int, int], bytes], position: int, size: int) -> bytes:
        """Read a packet with its slices cut after their headers, without reading the rest of it.

        Args:
            read_at: returns bytes of the file from a position on, so many of them.
            position: where the packet begins.
            size: its length in bytes.
        """
        if not self._length_size:
            return read_at(position, size)
        left = bytearray()
        end = position + size
        for _ in range(_MAX_UNITS):
            if position + self._length_size >= end:
                break
            head = read_at(position, self._length_size + _HEADER_BYTES)
            position += self._length_size
            length = min(int.from_bytes(head[: self._length_size], "big"), end - position)
            unit = head[self._length_size :][:length]
            if unit and unit[0] & 31 in (nal.SPS, nal.PPS):
                unit = read_at(position, length)
            left += len(unit).to_bytes(self._length_size, "big") + unit
            position += length
        return bytes(left)

    def _fields(self, packet: bytes) -> list[Field]:
        """Return the pictures that a packet's slices belong to, each once."""
        fields: list[Field] = []
        for unit in nal.split(packet, self._length_size, slice_bytes=_HEADER_BYTES):
            if unit.kind not in (nal.SLICE, nal.IDR_SLICE):
                self._store([unit])
            elif self._interlaced:
                field = read_field(unit.rbsp(), unit.kind, self._sets)
                if not fields or fields[-1] != field:
                    fields.append(field)
        return fields

    def _store(self, units: Iterable[nal.NalUnit]) -> None:
        for unit in units:
            if unit.kind == nal.SPS:
                self._sets.store_sequence(unit.rbsp())
                self._seen = True
                self._interlaced |= not read_sequence_parameters(unit.rbsp()).frame_mbs_only
            elif unit.kind == nal.PPS:
                self._sets.store_picture(unit.rbsp())


def _are_pair(first: Field, second: Field) -> bool:
    opposite = {first.structure, second.structure} == {"top", "bottom"}
    return opposite and first.frame_num == second.frame_num and (first.idr or not second.idr)
