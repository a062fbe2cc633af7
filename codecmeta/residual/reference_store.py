"""Decoded pictures that later ones may refer to, and pictures in decode order."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.video import Video
from codecmeta.decoding import side_data
from codecmeta.decoding.decoder import Picture
from codecmeta.errors import BitstreamError
from codecmeta.h264 import nal
from codecmeta.prediction.padded_reference import ReferenceSamples
from codecmeta.prediction.reference_selection import FUTURE, PAST
from codecmeta.record.cell_moments import CellMoments

MAX_REORDER = 16
"""Limit on pictures that a decoder holds back to put them in presentation order (Rec. ITU-T H.264, A.3.1)."""

KEPT = 8
"""Reference pictures that are kept, the last ones in decode order."""


@dataclass(kw_only=True)
class Decoded:
    """Decoded picture.

    Attributes:
        picture: the picture itself.
        rank: its index in presentation order.
        state: its carried state, if that is followed.
        room: samples of dropped pictures, `ReferenceStore.room`.
    """

    picture: Picture
    rank: int
    state: CellMoments | None = None
    room: list[ReferenceSamples] = field(default_factory=list)

    @cached_property
    def planes(self) -> side_data.Planes:
        """Its Y, Cb, Cr samples."""
        return side_data.planes(self.picture.frame)

    @cached_property
    def samples(self) -> ReferenceSamples:
        """The same samples for prediction."""
        views = side_data.views(self.picture.frame)
        return self.room.pop().replace(views) if self.room else ReferenceSamples(views)


class ReferenceStore:
    """Last reference pictures of a run.

    Attributes:
        room: samples of dropped pictures, to be overwritten.
    """

    def __init__(self) -> None:
        self._pictures: deque[Decoded] = deque()
        self.room: list[ReferenceSamples] = []

    def add(self, picture: Decoded) -> None:
        """Add a picture, and drop the one decoded longest ago."""
        self._pictures.append(picture)
        if len(self._pictures) > KEPT:
            forgotten = self._pictures.popleft()
            if "samples" in vars(forgotten):
                self.room.append(forgotten.samples)

    def around(self, rank: int) -> tuple[list[Decoded], list[Decoded]]:
        """Return pictures shown before and after a rank, nearest first, at most PAST and FUTURE."""
        past = sorted((p for p in self._pictures if p.rank < rank), key=lambda p: -p.rank)
        future = sorted((p for p in self._pictures if p.rank > rank), key=lambda p: p.rank)
        return past[:PAST], future[:FUTURE]


def is_reference(video: Video, payload: bytes, kind: str) -> bool:
    """Return whether later pictures may refer to the one of a packet, which is of type I, P or B."""
    if video.codec != "h264":
        return kind != "B"
    extradata = bytes(video.stream.codec_context.extradata or b"")
    length_size = (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0
    try:
        units = nal.split(payload, length_size, slice_bytes=1)
        return next((unit.ref_idc > 0 for unit in units if nal.SLICE <= unit.kind <= nal.IDR_SLICE), True)
    except BitstreamError:
        return True


def in_decode_order(pictures: Iterable[Picture], rank: NDArray[np.int64]) -> Iterator[Picture]:
    """Yield pictures in the order of their packets instead of presentation order, holding back as few as possible.

    A picture is passed on as soon as all packets before its own are shown, and at the latest after `MAX_REORDER`
    others.

    Args:
        pictures: in presentation order.
        rank: int64 (P,), index of every packet's picture in presentation order, -1 where unknown.
    """
    latest = np.maximum.accumulate(np.concatenate([[-1], rank[:-1]]))
    waiting: list[tuple[int, int, Picture]] = []
    for number, picture in enumerate(pictures):
        # one packet can hold two pictures (MPEG-4 packed B-frames): those keep their order
        heapq.heappush(waiting, (picture.packet, number, picture))
        shown = rank[picture.packet]
        while waiting and (latest[waiting[0][0]] <= shown or len(waiting) > MAX_REORDER):
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]
