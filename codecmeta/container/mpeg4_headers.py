"""Headers of MPEG-4 part 2 streams: the video object layer, and the first fields of a video object plane."""

from __future__ import annotations

from dataclasses import dataclass

HEADER_BYTES = 512
"""Bytes of a header that are examined, more than the longest one has."""
MOST_UNCODED = 64
"""Bytes of the longest packet that may contain only headers."""

P_VOP, S_VOP = 1, 3


@dataclass(frozen=True, kw_only=True)
class VideoObjectLayer:
    """Fields of a video_object_layer that prediction needs (ISO/IEC 14496-2, 6.2.3).

    Attributes:
        time_increment_bits: length of vop_time_increment.
        quarter_sample: vectors have quarter-sample accuracy (standard "mpeg4_qpel").
        interlaced: macroblocks may use field prediction, which FFmpeg's vectors do not describe.
        sprite_enable: 0 none, 1 static sprite, 2 global motion compensation.
        rectangular: the layer has no shape coding.
    """

    time_increment_bits: int
    quarter_sample: bool
    interlaced: bool
    sprite_enable: int
    rectangular: bool


class HeaderBits:
    """Bit reader of a header."""

    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "big")
        self.left = 8 * len(data)

    def read(self, count: int) -> int:
        """Read the next `count` bits; raise EOFError beyond the end."""
        if count > self.left:
            raise EOFError
        self.left -= count
        return (self.value >> self.left) & ((1 << count) - 1)


def _find(data: bytes, low: int, high: int) -> int:
    """Return the index after the first start code 00 00 01 low..high, or -1."""
    at = data.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(data):
        if low <= data[at + 3] <= high:
            return at + 4
        at = data.find(b"\0\0\1", at + 3)
    return -1


def video_object_layer(data: bytes) -> VideoObjectLayer | None:
    """Parse the first video_object_layer in a decoder's extradata or a packet; return None where there is none."""
    at = _find(data, 0x20, 0x2F)
    if at < 0:
        return None
    bits = HeaderBits(data[at : at + HEADER_BYTES])
    try:
        return _layer(bits)
    except EOFError:
        return None


def _layer(bits: HeaderBits) -> VideoObjectLayer:
    bits.read(9)  # random_accessible_vol, video_object_type_indication
    version = 1
    if bits.read(1):
        version = bits.read(4)
        bits.read(3)
    if bits.read(4) == 15:
        bits.read(16)
    if bits.read(1):  # vol_control_parameters
        bits.read(3)
        if bits.read(1):
            bits.read(79)
    shape = bits.read(2)
    if shape == 3 and version != 1:
        bits.read(4)
    bits.read(1)
    resolution = bits.read(16)
    increment_bits = max(1, (resolution - 1).bit_length())
    bits.read(1)
    if bits.read(1):
        bits.read(increment_bits)
    if shape == 0:
        bits.read(29)  # width and height between markers
    interlaced = bits.read(1)
    bits.read(1)
    sprite = bits.read(1 if version == 1 else 2)
    if sprite in (1, 2):
        if sprite == 1:
            bits.read(56)
        bits.read(9)
        if sprite == 1:
            bits.read(1)
    if version != 1 and shape != 0:
        bits.read(1)
    if bits.read(1):
        bits.read(8)
    if shape == 3:
        bits.read(3)
    if bits.read(1):  # quant_type: two optional matrices, each up to its first zero
        for _ in range(2):
            if bits.read(1):
                for _ in range(64):
                    if bits.read(8) == 0:
                        break
    quarter = bits.read(1) if version != 1 else 0
    return VideoObjectLayer(
        time_increment_bits=increment_bits,
        quarter_sample=bool(quarter),
        interlaced=bool(interlaced),
        sprite_enable=sprite,
        rectangular=shape == 0,
    )


@dataclass(frozen=True, kw_only=True)
class VideoObjectPlane:
    """First fields of a video_object_plane (ISO/IEC 14496-2, 6.2.5).

    Attributes:
        kind: vop_coding_type, 0 I, 1 P, 2 B, 3 S.
        coded: vop_coded; without it, the picture repeats the reference before it.
        rounding: vop_rounding_type, 0 where the plane carries none.
    """

    kind: int
    coded: bool
    rounding: int


def video_object_plane(packet: bytes, layer: VideoObjectLayer | None) -> VideoObjectPlane | None:
    """Parse the first video_object_plane in a packet.

    Args:
        packet: bytes of one packet.
        layer: the layer it belongs to, from extradata; a layer inside the packet takes precedence.

    Returns:
        None when the packet holds no readable plane or the layer is unknown.
    """
    at = _find(packet, 0xB6, 0xB6)
    if at < 0:
        return None
    layer = video_object_layer(packet[:at]) or layer
    if layer is None or not layer.rectangular:
        return None
    bits = HeaderBits(packet[at : at + HEADER_BYTES])
    try:
        kind = bits.read(2)
        while bits.read(1):
            pass
        bits.read(2 + layer.time_increment_bits)
        coded = bool(bits.read(1))
        has_rounding = coded and (kind == P_VOP or (kind == S_VOP and layer.sprite_enable == 2))
        return VideoObjectPlane(kind=kind, coded=coded, rounding=bits.read(1) if has_rounding else 0)
    except EOFError:
        return None
