"""AV1 frame headers of a temporal unit: the type of the picture that a packet shows, if it shows one.

AV1 bitstream and decoding process specification, 5.3, 5.5 and 5.9.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codecmeta.container.packet_heads import MOST_UNITS, Peek, read_leb128
from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError

_HEAD = 64
"""Bytes of an OBU that are read: a frame's up to the references that it refreshes, a sequence header's entirely."""

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_SELECT = 2
"""Value of a tool that is chosen per frame (SELECT_SCREEN_CONTENT_TOOLS, SELECT_INTEGER_MV)."""

_ALL, _SLOTS = 0xFF, 8
_LATER = "i"
"""Type of a key frame that has not been shown yet."""


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    """Fields of a sequence header that frame headers depend on: presence of optional fields, and tools."""

    reduced: bool
    presentation_bits: int
    removal_bits: int
    has_decoder_model: bool
    operating_points: tuple[tuple[int, bool], ...]
    id_bits: int
    screen_content: int
    integer_mv: int
    order_bits: int


class Av1Frames:
    """Reader of the frame headers of AV1 packets, which come in decode order.

    Args:
        extradata: the container's codec private data, whose sequence header holds until another comes.
    """

    def __init__(self, extradata: bytes) -> None:
        self._sequence: _Sequence | None = None
        self._slots = ["?"] * _SLOTS
        body = extradata[4:] if extradata[:1] == b"\x81" else extradata
        self.read(lambda begin, count: body[begin : begin + count], len(body))

    def read(self, peek: Peek, size: int) -> tuple[str, bool]:
        """Return the type of the last shown picture, else of the last picture, and whether one is shown."""
        kind, shown = "?", False
        try:
            for obu, extension, begin, length in _list_obus(peek, size):
                payload = peek(begin, min(length, _HEAD))
                if obu == _SEQUENCE_HEADER:
                    self._sequence = _read_sequence(payload)
                elif obu in (_FRAME_HEADER, _FRAME):
                    kind_here, shown_here = self._read_frame(payload, extension)
                    if shown_here or not shown:
                        kind = kind_here
                    shown |= shown_here
        except BitstreamError:
            return "?", True
        return kind, shown

    def _read_frame(self, payload: bytes, extension: int) -> tuple[str, bool]:
        """Read frame_type, show_frame and refresh_frame_flags of uncompressed_header."""
        sequence = self._sequence
        if sequence is None:
            raise BitstreamError("AV1 frame header: no sequence header precedes it")
        if sequence.reduced:
            self._refresh(_ALL, "I")
            return "I", True
        bits = BitReader(payload, "AV1 frame header")
        if bits.flag():
            kind = self._slots[bits.u(3)]
            if kind == _LATER:
                # a key frame that is shown later replaces all references (7.21)
                self._refresh(_ALL, "I")
            return kind.upper(), True
        frame_type, shown = bits.u(2), bits.flag()
        if shown:
            bits.skip(sequence.presentation_bits)
        else:
            bits.skip(1)
        whole = frame_type == _SWITCH or (frame_type == _KEY and shown)
        resilient = whole or bits.flag()
        _skip_tools(bits, sequence)
        bits.skip(sequence.id_bits + (frame_type != _SWITCH) + sequence.order_bits)
        intra = frame_type in (_KEY, _INTRA_ONLY)
        bits.skip(0 if intra or resilient else 3)
        if sequence.has_decoder_model and bits.flag():
            _skip_removal_times(bits, sequence, extension)
        kind = (_LATER if frame_type == _KEY and not shown else "I") if intra else "P"
        self._refresh(_ALL if whole else bits.u(8), kind)
        return kind.upper(), shown

    def _refresh(self, flags: int, kind: str) -> None:
        self._slots = [kind if flags >> slot & 1 else old for slot, old in enumerate(self._slots)]


def _list_obus(peek: Peek, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield type, extension byte, begin and length of the payload of each OBU."""
    position = 0
    for _ in range(MOST_UNITS):
        if position >= size:
            return
        head = peek(position, 10)
        try:
            extended, sized = head[0] >> 2 & 1, head[0] >> 1 & 1
            extension = head[1] if extended else 0
            begin = 1 + extended
            length, begin = read_leb128(head, begin) if sized else (size - position - begin, begin)
        except IndexError as error:
            raise BitstreamError("an OBU header is cut short") from error
        if position + begin + length > size:
            raise BitstreamError(f"an OBU of {length} bytes in a packet of {size}")
        yield head[0] >> 3 & 15, extension, position + begin, length
        position += begin + length


def _skip_tools(bits: BitReader, sequence: _Sequence) -> None:
    """Skip disable_cdf_update, allow_screen_content_tools and force_integer_mv."""
    bits.skip(1)
    allowed = bits.flag() if sequence.screen_content == _SELECT else bool(sequence.screen_content)
    if allowed and sequence.integer_mv == _SELECT:
        bits.skip(1)


def _skip_removal_times(bits: BitReader, sequence: _Sequence, extension: int) -> None:
    temporal, spatial = extension >> 5, extension >> 3 & 3
    for idc, timed in sequence.operating_points:
        if timed and (idc == 0 or (idc >> temporal & 1 and idc >> (spatial + 8) & 1)):
            bits.skip(sequence.removal_bits)


def _read_sequence(payload: bytes) -> _Sequence:
    """Read sequence_header_obu up to OrderHintBits."""
    bits = BitReader(payload, "AV1 sequence header")
    bits.skip(4)
    reduced = bits.flag()
    presentation_bits = removal_bits = delay_bits = 0
    has_model, equal_interval = False, False
    points = []
    if reduced:
        bits.skip(5)
    else:
        if bits.flag():
            bits.skip(64)
            equal_interval = bits.flag()
            if equal_interval:
                _skip_uvlc(bits)
            has_model = bits.flag()
            if has_model:
                delay_bits = bits.u(5) + 1
                bits.skip(32)
                removal_bits, presentation_bits = bits.u(5) + 1, bits.u(5) + 1
        has_delay = bits.flag()
        for _ in range(bits.u(5) + 1):
            idc = bits.u(12)
            bits.skip(bits.u(5) > 7)
            timed = has_model and bits.flag()
            bits.skip(2 * delay_bits + 1 if timed else 0)
            if has_delay and bits.flag():
                bits.skip(4)
            points.append((idc, timed))
    widths = bits.u(4) + 1, bits.u(4) + 1
    bits.skip(sum(widths))
    id_bits = 0
    if not reduced and bits.flag():
        delta = bits.u(4)
        id_bits = delta + bits.u(3) + 3
    bits.skip(3)
    screen_content, integer_mv, order_bits = _SELECT, _SELECT, 0
    if not reduced:
        bits.skip(4)
        has_order = bits.flag()
        bits.skip(2 if has_order else 0)
        screen_content = _SELECT if bits.flag() else bits.u(1)
        if screen_content:
            integer_mv = _SELECT if bits.flag() else bits.u(1)
        order_bits = bits.u(3) + 1 if has_order else 0
    return _Sequence(
        reduced=reduced,
        presentation_bits=0 if equal_interval else presentation_bits,
        removal_bits=removal_bits,
        has_decoder_model=has_model,
        operating_points=tuple(points),
        id_bits=id_bits,
        screen_content=screen_content,
        integer_mv=integer_mv,
        order_bits=order_bits,
    )


def _skip_uvlc(bits: BitReader) -> None:
    zeros = 0
    while not bits.flag():
        zeros += 1
    bits.skip(zeros if zeros < 32 else 0)
