"""Decoder configurations that a container announces in the middle of a stream.

They are sequence headers of an FLV file, and sample descriptions of a fragmented MP4 file. libavformat passes them on
with the next packet; where PyAV does not expose that, the file itself is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import av

from codecmeta.container import pyav
from codecmeta.container.video import Video
from codecmeta.errors import SourceError
from codecmeta.storage.byte_source import ByteSource

Announced: TypeAlias = "Callable[[av.Packet[Any]], bytes | None]"
"""Returns, for each packet in file order, the new configuration record, or None if the previous one stays in force."""

_VIDEO_TAG, _AVC, _HEVC_OLD = 9, 7, 12
_TAG_HEADER, _EXTENDED, _SEQUENCE_START = 11, 0x80, 0
_MOST_TAGS = 1 << 26


def list_configurations(video: Video) -> Announced:
    """Return a function that gives the configuration of each demuxed packet.

    Raises:
        SourceError: the file has several sample descriptions, and PyAV does not expose which is in force.
    """
    if pyav.SHOWS_SIDE_DATA:
        return pyav.new_extradata
    if video.container.format.name == "flv":
        return _follow_tags(video)
    if video.track is not None and len(video.track.descriptions) > 1:
        raise SourceError("unreadable", "several sample descriptions in fragments; install PyAV 16 or later")
    return lambda packet: None


def _follow_tags(video: Video) -> Announced:
    # the first equals the stream's extradata
    headers = list(find_sequence_headers(video.source))[1:]

    def announced(packet: av.Packet[Any]) -> bytes | None:
        record = None
        while headers and (packet.pos or 0) > headers[0][0]:
            record = headers.pop(0)[1]
        return record

    return announced


def find_sequence_headers(source: ByteSource) -> Iterator[tuple[int, bytes]]:
    """Yield position and configuration record of the video sequence headers of an FLV file.

    Source: Adobe Flash Video File Format Specification 10.1, E.4; Enhanced RTMP v2, ExVideoTagHeader.
    """
    position = int.from_bytes(source.read_at(5, 4), "big") + 4
    for _ in range(_MOST_TAGS):
        head = source.read_at(position, _TAG_HEADER + 5)
        if len(head) < _TAG_HEADER:
            return
        size = int.from_bytes(head[1:4], "big")
        if head[0] == _VIDEO_TAG and size > 5:
            body = head[_TAG_HEADER:]
            starts = body[0] & 15 == _SEQUENCE_START and bool(body[0] & _EXTENDED)
            if starts or (not body[0] & _EXTENDED and body[0] & 15 in (_AVC, _HEVC_OLD) and body[1] == 0):
                yield position, source.read_at(position + _TAG_HEADER + 5, size - 5)
        position += _TAG_HEADER + size + 4
