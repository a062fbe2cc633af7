"""Parameter sets in force at each packet, as a reader that starts at the beginning of the file has them.

They come from the container's header, from every sample description or new sequence header, and from earlier packets.
A decoder that begins in the middle of a file is given what it would have seen, so that nothing that is decoded depends
on what else is read.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Protocol, TypeAlias

from codecmeta.container.packet_heads import MOST_SET_BYTES, NAL_CODECS, nal_type, read_head
from codecmeta.entropy.bits import BitReader
from codecmeta.entropy.nal import read_record_units, remove_emulation_prevention, split_units
from codecmeta.errors import BitstreamError, SourceError
from codecmeta.h264.parameter_sets import read_sequence_parameters

MOST_BYTES = 64 << 20
"""Limit on the bytes of parameter sets kept per file; no stream changes them that often."""

MOST_ID_BYTES = 256
"""Bytes of a parameter set that contain its number."""

SetKey: TypeAlias = tuple[int, int]
_X264_BUILD: SetKey = (99, 0)
_HEADERS: SetKey = (0, 0)
_USER_DATA = re.compile(rb"\x00\x00\x01\xb2([A-Za-z]*)")
_AVC_RECORD, _HEVC_RECORD, _AV1_RECORD = 7, 23, 4
"""Bytes of a decoder configuration record before its sets (ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1; AV1-ISOBMFF, 2.3)."""


class Scanner(Protocol):
    """Scanner of packet heads that have not been read, which notes their parameter sets."""

    def reach(self, packet: int) -> None:
        """Scan all packets before one."""
        ...


class ParameterHistory:
    """Parameter sets of one stream by packet.

    Attributes:
        codec: libav's name of the codec.
        length_size: bytes of the length before each NAL unit in returned packets, 0 for a byte stream.
        scanner: scans packets that the history has not seen; None where all have been.
    """

    def __init__(self, codec: str, extradata: bytes) -> None:
        self.codec = codec
        self.scanner: Scanner | None = None
        try:
            self.length_size, units = read_configuration(codec, extradata)
        except BitstreamError:
            # code that reads pictures of such a stream reports the error
            self.length_size, units = 0, []
        self._initial = self._key_all(units)
        self._places: list[int] = []
        self._begins: list[int] = []
        self._changes: list[dict[SetKey, bytes]] = []
        self._state = dict(self._initial)
        self._record_sizes: list[tuple[int, int]] = []
        self._bytes = 0
        self._cursor = 0, dict(self._initial)

    @property
    def is_plain(self) -> bool:
        """Whether the container header's sets are in force throughout the packets seen so far."""
        return not self._changes and not self._record_sizes

    @property
    def refers_to_one(self) -> bool:
        """Whether the H.264 pictures seen so far refer to at most one frame, the previous one."""
        counts = []
        for (kind, _), unit in self._state.items():
            if self.codec == "h264" and kind == 7:
                try:
                    counts.append(read_sequence_parameters(remove_emulation_prevention(unit[1:])).max_num_ref_frames)
                except BitstreamError:
                    return False
        return bool(counts) and max(counts) <= 1

    @property
    def withholds_pictures(self) -> bool:
        """Whether HEVC pictures say in their headers if they are shown, by the sets seen so far (H.265, 7.3.2.3.1)."""
        for (kind, _), unit in self._state.items():
            if self.codec == "hevc" and kind == 34:
                bits = BitReader(remove_emulation_prevention(unit[2:MOST_ID_BYTES]), "picture parameter set")
                with suppress(BitstreamError):
                    bits.ue(63)
                    bits.ue(15)
                    bits.skip(1)
                    if bits.flag():
                        return True
        return False

    def note(self, packet: int, units: Iterable[bytes]) -> bool:
        """Record the parameter sets in a packet; packets come in rising order.

        Returns:
            Whether there were any.

        Raises:
            SourceError: they exceed what any video has.
        """
        found = self._key_all(units)
        self._change(packet + 1, found, begin=packet)
        return bool(found)

    def switch(self, packet: int, record: bytes) -> None:
        """Record a new decoder configuration that the container announces with a packet.

        Raises:
            SourceError: as `note`, or the record is corrupt.
        """
        try:
            size, units = read_configuration(self.codec, record)
        except BitstreamError as error:
            raise SourceError("damaged", f"decoder configuration of packet {packet}: {error}") from error
        self._change(packet, self._key_all(units), begin=packet)
        if size != (self._record_sizes[-1][1] if self._record_sizes else self.length_size):
            self._record_sizes.append((packet, size))

    def before(self, packet: int) -> tuple[bytes, ...]:
        """Return the units in force when a packet comes, in an order in which a decoder accepts them."""
        if self.scanner is not None:
            self.scanner.reach(packet)
        done, state = self._cursor
        stop = bisect_right(self._places, packet)
        if stop < done:
            done, state = 0, dict(self._initial)
        for change in self._changes[done:stop]:
            state.update(change)
        self._cursor = stop, state
        return tuple(state[key] for key in sorted(state))

    def is_plain_before(self, packet: int) -> bool:
        """Return whether the container header's sets are the only ones seen up to a packet."""
        if self.scanner is not None:
            self.scanner.reach(packet)
        return self.is_plain

    def list_stretches(self, packets: int) -> Iterator[tuple[int, int, tuple[bytes, ...]]]:
        """Yield stretches of packets whose slices have the same sets in force, those of their own packet included.

        Args:
            packets: number of packets; all of them are scanned for parameter sets.

        Yields:
            The first packet, one past the last, and the units.

        Raises:
            SourceError: as `note`.
        """
        if self.scanner is not None:
            self.scanner.reach(packets)
        state = dict(self._initial)
        bounds = [0, *self._begins, packets]
        for number, begin in enumerate(bounds[:-1]):
            if number:
                state.update(self._changes[number - 1])
            if begin < bounds[number + 1]:
                yield begin, bounds[number + 1], tuple(state[key] for key in sorted(state))

    def lead(self, packet: int, payload: bytes) -> bytes:
        """Return the bytes of a packet preceded by all parameter sets in force, in one packaging.

        Where nothing changes within the stream, the bytes are returned as they are.

        Args:
            packet: its number.
            payload: its bytes.
        """
        if self.is_plain_before(packet):
            return payload
        units = self.before(packet)
        if self.codec not in NAL_CODECS:
            own = self._key_all(read_head(self.codec, payload, length_size=0).sets)
            return b"".join(unit for unit in units if _key(self.codec, unit) not in own) + payload
        packaged = b"".join(self._package(unit) for unit in units)
        size = self.packaging(packet)
        if size == self.length_size:
            return packaged + payload
        try:
            return packaged + b"".join(self._package(unit) for unit in split_units(payload, size))
        except BitstreamError:
            return packaged + payload

    def packaging(self, packet: int) -> int:
        """Return how many bytes the length before each NAL unit has in a packet as stored, 0 for a byte stream."""
        if not self._record_sizes:
            return self.length_size
        place = bisect_right(self._record_sizes, (packet, 5))
        return self._record_sizes[place - 1][1] if place else self.length_size

    def is_repackaged(self, packet: int) -> bool:
        """Return whether a packet is stored in another packaging than it is returned in."""
        return self.packaging(packet) != self.length_size

    def changes_at(self, packet: int) -> bool:
        """Return whether the container announces a new configuration with a packet."""
        place = bisect_right(self._places, packet)
        return place > 0 and self._places[place - 1] == packet

    def _package(self, unit: bytes) -> bytes:
        return len(unit).to_bytes(self.length_size, "big") + unit if self.length_size else b"\0\0\0\1" + unit

    def _change(self, place: int, found: dict[SetKey, bytes], *, begin: int) -> None:
        changed = {key: unit for key, unit in found.items() if self._state.get(key) != unit}
        if not changed:
            return
        if not self._initial and not self._changes:
            # raw and transport streams have in their first packets what other containers have in the header
            self._initial.update(changed)
            self._state.update(changed)
            self._cursor = 0, dict(self._initial)
            return
        self._bytes += sum(len(unit) for unit in changed.values())
        if self._bytes > MOST_BYTES:
            raise SourceError("damaged", f"the stream has more than {MOST_BYTES >> 20} MiB of parameter sets")
        self._state.update(changed)
        self._places.append(place)
        self._begins.append(begin)
        self._changes.append(changed)

    def _key_all(self, units: Iterable[bytes]) -> dict[SetKey, bytes]:
        if self.codec in NAL_CODECS:
            units = (unit.rstrip(b"\0") for unit in units)
        keyed = ((_key(self.codec, unit), unit) for unit in units if 0 < len(unit) <= MOST_SET_BYTES)
        return {key: unit for key, unit in keyed if key is not None}


