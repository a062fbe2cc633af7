"""VP8 and VP9 frame headers: the type of the picture that a packet shows, if it shows one.

RFC 6386, 9.1; VP9 bitstream specification, 6.2, 7.2 and Annex B.
"""

from __future__ import annotations

from collections.abc import Iterator

from codecmeta.container.packet_heads import Peek
from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError

_HEAD = 16
"""Bytes of a frame up to the references that it refreshes."""

_ALL, _SLOTS = 0xFF, 8
_SRGB = 7


class Vp8Frames:
    """Reader of the frame tags of VP8 packets, one frame each."""

    def read(self, peek: Peek, size: int) -> tuple[str, bool]:
        """Return the type of the picture, I or P, and whether it is shown; some frames only serve as references."""
        tag = peek(0, min(size, 1))
        return ("?", False) if not tag else ("P" if tag[0] & 1 else "I", bool(tag[0] & 0x10))


class Vp9Frames:
    """Reader of the frame headers of VP9 packets, including superframes; packets come in decode order."""

    def __init__(self) -> None:
        self._slots = ["?"] * _SLOTS

    def read(self, peek: Peek, size: int) -> tuple[str, bool]:
        """Return the type of the last shown picture, else of the last picture, and whether one is shown."""
        kind, shown = "?", False
        for begin, length in _list_frames(peek, size):
            try:
                kind_here, shown_here = self._read_frame(peek(begin, min(length, _HEAD)))
            except BitstreamError:
                kind_here, shown_here = "?", True
            if shown_here or not shown:
                kind = kind_here
            shown |= shown_here
        return kind, shown

    def _read_frame(self, head: bytes) -> tuple[str, bool]:
        bits = BitReader(head, "VP9 frame header")
        if bits.u(2) != 2:
            raise BitstreamError("VP9 frame header: the frame marker is missing")
        profile = bits.u(1) | bits.u(1) << 1
        if profile == 3:
            bits.skip(1)
        if bits.flag():
            return self._slots[bits.u(3)], True
        inter, shown, resilient = bits.flag(), bits.flag(), bits.flag()
        if not inter:
            self._refresh(_ALL, "I")
            return "I", shown
        intra = not shown and bits.flag()
        bits.skip(0 if resilient else 2)
        if intra:
            bits.skip(24)
            _skip_colours(bits, profile)
        kind = "I" if intra else "P"
        self._refresh(bits.u(8), kind)
        return kind, shown

    def _refresh(self, flags: int, kind: str) -> None:
        self._slots = [kind if flags >> slot & 1 else old for slot, old in enumerate(self._slots)]


def _skip_colours(bits: BitReader, profile: int) -> None:
    """Skip color_config of an intra-only frame; profile 0 has none."""
    if profile == 0:
        return
    bits.skip(1 if profile >= 2 else 0)
    if bits.u(3) != _SRGB:
        bits.skip(4 if profile in (1, 3) else 1)
    elif profile in (1, 3):
        bits.skip(1)


def list_parts(peek: Peek, size: int) -> tuple[int, list[int]]:
    """Read the index at the end of a superframe (Annex B).

    Args:
        peek: reads the packet.
        size: its bytes.

    Returns:
        The bytes before the index, and those of each frame; the whole packet if it has no index.
    """
    last = peek(size - 1, 1)[0] if size else 0
    count, width = (last & 7) + 1, (last >> 3 & 3) + 1
    length = 2 + count * width
    index = peek(size - length, length) if last >> 5 == 6 and size >= length else b""
    if len(index) != length or index[0] != last:
        return size, [size]
    return size - length, [int.from_bytes(index[at : at + width], "little") for at in range(1, length - 1, width)]


def _list_frames(peek: Peek, size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and length of the frames of a packet."""
    space, parts = list_parts(peek, size)
    begin = 0
    for part in parts:
        if part > space - begin:
            return
        if part:
            yield begin, part
        begin += part
