"""Which pictures a picture may be predicted from, as far as packets and display order tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codecmeta.compensation import FUTURE, PAST


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Display positions of the candidate references of one picture, nearest first."""

    past: tuple[int, ...]
    future: tuple[int, ...]


def candidates(
    decode_index: Sequence[int],
    is_reference: Sequence[bool],
    current: int,
    *,
    past: int = PAST,
    future: int = FUTURE,
) -> Candidates:
    """Reference pictures nearest to ``current`` in display order that were decoded before it.

    Args:
        decode_index: per picture in display order, its place in decode order.
        is_reference: likewise, whether other pictures may refer to it.
        current: display position of the picture to predict.
        past: most candidates shown before it.
        future: most candidates shown after it.
    """
    sides: tuple[list[int], list[int]] = ([], [])
    for found, positions, most in (
        (sides[0], range(current - 1, -1, -1), past),
        (sides[1], range(current + 1, len(decode_index)), future),
    ):
        for position in positions:
            if len(found) == most:
                break
            if is_reference[position] and decode_index[position] < decode_index[current]:
                found.append(position)
    return Candidates(past=tuple(sides[0]), future=tuple(sides[1]))


def h264_is_reference(packet: bytes, extradata: bytes | None) -> bool | None:
    """Whether nal_ref_idc of the first coded slice is above 0 (Rec. ITU-T H.264, 7.4.1).

    Args:
        packet: bytes of one packet, length-prefixed or Annex B.
        extradata: the decoder's; a first byte of 1 means length-prefixed (ISO/IEC 14496-15, avcC).

    Returns:
        None when no coded slice is found.
    """
    prefixed = extradata is not None and len(extradata) >= 7 and extradata[0] == 1
    at = 0
    if prefixed and extradata is not None:
        size = (extradata[4] & 3) + 1
        while at + size < len(packet):
            length = int.from_bytes(packet[at : at + size], "big")
            header = packet[at + size]
            if header & 31 in (1, 2, 5):
                return header >> 5 & 3 > 0
            at += size + max(length, 1)
        return None
    while (at := packet.find(b"\0\0\1", at)) >= 0 and at + 3 < len(packet):
        header = packet[at + 3]
        if header & 31 in (1, 2, 5):
            return header >> 5 & 3 > 0
        at += 3
    return None
