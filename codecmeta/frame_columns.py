"""Columns of the sampled frames: which are requested, and how pictures and readings fill them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.packets import PacketTable
from codecmeta.container.timeline import Timeline
from codecmeta.container.video import Video
from codecmeta.decoding import side_data
from codecmeta.decoding.decoder import Picture
from codecmeta.decoding.rgb import crop, to_rgb
from codecmeta.errors import BitstreamError, SourceError
from codecmeta.frame_table import Column, FrameTable, Origin
from codecmeta.prediction.standards import STANDARDS
from codecmeta.record.cell_moments import CellMoments
from codecmeta.record.options import Options
from codecmeta.record.orientation import Orientation
from codecmeta.residual.carried import carried_energy
from codecmeta.residual.source import Evidence, Reading, ResidualSource, SourceName


@dataclass(frozen=True, kw_only=True)
class Request:
    """Opened video, and what is requested of it.

    Attributes:
        video: the video.
        packets: its packets.
        timeline: its frames in presentation order.
        options: what is requested.
        orientation: in which its pictures are displayed.
        block: luma samples per block side of the energy maps.
    """

    video: Video
    packets: PacketTable
    timeline: Timeline
    options: Options
    orientation: Orientation
    block: Literal[4, 8]

    @property
    def carries(self) -> bool:
        """Whether the energy that pictures carry is followed along their motion."""
        return "carried" in self.options.chosen_maps and self.video.codec in STANDARDS

    @property
    def sample_aspect(self) -> tuple[int, int] | None:
        """Width and height of a sample where frames are to have square pixels, else None."""
        return self.video.sample_aspect if self.options.square_pixels else None

    def rank(self, packet: int) -> int:
        """Return the index of a packet's picture in presentation order."""
        return int(self.timeline.rank[packet])


def list_not_asked(options: Options, codec: str, sources: Sequence[SourceName]) -> dict[Column, str]:
    """List the columns that are not requested, with the option that omits them.

    Args:
        options: what is requested.
        codec: of the video.
        sources: residual sources that will be tried.
    """
    absent: dict[Column, str] = {}
    if options.pixels is None:
        absent["frames"] = "not asked for (pixels none)"
    if not options.motion:
        absent["motion"] = "not asked for"
    if not options.qp:
        absent["qp"] = "not asked for"
    which = "residual none" if options.residual == "none" else "maps"
    of_residual: tuple[Column, ...] = ("residual", "mb_bits", "mb_type")
    maps: tuple[Column, ...] = ("innovation", "carried")
    unread = () if options.chosen_maps else of_residual
    for column in (*unread, *(name for name in maps if name not in options.chosen_maps)):
        absent[column] = f"not asked for ({which})"
    if options.chosen_maps and not sources:
        for column in (*of_residual, "innovation"):
            absent.setdefault(column, f"not asked for ({codec}: a proxy is made on request only, by residual proxy)")
    return absent


def read_residual(
    request: Request,
    table: FrameTable,
    sources: Sequence[ResidualSource],
    evidence: Evidence,
    *,
    packet: int,
    target: int | None,
) -> Reading | None:
    """Read the residual of a packet from the first source that has it; keep it if the packet is a target."""
    for source in sources:
        try:
            reading = source.read(evidence, block=request.block, energy=target is not None, cells=request.carries)
        except SourceError as error:
            if error.code not in ("bitstream", "no_signal"):
                raise
            if isinstance(error, BitstreamError) and error.unsupported is None:
                table.decoding.unreadable.add(packet)
            if target is not None:
                table.refuse(target, source.name, str(error))
            continue
        table.decoding.checked.add(packet)
        if target is not None:
            keep_reading(table, target, source.name, reading)
        return reading
    return None


