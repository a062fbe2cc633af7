"""Rounding control of half-sample prediction, read from picture headers: MPEG-4 part 2 and H.263.

Encoders flip it from one P picture to the next so that rounding errors do not add up; a prediction made with the
wrong value is off by one in most interpolated samples.
"""

from __future__ import annotations

from codecmeta.container.mpeg4_headers import HEADER_BYTES, HeaderBits, VideoObjectLayer, video_object_plane


def rounding_type(packet: bytes, layer: VideoObjectLayer | None) -> int | None:
    """Return vop_rounding_type of the first video object plane in a packet (ISO/IEC 14496-2, 6.2.5).

    Args:
        packet: bytes of one packet.
        layer: the layer it belongs to, from extradata; a layer inside the packet takes precedence.

    Returns:
        0 or 1; 0 for planes that carry none (I, B, not coded). None when the packet holds no readable plane or the
        layer is unknown.
    """
    plane = video_object_plane(packet, layer)
    return None if plane is None else plane.rounding


def h263_rounding_type(packet: bytes) -> int | None:
    """Return RTYPE of an H.263 picture (Rec. ITU-T H.263, 5.1.4.3); 0 without PLUSPTYPE, None without a header."""
    bits = HeaderBits(packet[:HEADER_BYTES])
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
