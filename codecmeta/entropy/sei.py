"""SEI messages, the same in H.264 (7.3.2.3.1) and H.265 (7.3.5)."""

from __future__ import annotations

from collections.abc import Iterator

USER_DATA_UNREGISTERED = 5
"""payloadType of messages that begin with a UUID of 16 bytes."""

DISPLAY_ORIENTATION = 47
"""payloadType of messages that state the display orientation of pictures."""


def split_messages(rbsp: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield payloadType and payload of the messages of an SEI NAL unit; a message that is cut short ends it.

    Args:
        rbsp: everything after the NAL unit's header, without emulation prevention bytes.
    """
    position = 0
    # what remains after the last message are trailing bits
    while position + 2 < len(rbsp):
        numbers = []
        for _ in range(2):
            value = 0
            while position < len(rbsp) and rbsp[position] == 255:
                value += 255
                position += 1
            if position == len(rbsp):
                return
            numbers.append(value + rbsp[position])
            position += 1
        kind, size = numbers
        if position + size > len(rbsp):
            return
        yield kind, rbsp[position : position + size]
        position += size
