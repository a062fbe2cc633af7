"""Rounding control of half-sample prediction, read from picture headers: MPEG-4 part 2 and H.263.

Encoders flip it from one P picture to the next so that rounding errors do not add up; a prediction made with the
wrong value is off by one in most interpolated samples.
"""

from __future__ import annotations

from dataclasses import dataclass

_HEADER = 512
"""Bytes of a header that are looked at, more than the longest one."""
P_VOP, S_VOP = 1, 3


@dataclass(frozen=True, kw_only=True)
class VideoObjectLayer:
    """What prediction needs from a video_object_layer (ISO/IEC 14496-2, 6.2.3).

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


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "big")
        self.left = 8 * len(data)

    def read(self, count: int) -> int:
        """The next ``count`` bits; zeros beyond the end raise EOFError."""
        if count > self.left:
            raise EOFError
        self.left -= count
        return (self.value >> self.left) & ((1 << count) - 1)


def _find(data: bytes, low: int, high: int) -> int:
    """Index after the first start code 00 00 01 low..high, or -1."""
    at = data.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(data):
        if low <= data[at + 3] <= high:
            return at + 4
        at = data.find(b"\0\0\1", at + 3)
    return -1


def video_object_layer(data: bytes) -> VideoObjectLayer | None:
    """Parse the first video_object_layer in a decoder's extradata or a packet; None where there is none."""
    at = _find(data, 0x20, 0x2F)
    if at < 0:
        return None
    bits = _Bits(data[at : at + _HEADER])
    try:
        return _layer(bits)
    except EOFError:
        return None


def _layer(bits: _Bits) -> VideoObjectLayer:
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


def rounding_type(packet: bytes, layer: VideoObjectLayer | None) -> int | None:
    """vop_rounding_type of the first video object plane in a packet (ISO/IEC 14496-2, 6.2.5).

    Args:
        packet: bytes of one packet.
        layer: the layer it belongs to, from extradata; a layer inside the packet goes before it.

    Returns:
        0 or 1; 0 for planes that carry none (I, B, not coded). None when the packet holds no readable plane
        or the layer is not known.
    """
    at = _find(packet, 0xB6, 0xB6)
    if at < 0:
        return None
    layer = video_object_layer(packet[:at]) or layer
    if layer is None or not layer.rectangular:
        return None
    bits = _Bits(packet[at : at + _HEADER])
    try:
        kind = bits.read(2)
        while bits.read(1):
            pass
        bits.read(2 + layer.time_increment_bits)
        coded = bits.read(1)
        has_rounding = kind == P_VOP or (kind == S_VOP and layer.sprite_enable == 2)
        return bits.read(1) if coded and has_rounding else 0
    except EOFError:
        return None


def h263_rounding_type(packet: bytes) -> int | None:
    """RTYPE of an H.263 picture (Rec. ITU-T H.263, 5.1.4.3); 0 without PLUSPTYPE, None without a picture header."""
    bits = _Bits(packet[:_HEADER])
    try:
        if bits.read(22) != 0x20:
            return None
        bits.read(13)  # temporal reference and the first five bits of PTYPE
        if bits.read(3) != 7:
            return 0
        if bits.read(3) == 1:
            bits.read(18)
        bits.read(5)
        return bits.read(1)
    except EOFError:
        return None
