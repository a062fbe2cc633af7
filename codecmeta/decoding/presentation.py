"""Presentation order of a video's frames, from time stamps, or from the decoder where those are not usable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codecmeta.container.packets import PacketTable
from codecmeta.container.timeline import Timeline, from_decoder, from_pts, has_usable_pts, mend_pts
from codecmeta.container.video import Video
from codecmeta.decoding.decoder import presentation_order
from codecmeta.record.meta import MISSING


def order_frames(video: Video, packets: PacketTable) -> Timeline:
    """Arrange the frames of a video in presentation order.

    Time stamps are used where every frame has one of its own. A few that are missing or repeated are interpolated
    between their neighbours. Where most are useless, they are generated at the nominal rate. In both cases, streams
    that reorder their pictures are decoded entirely for their order.

    Raises:
        SourceError: the video has no frame.
    """
    reorders = bool(video.stream.codec_context.has_b_frames)
    if has_usable_pts(packets, reorders=reorders and _has_one_stamp(video)):
        return from_pts(packets)
    timeline = _order_by_decoder(video, packets, reorders=reorders)
    return replace(timeline, unplaced=_count_unplaced(packets, timeline))


def _order_by_decoder(video: Video, packets: PacketTable, *, reorders: bool) -> Timeline:
    order = presentation_order(video, packets) if reorders else None
    if not (reorders and _has_one_stamp(video)):
        mended = mend_pts(packets, np.flatnonzero(packets.shown) if order is None else order.packet)
        if mended is not None:
            return mended if order is None else replace(mended, errors=order.errors, corrupt=order.corrupt)
    ticks = _measured_ticks(packets)
    if ticks is None:
        base = video.stream.time_base
        ticks = round(1 / ((video.fps or 25.0) * base)) if base else 1
    order = presentation_order(video, packets) if order is None else order
    timeline = from_decoder(order.packet, packets=packets.size.size, ticks=ticks)
    return replace(timeline, errors=order.errors, corrupt=order.corrupt)


def _count_unplaced(packets: PacketTable, timeline: Timeline) -> int:
    """Count packets of shown pictures that are no frames, where the container gives their decode times."""
    first = int(np.flatnonzero(packets.key)[0])
    expected = packets.shown & (packets.dts != MISSING)
    expected[:first] = False
    expected &= (packets.pts == MISSING) | (packets.pts >= packets.pts[first])
    expected[timeline.packet] = False
    return int(np.count_nonzero(expected))


def _has_one_stamp(video: Video) -> bool:
    """Return whether the container has one time stamp per packet, that of decoding."""
    return video.container.format.name in ("avi", "asf")


def _measured_ticks(packets: PacketTable) -> int | None:
    """Measure the frame duration of a field-coded stream, whose fields containers count, from its few time stamps."""
    known = np.flatnonzero(packets.dts != MISSING)
    if not packets.second.any() or known.size < 2:
        return None
    return round(float(np.median(np.diff(packets.dts[known].astype(np.float64)) / np.diff(known))))
