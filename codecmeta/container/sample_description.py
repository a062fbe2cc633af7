"""Sample descriptions of an MP4/MOV track: codec, configuration, protection (ISO/IEC 14496-12, 8.5.2, 8.12)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from codecmeta.container.box import Box, child, children

_VISUAL_ENTRY = 78
"""Bytes of a VisualSampleEntry before its boxes (12.1.3.2)."""

_MOST = 1 << 10
_RECORDS = frozenset((b"avcC", b"hvcC", b"vvcC", b"av1C", b"vpcC", b"lhvC"))
_PROTECTED = {b"encv": "an encrypted sample entry", b"drmi": "FairPlay", b"encm": "an encrypted sample entry"}
# formats whose parameter sets are all in the sample entry (ISO/IEC 14496-15, 5.4.2.1, 8.4.1)
_OUT_OF_BAND = frozenset((b"avc1", b"avc2", b"hvc1", b"hvc2", b"dvh1", b"dva1", b"vvc1"))


@dataclass(frozen=True, kw_only=True)
class SampleDescription:
    """Sample entry of a video track.

    Attributes:
        format: its four-character code; for a protected entry, that of the original format.
        record: payload of its configuration box such as `avcC`, b"" without one.
        protection: the encryption scheme; None where samples are not encrypted.
        is_cut: whether a clean aperture leaves less than the whole picture (ISO/IEC 14496-12, 12.1.4).
    """

    format: bytes
    record: bytes
    protection: str | None
    is_cut: bool = False

    @property
    def forbids_sets(self) -> bool:
        """Whether samples must not contain parameter sets."""
        return self.format in _OUT_OF_BAND


def read_descriptions(moov: bytes, trak: Box) -> tuple[SampleDescription, ...]:
    """Read the sample descriptions of a track in the order of their index; return none where the box is damaged."""
    box = child(moov, trak, b"mdia", b"minf", b"stbl", b"stsd")
    if box is None or box.end - box.begin < 8:
        return ()
    (count,) = struct.unpack_from(">I", moov, box.begin + 4)
    entries = list(children(moov, box.begin + 8, box.end))
    if not 0 < count <= min(len(entries), _MOST):
        return ()
    return tuple(_read_entry(moov, entry) for entry in entries[:count])


def _read_entry(moov: bytes, entry: Box) -> SampleDescription:
    boxes = {box.type: box for box in children(moov, entry.begin + _VISUAL_ENTRY, entry.end)}
    record = next((moov[box.begin : box.end] for kind, box in boxes.items() if kind in _RECORDS), b"")
    protection, name = _PROTECTED.get(entry.type), entry.type
    if protection is not None and (scheme := boxes.get(b"sinf")) is not None:
        original, kind = child(moov, scheme, b"frma"), child(moov, scheme, b"schm")
        if original is not None:
            name = moov[original.begin : original.begin + 4]
        if kind is not None and kind.end - kind.begin >= 8:
            protection = moov[kind.begin + 4 : kind.begin + 8].decode("latin-1")
    return SampleDescription(
        format=name, record=record, protection=protection, is_cut=_has_aperture(moov, entry, boxes.get(b"clap"))
    )


def _has_aperture(moov: bytes, entry: Box, aperture: Box | None) -> bool:
    if aperture is None or aperture.end - aperture.begin < 32:
        return False
    width, height = struct.unpack_from(">HH", moov, entry.begin + 24)
    wide, per_wide, tall, per_tall = struct.unpack_from(">4I", moov, aperture.begin)
    return bool(wide < width * per_wide or tall < height * per_tall)
