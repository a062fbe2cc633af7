"""Groups of pictures (GoPs) in a packet table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PacketSizeKind = Literal["mean", "total", "packet", "interval"]


@dataclass(frozen=True, kw_only=True)
class Gop:
    """A run of packets from one that starts a GoP to the next, in decode order.

    Attributes:
        start: index of its first packet.
        packets: number of packets.
        bytes: sum of their sizes.
    """

    start: int
    packets: int
    bytes: int


def gop_starts(key: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First packet of each GoP, int64 (G,). Packets before the first key packet form a GoP of their own."""
    starts = np.flatnonzero(key).astype(np.int64)
    if key.size and (starts.size == 0 or starts[0] != 0):
        starts = np.concatenate([np.zeros(1, np.int64), starts])
    return starts


def split_gops(size: NDArray[np.uint32], key: NDArray[np.bool_]) -> tuple[Gop, ...]:
    """The GoPs of a stream.

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


def frame_packet_size(
    size: NDArray[np.uint32],
    key: NDArray[np.bool_],
    frame_packet: NDArray[np.int32],
    *,
    kind: PacketSizeKind = "mean",
) -> NDArray[np.float64]:
    """MeToM's c_t for each sampled frame, in bytes.

    Args:
        size: bytes of each packet in decode order, uint32 (P,).
        key: whether a packet starts a GoP, bool (P,).
        frame_packet: packet of each sampled frame, int32 (T,).
        kind: `mean` is the average packet size of the frame's GoP (the paper's c_t), `total` the bytes of that
            GoP, `packet` the frame's own packet, `interval` the average size of the packets that come after
            the previous sampled frame's, up to and including this frame's, in decode order.

    Returns:
        float64 (T,).

    Raises:
        ValueError: another kind.
    """
    sizes = size.astype(np.float64)
    if kind == "packet":
        return sizes[frame_packet]
    if kind == "interval":
        ends = np.maximum.accumulate(frame_packet.astype(np.int64)) + 1
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: ends.size]
        total = np.concatenate([np.zeros(1), np.cumsum(sizes)])
        count = ends - begins
        mean = (total[ends] - total[begins]) / np.maximum(count, 1)
        # a picture that is decoded before the previous sampled one has no interval of its own
        return np.where(count > 0, mean, sizes[frame_packet])
    if kind not in ("mean", "total"):
        raise ValueError(f"kind is {kind!r}; it must be 'mean', 'total', 'packet' or 'interval'")
    starts = gop_starts(key)
    totals = np.add.reduceat(sizes, starts) if starts.size else np.zeros(0)
    gop = np.searchsorted(starts, frame_packet, side="right") - 1
    if kind == "total":
        return totals[gop]
    counts = np.diff(np.append(starts, size.size))
    return (totals / counts)[gop]
