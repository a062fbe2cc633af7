"""Boxes of the ISO base media file format (ISO/IEC 14496-12, 4.2): heads and nesting."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """Box header: the four-character type, where the payload begins, and where the box ends."""

    type: bytes
    begin: int
    end: int


def parse_head(head: bytes, position: int, size: int) -> Box | None:
    """Parse a box from its first 16 bytes, or as many as there are; return None where its length is impossible.

    Args:
        head: bytes of the file from `position` on.
        position: where the box begins.
        size: where the last box ends if it has no length of its own.
    """
    if len(head) < 8:
        return None
    length, kind = struct.unpack_from(">I4s", head)
    begin = position + 8
    if length == 1:
        if len(head) < 16:
            return None
        length = struct.unpack_from(">Q", head, 8)[0]
        begin = position + 16
    elif length == 0:
        length = size - position
    if position + length < begin:
        return None
    return Box(kind, begin, position + length)


def children(data: bytes, begin: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two positions, up to the first that does not fit."""
    position = begin
    while position + 8 <= end:
        box = parse_head(data[position : position + 16], position, end)
        if box is None or box.end > end:
            return
        yield box
        position = box.end


def child(data: bytes, parent: Box, *path: bytes) -> Box | None:
    """Return the first box of each type on a path down from a parent; None where one is missing."""
    for kind in path:
        found = next((box for box in children(data, parent.begin, parent.end) if box.type == kind), None)
        if found is None:
            return None
        parent = found
    return parent
