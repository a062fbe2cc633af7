"""VP9 packet form: whether a decoder accepts the headers of a packet's frames.

The uncompressed header is read whole; of the compressed header and the tiles only where they begin and end, and the
marker bit in front of each. Clauses are those of the VP9 bitstream specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from codecmeta.container.packet_heads import Peek
from codecmeta.container.vpx_frames import list_parts
from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError

_HEAD = 96
"""Bytes that hold the longest uncompressed header."""

_SLOTS, _REFERENCES, _SEGMENTS = 8, 3, 8
_MARKER, _LONG, _SYNC = 2, 3, 0x498342
"""frame_marker, the profile with a reserved bit, and frame_sync_code."""

_SRGB = 7
_SEGMENT_FEATURES = ((8, 1), (6, 1), (2, 0), (0, 0))
"""Bits of the value and of the sign of each feature of a segment (6.2.11)."""

_LEAST_TILE, _MOST_TILE = 4, 64
"""Superblocks that a column of tiles is wide."""

_TILE_SIZE = 4
_RATIO_DOWN, _RATIO_UP = 2, 16
"""How far a picture may be smaller and larger than one that it refers to (7.2.5)."""


class _Picture(NamedTuple):
    """Size of a picture, and bit depth and subsampling of its samples."""

    width: int
    height: int
    samples: tuple[int, int, int]


_YUV420 = (8, 1, 1)


class Vp9Check:
    """Check of VP9 packets that pass in decode order."""

    def __init__(self) -> None:
        self._profile: int | None = None
        self._samples = _YUV420
        self._slots: list[_Picture | None] = [None] * _SLOTS

    def accepts(self, read: Peek, size: int, width: int) -> bool:
        """Return whether a decoder accepts the frames of a packet.

        Args:
            read: reads its bytes: from an offset, a number of them.
            size: its bytes.
            width: unused; VP9 has no NAL units.
        """
        space, parts = list_parts(read, size)
        if 0 in parts or sum(parts) > space:
            return False
        begin = 0
        try:
            for part in parts:
                self._read_frame(read, begin, part)
                begin += part
        except BitstreamError:
            return False
        return True

    def _read_frame(self, read: Peek, begin: int, size: int) -> None:
        """Read one frame, and note what it leaves in the reference slots (6.2)."""
        bits = BitReader(read(begin, min(size, _HEAD)), "VP9 frame header")
        _require(bits.u(2) == _MARKER, "frame_marker is not 2")
        profile = bits.u(1) | bits.u(1) << 1
        _require(profile != _LONG or not bits.flag(), "a reserved bit is set")
        shown_again = bits.flag()
        if shown_again:
            self._require_profile(profile)
            return
        inter, shown, resilient = bits.flag(), bits.flag(), bits.flag()
        intra = inter and not shown and bits.flag()
        if inter:
            self._require_profile(profile)
            bits.skip(0 if resilient else 2)
        if intra or not inter:
            _require(bits.u(24) == _SYNC, "frame_sync_code is missing")
            samples = _YUV420 if intra and profile == 0 else _read_colours(bits, profile)
            refreshed = bits.u(8) if intra else (1 << _SLOTS) - 1
            picture: _Picture | None = _Picture(*_read_size(bits), samples)
            _skip_render_size(bits)
        else:
            refreshed = bits.u(8)
            picture = self._read_inter(bits)
        if picture is None:
            self._refresh(refreshed, None)
            return
        bits.skip(2 if resilient else 4)
        _skip_filter_and_quantizer(bits)
        _skip_segmentation(bits)
        tiles = _read_tiles(bits, picture.width)
        header = bits.u(16)
        _require(header > 0, "header_size_in_bytes is 0")
        first = (bits.position + 7) // 8
        _check_parts(read, begin + first, begin + size, header, tiles)
        if not inter:
            self._profile = profile
        self._samples = picture.samples
        self._refresh(refreshed, picture)

    def _refresh(self, slots: int, picture: _Picture | None) -> None:
        self._slots = [picture if slots >> slot & 1 else old for slot, old in enumerate(self._slots)]

    def _require_profile(self, profile: int) -> None:
        _require(self._profile in (None, profile), "the profile changes between key frames")

    def _read_inter(self, bits: BitReader) -> _Picture | None:
        """Read references, size and interpolation filter of a frame that refers to others (6.2, 6.2.5, 6.2.7).

        Returns None for a frame that refers to pictures before the first key frame: files may begin there.
        """
        references = []
        for _ in range(_REFERENCES):
            if (reference := self._slots[bits.u(3)]) is None:
                return None
            references.append(reference)
            bits.skip(1)
        same = next((reference for reference in references if bits.flag()), None)
        size = _read_size(bits) if same is None else same[:2]
        _skip_render_size(bits)
        bits.skip(1)
        if not bits.flag():
            bits.skip(2)
        picture = _Picture(*size, self._samples)
        _require(any(_scales(picture, reference) for reference in references), "no reference has a valid size")
        _require(all(reference.samples == self._samples for reference in references), "a reference has other samples")
        return picture


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise BitstreamError(f"VP9 frame header: {what}")


def _read_colours(bits: BitReader, profile: int) -> tuple[int, int, int]:
    """Read color_config (6.2.2); return bit depth and horizontal and vertical subsampling."""
    depth = 8 if profile < 2 else 12 if bits.flag() else 10
    odd = profile & 1
    if bits.u(3) == _SRGB:
        _require(odd == 1, "sRGB in a profile of 4:2:0")
        horizontal = vertical = 0
    else:
        bits.skip(1)
        horizontal, vertical = (bits.u(1), bits.u(1)) if odd else (1, 1)
        _require(not odd or not horizontal or not vertical, "4:2:0 in a profile of other formats")
    _require(not odd or not bits.flag(), "a reserved bit is set")
    return depth, horizontal, vertical


def _read_size(bits: BitReader) -> tuple[int, int]:
    """Read frame_size (6.2.3)."""
    return bits.u(16) + 1, bits.u(16) + 1


def _skip_render_size(bits: BitReader) -> None:
    """Skip render_size (6.2.4)."""
    if bits.flag():
        bits.skip(32)


def _scales(picture: _Picture, reference: _Picture) -> bool:
    """Return whether a picture may refer to another one of that size (7.2.5)."""
    return all(
        _RATIO_DOWN * own >= other and own <= _RATIO_UP * other
        for own, other in zip(picture[:2], reference[:2], strict=True)
    )


def _skip_filter_and_quantizer(bits: BitReader) -> None:
    """Skip loop_filter_params and quantization_params (6.2.8, 6.2.9)."""
    bits.skip(9)
    if bits.flag() and bits.flag():
        for _ in range(6):
            if bits.flag():
                bits.skip(7)
    bits.skip(8)
    for _ in range(3):
        if bits.flag():
            bits.skip(5)


def _skip_segmentation(bits: BitReader) -> None:
    """Skip segmentation_params (6.2.11)."""
    if not bits.flag():
        return
    if bits.flag():
        _skip_probabilities(bits, 7)
        if bits.flag():
            _skip_probabilities(bits, 3)
    if bits.flag():
        bits.skip(1)
        for _ in range(_SEGMENTS):
            for value, sign in _SEGMENT_FEATURES:
                if bits.flag():
                    bits.skip(value + sign)


def _skip_probabilities(bits: BitReader, count: int) -> None:
    for _ in range(count):
        if bits.flag():
            bits.skip(8)


def _read_tiles(bits: BitReader, width: int) -> int:
    """Read tile_info (6.2.13); return the number of tiles."""
    superblocks = (width + 63) // 64
    columns = most = 0
    while _MOST_TILE << columns < superblocks:
        columns += 1
    while superblocks >> most + 1 >= _LEAST_TILE:
        most += 1
    while columns < most and bits.flag():
        columns += 1
    rows = bits.u(1)
    if rows:
        rows += bits.u(1)
    return 1 << columns + rows


def _check_parts(read: Peek, at: int, end: int, header: int, tiles: int) -> None:
    """Check that the compressed header and the tiles fill the rest of the frame and have their marker bit (6.4, 9.2.1).

    Args:
        read: reads the packet.
        at: begin of the compressed header.
        end: of the frame.
        header: bytes of the compressed header.
        tiles: number of tiles; before each but the last stand the bytes that it has.
    """
    _check_marker(read, at, end, header)
    at += header
    for _ in range(tiles - 1):
        length = int.from_bytes(read(at, _TILE_SIZE), "big")
        at += _TILE_SIZE
        _check_marker(read, at, end, length)
        at += length
    _check_marker(read, at, end, end - at)


def _check_marker(read: Peek, at: int, end: int, length: int) -> None:
    _require(0 < length <= end - at, "a part ends after the frame")
    first: Sequence[int] = read(at, 1)
    _require(len(first) == 1 and first[0] < 0x80, "a marker bit is set")