def read_configuration(codec: str, record: bytes) -> tuple[int, list[bytes]]:
    """Read packaging and parameter sets of a container's codec private data.

    Returns:
        Bytes of the length before each NAL unit, 0 for a byte stream, and the units with their headers.

    Raises:
        BitstreamError: the record is cut short.
    """
    if codec == "h264" and record[:1] == b"\1":
        if len(record) < _AVC_RECORD:
            raise BitstreamError(f"the AVC configuration record has {len(record)} bytes")
        units, position = read_record_units(record, 6, record[5] & 31)
        more = read_record_units(record, position + 1, record[position])[0] if position < len(record) else []
        return (record[4] & 3) + 1, [*units, *more]
    if codec == "hevc" and record[:1] == b"\1":
        if len(record) < _HEVC_RECORD:
            raise BitstreamError(f"the HEVC configuration record has {len(record)} bytes")
        units, position = [], _HEVC_RECORD
        for _ in range(record[22]):
            count = int.from_bytes(record[position + 1 : position + 3], "big")
            found, position = read_record_units(record, position + 3, count)
            units += found
        return (record[21] & 3) + 1, units
    if codec in NAL_CODECS:
        starts = record[:3] == b"\0\0\1" or record[:4] == b"\0\0\0\1"
        # a VVC record is left to the decoder, except for the packaging (ISO/IEC 14496-15, 11.2.4.2)
        return (0 if starts or not record else (record[0] >> 1 & 3) + 1), list(split_units(record, 0)) if starts else []
    body = record[_AV1_RECORD:] if codec == "av1" and record[:1] == b"\x81" else record
    return 0, list(read_head(codec, body, length_size=0).sets) if body else []


