"""Encoder build of x264 in a stream: old builds departed from the standard in ways that decoders follow."""

from __future__ import annotations

import re

from codecmeta.entropy.sei import USER_DATA_UNREGISTERED, split_messages

_X264 = re.compile(rb"x264 - core\s*\+?(\d{1,9})")


def find_x264_build(rbsp: bytes) -> int | None:
    """Find the build of x264 that wrote a stream, as libavcodec reads it from an SEI NAL unit; None if unstated.

    x264 writes "x264 - core N" after a UUID in its first access unit. Versions that did not know their build wrote 0000
    and, after it, 1: they count as 67.
    """
    for kind, payload in split_messages(rbsp):
        if kind != USER_DATA_UNREGISTERED or len(payload) < 16:
            continue
        text = payload[16:]
        if (found := _X264.match(text)) and (build := int(found[1])) > 0:
            return 67 if build == 1 and text.startswith(b"x264 - core 0000") else build
    return None