def keep_picture(request: Request, table: FrameTable, picture: Picture, target: int | None) -> None:
    """Store the data that a decoded picture contains itself."""
    frame, video = picture.frame, request.video
    if target is None or table.holds(target, "picture"):
        return
    matrix = side_data.display_matrix(frame)
    if matrix is not None and Orientation.from_display_matrix(matrix) not in (request.orientation, None):
        table.decoding.turned_otherwise += 1
    table.hold(target, "picture", "decoder")
    table.types[target] = picture.type
    if table.is_unread(target, "motion"):
        vectors = picture.vectors
        if video.codec == "mpeg4" and picture.type == "B":
            table.mark_absent("motion", "mpeg4: the decoder exports no true motion vectors of B pictures", [target])
        elif vectors is not None or (video.codec in STANDARDS and not (picture.flushed and picture.type != "I")):
            table.hold_vectors(target, "decoder", vectors)
        elif video.codec in STANDARDS:
            reason = f"{video.codec}: the decoder exports no motion vectors of the last picture"
            table.mark_absent("motion", reason, [target])
    if table.is_unread(target, "qp") and not picture.repeats:
        exported = side_data.quantisers(frame, video.width, video.height)
        if exported is not None:
            # libavcodec counts H.264's from 0 at any bit depth, the standard's QPY begins below (7.4.2.1.1)
            offset = 6 * (frame.format.components[0].bits - 8) if video.codec == "h264" else 0
            table.hold(target, "qp", "decoder", exported - np.int8(offset))
    if request.options.pixels is not None:
        rgb = display_picture(
            picture,
            video,
            short_side=request.options.pixels,
            orientation=request.orientation,
            sample_aspect=request.sample_aspect,
        )
        table.hold(target, "frames", "decoder", rgb)


def display_picture(
    picture: Picture, video: Video, *, short_side: int, orientation: Orientation, sample_aspect: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Return a row of `frames`: a picture as it is displayed, uint8 (h, w, 3)."""
    shown = crop(picture.frame, width=video.width, height=video.height)
    return to_rgb(shown, short_side=short_side, orientation=orientation, sample_aspect=sample_aspect)


def keep_reading(table: FrameTable, target: int, origin: Origin, reading: Reading) -> None:
    """Store the residual of a row from a reading, and the other data of its source."""
    energy, maps = reading.energy, reading.maps
    if energy is not None:
        table.hold(target, "residual", origin, energy.power, energy.mean)
        table.hold(target, "innovation", origin, energy.energy, energy.range)
    if maps is not None:
        table.types[target] = maps.type
        table.hold(target, "mb_bits", origin, maps.mb_bits)
        table.hold(target, "mb_type", origin, maps.mb_type)
        table.hold(target, "qp", origin, maps.qp)
    if reading.vectors is not None:
        table.hold_vectors(target, origin, reading.vectors)


def keep_carried(request: Request, table: FrameTable, target: int, state: CellMoments, along: Origin) -> None:
    """Store what a row carries along motion of some origin."""
    luma, chroma = (request.video.height, request.video.width), request.video.chroma_size
    carried = carried_energy(state, luma=luma, chroma=chroma, block=request.block)
    table.hold(target, "carried", along, carried.energy, carried.range)


def close_columns(request: Request, table: FrameTable) -> None:
    """Record, for all that is still unread, which source did not provide it."""
    codec = request.video.codec
    table.mark_absent("picture", "the decoder gave no picture")
    table.mark_absent("frames", "the decoder gave no picture")
    if table.vectors:
        # this decoder exports vectors: pictures without any are predicted from no other picture
        for packet in (packet for packet in table.packets if table.holds(packet, "picture")):
            if table.is_unread(packet, "motion"):
                table.hold_vectors(packet, "decoder", None)
    table.mark_absent("motion", f"{codec}: the decoder exports no motion vectors")
    table.mark_absent("qp", f"{codec}: the decoder exports no quantisers")
    table.mark_absent("carried", f"{codec}: there are no motion vectors that can be followed")
    for column in ("mb_bits", "mb_type"):
        table.mark_absent(column, "read by the bitstream source only")
