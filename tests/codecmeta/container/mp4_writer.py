"""MP4 files with other boxes than their muxer wrote."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TypeAlias

_NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")

Change: TypeAlias = bytes | Callable[[bytes], bytes | None] | None


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def rewrite(content: bytes, changes: Mapping[bytes, Change]) -> bytes:
    """Replace the payload of boxes by type; None leaves a box out, a function gets the payload that there is.

    The `moov` box must come last, so that nothing else moves.
    """
    out, at = b"", 0
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        payload = content[at + 8 : at + length]
        at += length
        if kind in _NESTED:
            payload = rewrite(payload, changes)
        change = changes.get(kind, payload)
        changed = change(payload) if callable(change) else change
        if changed is not None:
            out += box(kind, changed)
    return out


def insert(content: bytes, *, into: bytes, boxes: bytes) -> bytes:
    """Append boxes to a box that holds others, such as the sample table `stbl`."""
    return rewrite(content, {into: lambda payload: payload + boxes})


def table(*rows: tuple[int, ...], header: bytes = bytes(4)) -> bytes:
    """Write a full box's payload: header, number of rows, rows of 32-bit fields."""
    return header + struct.pack(">I", len(rows)) + b"".join(struct.pack(f">{len(row)}I", *row) for row in rows)


def with_edits(content: bytes, edits: list[tuple[int, int]]) -> bytes:
    """Give the only track an edit list: duration and media time of each edit; -1 is an empty edit."""
    entries = b"".join(struct.pack(">IiI", duration, start, 0x10000) for duration, start in edits)
    elst = box(b"elst", bytes(4) + struct.pack(">I", len(edits)) + entries)
    return insert(rewrite(content, {b"edts": None}), into=b"trak", boxes=box(b"edts", elst))
