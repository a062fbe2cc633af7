"""Timeline of a video: its frames in presentation order, joined to their packets by time stamp, never by position."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.packets import PacketTable, are_distinct
from codecmeta.errors import SourceError
from codecmeta.record.meta import MISSING

_MAX_STAMP = 1 << 52
"""Largest time stamp that is trusted where others are not, so that float64 holds it exactly."""

_MAX_TICKS = 1 << 36
"""Longest frame duration, so that the time of the last possible frame fits 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Frames in presentation order, F of them.

    Attributes:
        packet: int64 (F,), packet of each frame.
        pts: int64 (F,), strictly increasing.
        rank: int64 (P,), index of every packet's picture in presentation order, shown or not; -1 where unknown.
        synthetic: the stream has no usable time stamps; pts count frames at the nominal rate, and the order is the
            decoder's.
        mended: number of frames whose time stamp is missing, repeated or out of order, and was interpolated.
        unplaced: packets of shown pictures for which the decoder that determined the order returned no picture.
        errors: number of packets that this decoder refused.
        corrupt: number of pictures that it marked as corrupt.
        leading: number of pictures before the first key packet, or leading it, which no decoder can show.
    """

    packet: NDArray[np.int64]
    pts: NDArray[np.int64]
    rank: NDArray[np.int64]
    synthetic: bool
    leading: int
    mended: int = 0
    unplaced: int = 0
    errors: int = 0
    corrupt: int = 0


def has_usable_pts(packets: PacketTable, *, reorders: bool = False) -> bool:
    """Return whether every shown packet has a presentation time of its own.

    AVI and ASF have one stamp per packet. Where libav derives both times from it, pts - dts is constant, and a stream
    that reorders its pictures has no presentation times.

    Args:
        packets: the packet table.
        reorders: whether the decoder shows pictures in another order than decode order.
    """
    pts, dts = packets.pts[packets.shown], packets.dts[packets.shown]
    if (pts == MISSING).any() or not are_distinct(pts):
        return False
    return not (reorders and pts.size > 1 and (dts != MISSING).all() and np.unique(pts - dts).size == 1)


def from_pts(packets: PacketTable) -> Timeline:
    """Order the shown packets by pts.

    Packets before the first key packet, and pictures that follow it in the stream but are shown before it, refer to
    pictures that are not in the file.

    Raises:
        SourceError: no packet is shown.
    """
    first = int(np.flatnonzero(packets.key)[0])
    decodable = packets.shown.copy()
    decodable[:first] = False
    leading = (packets.pts < packets.pts[first]) & packets.shown
    leading[first] = False
    # only before the next key packet: later pictures can be shown early too, but refer to pictures after `first`
    later = np.flatnonzero(packets.key)[1:2]
    leading[int(later[0]) if later.size else leading.size :] = False
    leading[:first] = packets.shown[:first]
    decodable &= ~leading
    shown = np.flatnonzero(decodable)
    if shown.size == 0:
        raise SourceError("no_frames", "no packet of the video stream is shown")
    order = shown[np.argsort(packets.pts[shown], kind="stable")]
    return Timeline(
        packet=order,
        pts=packets.pts[order],
        rank=_ranks(np.argsort(packets.pts, kind="stable"), packets.pts.size),
        synthetic=False,
        leading=int(np.count_nonzero(leading)),
    )


def mend_pts(packets: PacketTable, order: NDArray[np.int64]) -> Timeline | None:
    """Order frames of which only a few time stamps are wrong.

    A largest set of stamps that rise along the order is kept; the others are spaced evenly between them.

    Args:
        packets: the packet table.
        order: packets of the frames in presentation order, int64 (F,), each once.

    Returns:
        None where more than a tenth of the stamps (in a short video: more than one) are unusable, or the neighbours
        leave no room.
    """
    known = packets.pts[order]
    usable = np.flatnonzero((known > -_MAX_STAMP) & (known < _MAX_STAMP))
    if not are_distinct(order):
        return None
    kept = usable[_longest_rise(known[usable].tolist())]
    if kept.size < 2 or order.size - kept.size > max(1, order.size // 10):
        return None
    stamps, places = known[kept].astype(np.float64), np.arange(order.size)
    step = float(np.median(np.diff(stamps) / np.diff(kept)))
    before, after = stamps[0] + (places - kept[0]) * step, stamps[-1] + (places - kept[-1]) * step
    laid = np.interp(places, kept, stamps)
    laid = np.where(places < kept[0], before, np.where(places > kept[-1], after, laid))
    pts = np.rint(laid).astype(np.int64)
    pts[kept] = known[kept]
    if (np.diff(pts) <= 0).any():
        return None
    table = packets.pts.copy()
    table[order] = pts
    # a packet that gave no picture has no rank among the others
    shown = packets.shown & np.isin(np.arange(table.size), order)
    timeline = from_pts(replace(packets, pts=table, shown=shown))
    return replace(timeline, mended=order.size - kept.size)


def _longest_rise(values: list[int]) -> list[int]:
    """Return the indices of a longest strictly rising subsequence, the earlier of equal values first."""
    tails: list[int] = []
    lasts: list[int] = []
    before: list[int] = []
    for place, value in enumerate(values):
        slot = bisect_left(tails, value)
        before.append(lasts[slot - 1] if slot else -1)
        if slot == len(tails):
            tails.append(value)
            lasts.append(place)
        elif value < tails[slot]:
            tails[slot], lasts[slot] = value, place
    rise: list[int] = []
    place = lasts[-1] if lasts else -1
    while place >= 0:
        rise.append(place)
        place = before[place]
    return rise[::-1]


def from_decoder(order: NDArray[np.int64], *, packets: int, ticks: int) -> Timeline:
    """Take the order in which the decoder output the frames.

    Args:
        order: packet of each frame as decoded, int64 (F,); of a packet that gives several, the first is taken.
        packets: number of packets.
        ticks: length of a frame in units of the time base.

    Raises:
        SourceError: the decoder output no frame.
    """
    if order.size == 0:
        raise SourceError("no_frames", "the decoder outputs no frame")
    first = np.unique(order, return_index=True)[1]
    order = order[np.sort(first)]
    pts = np.arange(order.size, dtype=np.int64) * min(max(ticks, 1), _MAX_TICKS)
    return Timeline(packet=order, pts=pts, rank=_ranks(order, packets), synthetic=True, leading=0)


def _ranks(order: NDArray[np.int64], packets: int) -> NDArray[np.int64]:
    rank = np.full(packets, -1, np.int64)
    rank[order] = np.arange(order.size)
    return rank
