"""Packet access by number in the packet table, from any position in the file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np

from codecmeta.container.packets import PacketTable
from codecmeta.container.video import Video, demux
from codecmeta.errors import SourceError
from codecmeta.record.meta import MISSING

_READ_AHEAD = 32
"""Packets that are read and discarded instead of seeking past them."""
_MOST_AHEAD = 16 << 20
"""Bytes of packets that are read at once of a file elsewhere."""


class PacketReader:
    """Iterator of `(number, packets)` from where `go_to` placed it: one packet, or two where each holds a field."""

    def __init__(self, video: Video, packets: PacketTable) -> None:
        self._video = video
        self._packets = packets
        self._packet: Iterator[av.Packet[Any]] | None = None
        self._next = 0
        self._restarts = bool(packets.restarted.any())

    def __iter__(self) -> Iterator[tuple[int, tuple[av.Packet[Any], ...]]]:
        while self._packet is not None:
            number = self._next
            sizes = self._sizes(number)
            packets = tuple(itertools.islice(self._packet, len(sizes)))
            if not packets:
                self._packet = None
                return
            if [packet.size for packet in packets] != sizes:
                raise SourceError("changed_while_reading", f"packet {number} differs from the packet table")
            self._next += 1
            yield number, packets

    def _sizes(self, number: int) -> list[int]:
        """Return the sizes of the packets that form an entry of the table; packets beyond the table have none."""
        table = self._packets
        if number >= table.size.size:
            return [-1]
        size, second = int(table.size[number]), int(table.second[number])
        return [size - second, second] if second else [size]

    def go_to(self, start: int) -> None:
        """Make packet `start` the next one, by seeking where that saves reading."""
        near = self._packet is not None and self._next <= start <= self._next + _READ_AHEAD
        if not near and (start == 0 or not self._seek(start)):
            if self._restarts:
                # where several packets share the first one's time, libav seeks to any of them
                self._video.reopen()
            else:
                self._video.rewind()
            self._packet = demux(self._video)
            self._next = 0
        for _ in range(start - self._next):
            if next(iter(self), None) is None:
                return

    def _seek(self, start: int) -> bool:
        """Try to continue at or shortly before `start`."""
        container, stream = self._video.container, self._video.stream
        number, place = -1, MISSING
        try:
            # demuxers compare with either time; where that is the later one, the earlier one leads to the GoP before
            for stamp in (int(self._packets.dts[start]), int(self._packets.pts[start])):
                if stamp != MISSING and start - number > _READ_AHEAD:
                    container.seek(stamp, stream=stream, backward=True)
                    found = next(demux(self._video), None)
                    reached = None if found is None else self._identify(found)
                    if reached is not None and number < reached <= start:
                        number, place = reached, stamp
            if number < 0:
                return False
            container.seek(place, stream=stream, backward=True)
        except (av.FFmpegError, SourceError):
            return False
        self._packet = demux(self._video)
        self._next = number
        return True

    def _identify(self, packet: av.Packet[Any]) -> int | None:
        table = self._packets
        same = table.size - table.second == packet.size
        if packet.dts is not None:
            same &= table.dts == packet.dts
        if packet.pts is not None:
            same &= table.pts == packet.pts
        places = np.flatnonzero(same)
        return int(places[0]) if places.size == 1 else None


def join(parts: Iterable[av.Packet[Any]]) -> bytes:
    """Return the bytes of an entry of the packet table."""
    return b"".join(bytes(part) for part in parts)


def _read_ahead(video: Video, packets: PacketTable, numbers: list[int]) -> int:
    """Announce reads of the first of some packets; return the place of the last one."""
    size = packets.size[numbers].astype(np.int64)
    count = max(int(np.searchsorted(np.cumsum(size), _MOST_AHEAD, side="right")), 1)
    if packets.position is not None:
        begin = packets.position[numbers[:count]]
        video.source.prefetch(zip(begin.tolist(), (begin + size[:count]).tolist(), strict=True))
    return count - 1


def copy_packet(packet: av.Packet[Any], payload: bytes) -> av.Packet[Any]:
    """Return a packet with other bytes and the time stamps of a given one, without its side data."""
    copy = av.Packet(payload)
    copy.pts, copy.dts, copy.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
    if packet.time_base:
        copy.time_base = packet.time_base
    return copy


def read_payloads(video: Video, packets: PacketTable, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of some packets, in rising order, reading as little else as the container allows.

    Where parameter sets change within the stream, each packet is preceded by those in force, so that packets can be
    read one by one.

    Args:
        video: the opened video.
        packets: its packet table.
        numbers: packets wanted.

    Raises:
        SourceError: the file has changed since the table was made.
    """
    wanted = sorted(set(numbers))
    if packets.position is not None and packets.second_position is not None:
        read = video.source.read_at
        ahead = -1
        for place, number in enumerate(wanted):
            if place > ahead and not video.source.is_local:
                ahead = _read_ahead(video, packets, wanted[place:]) + place
            second = int(packets.second[number])
            payload = read(int(packets.position[number]), int(packets.size[number]) - second)
            if second:
                payload += read(int(packets.second_position[number]), second)
            if len(payload) != packets.size[number]:
                raise SourceError("changed_while_reading", f"packet {number} ends after the file")
            yield number, packets.history.lead(number, payload)
        return
    reader = PacketReader(video, packets)
    keys = np.flatnonzero(packets.key)
    at = -1
    for number in wanted:
        key = int(keys[max(int(np.searchsorted(keys, number, side="right")) - 1, 0)])
        reader.go_to(key if key > at else at + 1)
        for found, parts in reader:
            if found == number:
                yield number, packets.history.lead(number, join(parts))
                break
        at = number
