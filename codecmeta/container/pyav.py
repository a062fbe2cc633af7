"""PyAV 15.1 to 19: what differs between its versions, in one place.

Other modules call PyAV only in ways that all these versions share.
"""

from __future__ import annotations

from typing import Any, cast

import av
from av.container import InputContainer
from av.stream import Stream

_ATTACHED_PICTURE = 0x400
_DISCARD_ALL = 48
_MAJOR = int(av.__version__.split(".")[0])
FFMPEG = str(av.ffmpeg_version_info)
SHOWS_SIDE_DATA = hasattr(av.Packet, "has_sidedata")
"""Whether side data of packets can be read (from version 16 on)."""


def open_input(name: str, options: dict[str, str]) -> InputContainer:
    """Open a file for reading; metadata that are no UTF-8 are no reason to refuse it."""
    # as container options only: with options of streams, 15.1 falls over streams that appear while a file is opened
    if _MAJOR < 19:
        return av.open(name, container_options=options, metadata_errors="replace")
    return av.open(name, container_options=options)


def is_attached_picture(stream: Stream) -> bool:
    """Whether a stream holds cover art."""
    disposition: Any = stream.disposition
    # a flag of its own class before version 16, an integer after
    return bool(int(getattr(disposition, "value", disposition)) & _ATTACHED_PICTURE)


def discard_others(stream: Stream) -> None:
    """Let the demuxer pass over the packets of all other streams, where PyAV can ask for that (from version 16 on)."""
    discard: Any = getattr(av.stream, "Discard", None)
    if discard is not None:
        for other in cast(Any, stream.container.streams):
            if other.index != stream.index:
                other.discard = discard(_DISCARD_ALL)


def new_extradata(packet: av.Packet[Any]) -> bytes | None:
    """The decoder configuration that the demuxer announces with a packet; None where PyAV shows none."""
    one: Any = packet
    return bytes(one.get_sidedata("new_extradata")) if one.has_sidedata("new_extradata") else None
