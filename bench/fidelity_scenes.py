"""Pictures of an H.264 clip, spread over it and over picture types, with what a stand-in may look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import PacketTable
from codecmeta.container.timeline import Timeline, from_decoder, from_pts, has_usable_pts
from codecmeta.container.video import Video
from codecmeta.decoding.decoder import Decoder, plan_runs, presentation_order
from codecmeta.entropy.bits import BitReader
from codecmeta.errors import SourceError
from codecmeta.h264 import nal
from codecmeta.h264.picture import PictureResidual
from codecmeta.h264.reader import ResidualReader
from codecmeta.residual.reference_store import Decoded, ReferenceStore, in_decode_order, is_reference

TYPES = "IPB"
_SLICE_TYPES = "PBIPI"
"""Type of a picture whose slices are P, B, I, SP or SI, by slice_type % 5 (Table 7-6)."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture and the decoded pictures around it.

    Attributes:
        current: the picture itself, at its coded size, with vectors, quantisers and packet.
        past: reference pictures shown before it, nearest first.
        future: reference pictures shown after it, likewise.
        previous: the picture shown before it; None for the first one.
        residual: what its own packet says.
    """

    current: Decoded
    past: Sequence[Decoded]
    future: Sequence[Decoded]
    previous: Decoded | None
    residual: PictureResidual


def order_frames(video: Video, packets: PacketTable) -> Timeline:
    """Frames in presentation order, by time stamp or, without usable ones, by decoding."""
    if has_usable_pts(packets):
        return from_pts(packets)
    return from_decoder(presentation_order(video, packets).packet, packets=packets.size.size, ticks=1)


def picture_type(payload: bytes, length_size: int) -> str:
    """B if any slice is bi-predictive, else P if any is predictive, else I (Rec. ITU-T H.264, 7.4.3)."""
    found = set()
    for unit in nal.split(payload, length_size):
        if unit.kind in (nal.SLICE, nal.IDR_SLICE):
            bits = BitReader(unit.rbsp(), "a slice header")
            bits.ue(name="first_mb_in_slice")
            found.add(_SLICE_TYPES[bits.ue(9, "slice_type") % 5])
    return next((kind for kind in "BP" if kind in found), "I")


def choose_pictures(video: Video, packets: PacketTable, timeline: Timeline, *, count: int) -> list[int]:
    """Packets of up to `count` pictures of each type, spread evenly over those of the type."""
    length_size, _ = nal.read_extradata(bytes(video.stream.codec_context.extradata or b""))
    shown = timeline.packet.tolist()
    kinds = {number: picture_type(payload, length_size) for number, payload in read_payloads(video, packets, shown)}
    chosen: list[int] = []
    for kind in TYPES:
        members = [number for number in shown if kinds[number] == kind]
        places = np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int)
        chosen += [members[place] for place in places]
    return sorted(chosen)


def read_scenes(
    video: Video, packets: PacketTable, timeline: Timeline, targets: Sequence[int], reader: ResidualReader
) -> Iterator[Scene]:
    """Decode the targets as extraction does, each with its references and its predecessor.

    Yields:
        The scenes of the targets, in no particular order.

    Raises:
        SourceError: a target or its predecessor is not decoded.
        BitstreamError: the packet of a target cannot be read.
    """
    frames = timeline.packet.tolist()
    place = {number: index for index, number in enumerate(frames)}
    before = {target: frames[place[target] - 1] if place[target] else None for target in targets}
    useful = {number for number in before.values() if number is not None}
    waiting: dict[int, tuple[Decoded, list[Decoded], list[Decoded]]] = {}
    held: dict[int, Decoded] = {}
    left = set(targets)
    decoder = Decoder(video, packets, vectors=True, quantisers=True, payloads=True, coded_size=True)
    for run in plan_runs(packets, timeline.rank, left | useful):
        store = ReferenceStore()
        for picture in in_decode_order(decoder.decode(run), timeline.rank):
            number = picture.packet
            reader.observe(picture.payload)
            decoded = Decoded(picture=picture, rank=int(timeline.rank[number]))
            if number in run.targets and number in before:
                waiting[number] = (decoded, *store.around(decoded.rank))
            if number in run.targets and number in useful:
                held[number] = decoded
            if is_reference(video, picture.payload, picture.type):
                store.add(decoded)
            for target in [t for t in waiting if before[t] is None or before[t] in held]:
                current, past, future = waiting.pop(target)
                left.discard(target)
                predecessor = before[target]
                previous = None if predecessor is None else held.pop(predecessor)
                residual = reader.read(current.picture.payload)
                yield Scene(current=current, past=past, future=future, previous=previous, residual=residual)
    if left:
        raise SourceError(
            "damaged", f"{len(left)} of {len(targets)} pictures are not decoded, packet {min(left)} first"
        )
