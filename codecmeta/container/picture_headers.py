"""Picture headers of an indexed file, read at the positions that the index gives."""

from __future__ import annotations

from codecmeta.container.packet_heads import Peek
from codecmeta.container.packet_pictures import PacketPictures, from_list, from_slices, open_frame_reader
from codecmeta.container.packets import PacketTable
from codecmeta.container.unit_table import UnitTable
from codecmeta.container.video import Video
from codecmeta.storage.byte_source import ByteSource

_WINDOW = 64
"""Bytes that contain the headers of most packets."""


def read_pictures(video: Video, packets: PacketTable, units: UnitTable | None) -> PacketPictures | None:
    """Read the pictures of all packets from their headers.

    Args:
        video: the opened video.
        packets: its packet table.
        units: its NAL units, where the codec has NAL units and the index gives positions.

    Returns:
        None where the codec's headers are not read, or their positions are unknown.
    """
    if packets.pictures is not None:
        return packets.pictures
    if units is not None:
        return from_slices(
            video.codec, packets.history, packets=packets.size.size, packet=units.packet, start=units.start
        )
    reader = open_frame_reader(video.codec, bytes(video.stream.codec_context.extradata or b""))
    if reader is None or packets.position is None:
        return None
    places = zip(packets.position.tolist(), packets.size.tolist(), strict=True)
    return from_list([reader.read(_open_peek(video.source, place, size), size) for place, size in places])


def _open_peek(source: ByteSource, place: int, size: int) -> Peek:
    """Return a function that gives bytes of a packet, most of them from its first ones, which are read at once."""
    window = source.read_at(place, min(size, _WINDOW))

    def peek(begin: int, count: int) -> bytes:
        if begin + count <= len(window):
            return window[begin : begin + count]
        return source.read_at(place + begin, max(min(count, size - begin), 0))

    return peek