def _key(codec: str, unit: bytes) -> SetKey | None:
    """Return kind and number of a parameter set, sorting after the sets it may refer to; None for other units."""
    if codec not in NAL_CODECS:
        name = _USER_DATA.match(unit)
        return (1, zlib.crc32(name[1])) if name else _HEADERS
    kind = nal_type(codec, unit) if len(unit) > 2 else -1
    try:
        if codec == "h264":
            if kind == 6:
                return _X264_BUILD
            rbsp = remove_emulation_prevention(unit[1:MOST_ID_BYTES])
            return (kind, BitReader(rbsp[3 if kind == 7 else 0 :], "parameter set").ue(255)) if kind in (7, 8) else None
        bits = BitReader(remove_emulation_prevention(unit[2:MOST_ID_BYTES]), "parameter set")
        if codec == "hevc":
            return (kind, _hevc_number(kind, bits)) if 32 <= kind <= 34 else None
        return (kind, bits.u(6 if kind == 16 else 4)) if 14 <= kind <= 16 else None
    except BitstreamError:
        return None


def _hevc_number(kind: int, bits: BitReader) -> int:
    """Read the number of an HEVC parameter set (Rec. ITU-T H.265, 7.3.2.1 to 7.3.2.3, 7.3.3)."""
    if kind == 32:
        return bits.u(4)
    if kind == 33:
        bits.u(4)
        layers = bits.u(3)
        bits.u(1)
        bits.position += 96
        present = [(bits.flag(), bits.flag()) for _ in range(layers)]
        if layers:
            bits.position += 2 * (8 - layers)
        bits.position += sum(88 * profile + 8 * level for profile, level in present)
    return bits.ue(255)
