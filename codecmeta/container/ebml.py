"""Elements of an EBML document, the format of Matroska and WebM (RFC 8794, 4 to 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEAD_BYTES = 12
"""Bytes of the longest head: identifier and length."""


class Element(NamedTuple):
    """EBML element header.

    Attributes:
        identifier: with its marker bits.
        begin: where its payload begins.
        size: bytes of its payload; None where its length is unknown.
    """

    identifier: int
    begin: int
    size: int | None


def parse_head(head: bytes, position: int) -> Element | None:
    """Parse an element from its first bytes; return None where they form none.

    Args:
        head: bytes of the file from `position` on.
        position: where the element begins.
    """
    if not head or head[0] < 16:
        return None
    width = 9 - head[0].bit_length()
    if len(head) <= width or head[width] == 0:
        return None
    octets = 9 - head[width].bit_length()
    if len(head) < width + octets:
        return None
    length = int.from_bytes(head[width : width + octets], "big") & ((1 << 7 * octets) - 1)
    unknown = length == (1 << 7 * octets) - 1
    identifier = int.from_bytes(head[:width], "big")
    return Element(identifier, position + width + octets, None if unknown else length)


def children(data: bytes, begin: int, end: int) -> Iterator[Element]:
    """Yield the elements between two positions, up to the first that does not fit."""
    position = begin
    while position < end:
        element = parse_head(data[position : min(position + HEAD_BYTES, end)], position)
        if element is None or element.size is None or element.begin + element.size > end:
            return
        yield element
        position = element.begin + element.size


def read_float(payload: bytes) -> float | None:
    """Read the value of a float element (RFC 8794, 7.3); return None where its length is not allowed."""
    if not payload:
        return 0.0
    code = {4: ">f", 8: ">d"}.get(len(payload))
    return None if code is None else float(struct.unpack(code, payload)[0])
