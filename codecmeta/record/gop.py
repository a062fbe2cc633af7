"""Groups of pictures (GoPs) in a packet table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PacketSizeKind = Literal["mean", "total", "packet", "interval"]


@dataclass(frozen=True, kw_only=True)
class Gop:
    """Packets from one that starts a GoP to the next, in decode order.

    Attributes:
        start: index of its first packet.
        packets: number of packets.
        bytes: sum of their sizes.
    """

    start: int
    packets: int
    bytes: int


def gop_starts(key: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first packet of each GoP, int64 (G,). Packets before the first key packet form a GoP of their own."""
    starts = np.flatnonzero(key).astype(np.int64)
    if key.size and (starts.size == 0 or starts[0] != 0):
        starts = np.concatenate([np.zeros(1, np.int64), starts])
    return starts


def split_gops(size: NDArray[np.uint32], key: NDArray[np.bool_]) -> tuple[Gop, ...]:
    """Split the packets of a stream into GoPs.

    Args:
        size: bytes of each packet in decode order, uint32 (P,).
        key: whether a packet starts a GoP, bool (P,).
    """
    starts = gop_starts(key)
    if starts.size == 0:
        return ()
    counts = np.diff(np.append(starts, size.size))
    totals = np.add.reduceat(size.astype(np.int64), starts)
    return tuple(
        Gop(start=start, packets=count, bytes=total)
        for start, count, total in zip(starts.tolist(), counts.tolist(), totals.tolist(), strict=True)
    )


def shown_packet_size(size: NDArray[np.uint32], shown: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return the bytes per shown picture.

    A packet that shows no picture counts towards the next one in decode order that does, for which it was sent: a
    reference-only frame of VP8, the frames of a split superframe. After the last shown picture it counts towards that.

    Args:
        size: bytes of each packet in decode order, uint32 (P,).
        shown: whether a packet shows a picture, bool (P,); None assumes that all do.

    Returns:
        int64 (P,), 0 for packets that show none. The sum equals that of the sizes, unless no packet shows a picture.
    """
    own = size.astype(np.int64)
    if shown is None or not shown.any():
        return own
    places = np.flatnonzero(shown)
    served = places[np.minimum(np.searchsorted(places, np.arange(size.size)), places.size - 1)]
    total = np.zeros_like(own)
    np.add.at(total, served, own)
    return total


def frame_packet_size(
    size: NDArray[np.uint32],
    key: NDArray[np.bool_],
    frame_packet: NDArray[np.int32],
    *,
    shown: NDArray[np.bool_] | None = None,
    kind: PacketSizeKind = "mean",
) -> NDArray[np.float64]:
    """Return MeToM's c_t for each sampled frame, in bytes.

    Args:
        size: bytes of each packet in decode order, uint32 (P,).
        key: whether a packet starts a GoP, bool (P,).
        frame_packet: packet of each sampled frame, int32 (T,).
        shown: whether a packet shows a picture, bool (P,); those that show none count towards the next one that does
            (`shown_packet_size`). None assumes that all show one.
        kind: `mean` is the average packet size of the frame's GoP (the paper's c_t), `total` the bytes of that
            GoP, `packet` the frame's own packet, `interval` the average size of the packets after the previous sampled
            frame's up to and including this frame's, in decode order.

    Returns:
        float64 (T,).

    Raises:
        ValueError: `kind` is none of these.
    """
    sizes = shown_packet_size(size, shown).astype(np.float64)
    pictures = np.ones(size.size, np.int64) if shown is None else shown.astype(np.int64)
    if kind == "packet":
        return sizes[frame_packet]
    if kind == "interval":
        ends = np.maximum.accumulate(frame_packet.astype(np.int64)) + 1
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: ends.size]
        total = np.concatenate([np.zeros(1), np.cumsum(sizes)])
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(pictures)])
        count = before[ends] - before[begins]
        mean = (total[ends] - total[begins]) / np.maximum(count, 1)
        # a picture that is decoded before the previous sampled one has no interval of its own
        return np.where(count > 0, mean, sizes[frame_packet])
    if kind not in ("mean", "total"):
        raise ValueError(f"unknown kind {kind!r}; choose from mean, total, packet, interval")
    starts = gop_starts(key)
    totals = np.add.reduceat(size.astype(np.float64), starts) if starts.size else np.zeros(0)
    gop = np.searchsorted(starts, frame_packet, side="right") - 1
    if kind == "total":
        return totals[gop]
    counts = np.add.reduceat(pictures, starts) if starts.size else np.zeros(0)
    return (totals / np.maximum(counts, 1))[gop]
