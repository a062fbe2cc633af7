"""NAL units of an index's packets: whether they join, and the first bytes of each slice, read once for all packets.

A few bytes of each unit contain a picture's type and order count and show whether units join. They are read one
packet at a time, and evaluated for thousands of packets at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.header_words import Flags, Ints
from codecmeta.container.parameter_history import read_configuration
from codecmeta.container.slice_types import is_uniform
from codecmeta.container.video import Video
from codecmeta.errors import BitstreamError
from codecmeta.h264.field_pairs import FieldPairs
from codecmeta.h264.nal import SPS
from codecmeta.storage.byte_source import ByteSource

if TYPE_CHECKING:
    from codecmeta.container.packets import PacketTable

START = 16
"""First bytes of a unit that are kept: its header, and of a slice the type and the order count."""

_WINDOW = 64
"""Bytes that are examined at once: a delimiter, a message and the beginning of a slice."""

_STRIDE = _WINDOW + 4 + START
"""Bytes that are read at once, so that START bytes of a unit that begins in a window are available."""

_ROUNDS = 24
_MOST_UNITS, _MOST_BYTES = 1 << 16, 1 << 26
"""Windows of a packet that are read in the batch; limits on units and bytes of a packet with more."""

_BLOCK = 1 << 13
"""Packets that are examined together, which bounds memory."""


@dataclass(frozen=True, kw_only=True)
class UnitTable:
    """NAL units of a stream's packets, U of them in stream order.

    Attributes:
        packet: int64 (U,), the packet of each; the two fields of a frame are one packet.
        place: int64 (U,), where each begins in the file.
        length: int64 (U,), bytes.
        start: uint8 (U, START), the file's bytes from there on, also those after a shorter unit.
        pictured: bool (U,), coded slices.
        malformed: packets of the container without a slice before the place where their units no longer join.
    """

    packet: Ints
    place: Ints
    length: Ints
    start: NDArray[np.uint8] = field(repr=False)
    pictured: Flags
    malformed: int


class _Units(NamedTuple):
    """Units: row of the packet, offset in it, length, first bytes."""

    row: Ints
    at: Ints
    length: Ints
    start: NDArray[np.uint8]


def read_units(video: Video, packets: PacketTable) -> UnitTable | None:
    """Read the beginning of all NAL units of an H.264 or HEVC stream whose index gives packet positions.

    Args:
        video: the opened video.
        packets: its packet table.

    Returns:
        None for other codecs, packets without a position, and byte streams.
    """
    if video.codec not in _SLICES or packets.position is None or packets.second_position is None:
        return None
    number = np.arange(packets.size.size)
    second = packets.second > 0
    history = packets.history
    width = np.full(number.size, history.length_size)
    if not history.is_plain:
        width = np.array([history.packaging(one) for one in number.tolist()], np.int64)
    if not width.all():
        return None
    # the second field of a frame after the first
    number = np.concatenate([number, number[second]])
    position = np.concatenate([packets.position, packets.second_position[second]])
    size = np.concatenate([packets.size - packets.second, packets.second[second]]).astype(np.int64)
    find = partial(find_units, video.source, video.codec, position=position, size=size, width=width[number])
    shortened = history.is_plain and _is_progressive(video)
    units = find(ends=is_uniform if shortened else None)
    if shortened and _has_other_sequences(video, units):
        units = find()
    if not second.any():
        return units
    order = np.argsort(number[units.packet], kind="stable")
    return UnitTable(
        packet=number[units.packet][order],
        place=units.place[order],
        length=units.length[order],
        start=units.start[order],
        pictured=units.pictured[order],
        malformed=units.malformed,
    )


def _is_progressive(video: Video) -> bool:
    """Return whether all pictures of an H.264 stream are frames, by the parameter sets of its header."""
    if video.codec != "h264":
        return False
    try:
        return not FieldPairs(bytes(video.stream.codec_context.extradata or b"")).needs_packet(key=True)
    except BitstreamError:
        return False


def _has_other_sequences(video: Video, units: UnitTable) -> bool:
    """Return whether H.264 packets have sequence parameter sets that the header lacks."""
    rows = np.flatnonzero(units.start[:, 0] & 31 == SPS)
    if not rows.size:
        return False
    known = read_configuration(video.codec, bytes(video.stream.codec_context.extradata or b""))[1]
    found = zip(units.place[rows].tolist(), units.length[rows].tolist(), strict=True)
    return any(video.source.read_at(place, length) not in known for place, length in found)


def find_units(
    source: ByteSource,
    codec: str,
    *,
    position: Ints,
    size: Ints,
    width: Ints,
    ends: Callable[[NDArray[np.uint8]], Flags] | None = None,
) -> UnitTable:
    """Find the NAL units of packets of H.264 or HEVC.

    Args:
        source: the file.
        codec: libav's name of the codec.
        position: int64 (n,), where each packet begins.
        size: int64 (n,), bytes.
        width: int64 (n,), bytes of the length before each unit, 1 to 4.
        ends: tells by the first bytes of units, uint8 (n, START), after which of them a packet's other units are not
            wanted.
    """
    found = [_Units(position[:0], position[:0], position[:0], np.zeros((0, START), np.uint8))]
    for one in np.flatnonzero(np.bincount(width)).tolist():
        rows = np.flatnonzero(width == one)
        for block in np.split(rows, range(_BLOCK, rows.size, _BLOCK)):
            found += _walk(source, block, position, size, one, ends)
    row, at, length, start = (np.concatenate(parts) for parts in zip(*found, strict=True))
    pictured = _SLICES[codec](start[:, 0])
    seen = np.zeros(position.size, np.bool_)
    seen[row[pictured]] = True
    order = np.lexsort((at, row))
    return UnitTable(
        packet=row[order],
        place=(position[row] + at)[order],
        length=length[order],
        start=start[order],
        pictured=pictured[order],
        malformed=int(np.count_nonzero(~seen)),
    )


def _walk(
    source: ByteSource,
    rows: Ints,
    position: Ints,
    size: Ints,
    width: int,
    ends: Callable[[NDArray[np.uint8]], Flags] | None,
) -> Iterator[_Units]:
    """Yield the units of some packets until they no longer join, or until `ends` has enough."""
    at = np.zeros(rows.size, np.int64)
    live = np.flatnonzero(size[rows] > width)
    for _ in range(_ROUNDS):
        if not live.size:
            return
        window = _read_windows(source, position[rows[live]] + at[live])
        heads = np.lib.stride_tricks.sliding_window_view(window, width + START, axis=1)
        local, inner = np.zeros(live.size, np.int64), np.arange(live.size)
        ahead: list[Ints] = []
        while inner.size:
            row, begin = rows[live[inner]], local[inner] + width
            total = size[row]
            # bytes beyond a window that reaches the end of its packet are not needed
            near = (begin + START <= _WINDOW) | (total - at[live[inner]] <= _WINDOW)
            ahead.append(inner[~near])
            inner, row, begin, total = inner[near], row[near], begin[near], total[near]
            head = heads[inner, begin - width]
            length = np.zeros(inner.size, np.int64)
            for byte in range(width):
                length = length << 8 | head[:, byte]
            stop = begin + length
            rest = total - at[live[inner]] - stop
            sound = (length > 0) & (rest >= 0) & (head[:, width] < 0x80)
            inner, begin, length, start = inner[sound], begin[sound], length[sound], head[sound, width:]
            yield _Units(row[sound], at[live[inner]] + begin, length, start)
            local[inner] = stop[sound]
            continues = rest[sound] > width
            if ends is not None and continues.any():
                continues[continues] = ~ends(start[continues])
            inner = inner[continues]
            beyond = local[inner] >= _WINDOW
            ahead.append(inner[beyond])
            inner = inner[~beyond]
        onwards = np.sort(np.concatenate(ahead))
        at[live[onwards]] += local[onwards]
        live = live[onwards]
    for one in live.tolist():
        last = int(rows[one])
        yield _walk_one(source, last, int(position[last]), int(size[last]), int(at[one]), width)


def _walk_one(source: ByteSource, row: int, position: int, size: int, at: int, width: int) -> _Units:
    """Return the units of a packet that has very many, from an offset on."""
    data = source.read_at(position + at, min(size - at + START, _MOST_BYTES))
    places: list[tuple[int, int]] = []
    begin = width
    while begin < min(len(data), size - at) and len(places) < _MOST_UNITS:
        length = int.from_bytes(data[begin - width : begin], "big")
        if length == 0 or begin + length > size - at or data[begin] & 0x80:
            break
        places.append((at + begin, length))
        begin += length + width
    starts = b"".join(data[place - at : place - at + START].ljust(START, b"\0") for place, _ in places)
    table = np.array(places, np.int64).reshape(-1, 2)
    start = np.frombuffer(starts, np.uint8).reshape(-1, START)
    return _Units(np.full(len(places), row), table[:, 0], table[:, 1], start)


def _read_windows(source: ByteSource, place: Ints) -> NDArray[np.uint8]:
    """Read a window at each of some positions, zeros after the end of the file; uint8 (n, _STRIDE)."""
    parts = source.read_each(place.tolist(), _STRIDE)
    data = b"".join(parts)
    if len(data) < len(parts) * _STRIDE:
        data = b"".join(part.ljust(_STRIDE, b"\0") for part in parts)
    return np.frombuffer(data, np.uint8).reshape(-1, _STRIDE)


def _is_h264_slice(header: NDArray[np.uint8]) -> Flags:
    kind = header & 31
    return (kind >= 1) & (kind <= 5)


def _is_hevc_slice(header: NDArray[np.uint8]) -> Flags:
    return header >> 1 & 63 < 32


_SLICES: dict[str, Callable[[NDArray[np.uint8]], Flags]] = {"h264": _is_h264_slice, "hevc": _is_hevc_slice}
