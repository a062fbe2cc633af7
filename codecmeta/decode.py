"""Pictures and side data of chosen frames, decoded from the nearest key frame, one thread.

FFmpeg's export of vectors and quantisers races under frame threading, so decoding is always serial; videos are what
runs in parallel. A picture is tied to its packet by an opaque tag that libav carries along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
from av.stream import Discard
from av.video.stream import VideoStream
from numpy.typing import NDArray

from codecmeta.container import MAX_PIXELS, PacketTable, Video
from codecmeta.errors import SourceError

_TYPES = {1: "I", 2: "P", 3: "B"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture and the packet it came from."""

    packet: int
    frame: av.VideoFrame

    @property
    def type(self) -> str:
        """I, P, B, or ? for anything else."""
        return _TYPES.get(int(self.frame.pict_type), "?")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Packets that are decoded in one go, in decode order.

    Attributes:
        start: the key packet where decoding begins.
        stop: one past the last packet that is needed.
        targets: packets of the wanted frames, rising.
    """

    start: int
    stop: int
    targets: tuple[int, ...]


def plan_runs(packets: PacketTable, targets: Iterable[int], *, seekable: bool) -> list[Run]:
    """Cover the targets with as little decoding as possible.

    A target needs the packets from the key packet before it; a picture that is shown before that key packet (an open
    GoP) needs the GoP before, too. Targets whose stretches meet share a run.

    Args:
        packets: the packet table.
        targets: packets of the wanted frames.
        seekable: False decodes from the first key packet in a single run.
    """
    keys = np.flatnonzero(packets.key)
    runs: list[Run] = []
    for target in sorted(set(targets)):
        place = int(np.searchsorted(keys, target, side="right")) - 1
        if place < 0:
            raise SourceError("no_key_frame", f"packet {target} comes before the first key frame")
        if place > 0 and target != keys[place] and packets.pts[target] < packets.pts[keys[place]]:
            place -= 1
        start = int(keys[place]) if seekable else int(keys[0])
        if runs and start < runs[-1].stop:
            runs[-1] = Run(start=runs[-1].start, stop=target + 1, targets=(*runs[-1].targets, target))
        else:
            runs.append(Run(start=start, stop=target + 1, targets=(target,)))
    return runs


class Decoder:
    """Decodes runs of packets of one opened video.

    Attributes:
        errors: packets that the decoder refused.
        corrupt: pictures that it marked as corrupt.
    """

    def __init__(self, video: Video, packets: PacketTable, *, vectors: bool = False, quantisers: bool = False) -> None:
        self._video = video
        self._packets = packets
        self.errors = 0
        self.corrupt = 0
        exports = ["mvs"] * vectors + ["venc_params"] * quantisers
        self._options = {"max_pixels": str(MAX_PIXELS)}
        if exports:
            self._options["export_side_data"] = "+".join(exports)
        self._prepared: VideoStream | None = None
        self._feed: Iterator[tuple[int, av.Packet[Any]]] | None = None
        self._next = -1

    def _prepare(self) -> None:
        stream = self._video.stream
        if stream is self._prepared:
            stream.codec_context.flush_buffers()
            return
        context = stream.codec_context
        context.thread_count = 1
        context.thread_type = "NONE"
        context.options = self._options
        context.copy_opaque = True
        for other in stream.container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        self._prepared = stream

    @property
    def seekable(self) -> bool:
        """Whether the container can go to a key packet directly."""
        return bool((self._packets.dts[self._packets.key] != np.iinfo(np.int64).min).any())

    def decode(self, run: Run, *, every: bool = False) -> Iterator[Picture]:
        """The pictures of a run in presentation order.

        Pictures that nothing refers to are skipped unless they are targets.

        Args:
            run: what to decode.
            every: skip nothing.

        Raises:
            SourceError: a picture has another size than the header says.
        """
        wanted = set(run.targets)
        self._go_to(run.start)
        self._prepare()
        context = self._video.stream.codec_context
        while self._feed is not None:
            number, packet = next(self._feed, (-1, None))
            if packet is None:
                self._feed = None
                break
            self._next = number + 1
            packet.opaque = number
            context.skip_frame = "DEFAULT" if every or number in wanted else "NONREF"
            yield from self._decode(packet)
            if number + 1 >= run.stop:
                break
        yield from self._decode(None)

    def _decode(self, packet: av.Packet[Any] | None) -> Iterator[Picture]:
        context = self._video.stream.codec_context
        try:
            frames = context.decode(packet)
        except av.FFmpegError:
            self.errors += 1
            return
        for frame in frames:
            if frame.opaque is None:
                continue
            if (frame.width, frame.height) != (self._video.width, self._video.height):
                sizes = f"{frame.width}x{frame.height} in a stream of {self._video.width}x{self._video.height}"
                raise SourceError("varying_geometry", f"a picture of {sizes}")
            self.corrupt += frame.is_corrupt
            yield Picture(packet=int(cast(int, frame.opaque)), frame=frame)

    def _go_to(self, start: int) -> None:
        """Make `start` the next packet of the feed."""
        if self._feed is None or not self._next <= start <= self._next + _READ_AHEAD:
            self._feed = None
            if start > 0 and self.seekable:
                self._seek(start)
            if self._feed is None:
                self._video.rewind()
                self._feed = self._number(0)
                self._next = 0
        while self._next < start:
            number, _ = next(self._feed, (-1, None))
            if number < 0:
                self._feed = None
                return
            self._next = number + 1

    def _seek(self, start: int) -> None:
        """Try to begin the feed at or shortly before `start`; leave it None where that fails."""
        stamp = int(self._packets.dts[start])
        if stamp == np.iinfo(np.int64).min:
            stamp = int(self._packets.pts[start])
        try:
            self._video.container.seek(stamp, stream=self._video.stream, backward=True)
        except av.FFmpegError:
            return
        found = next(self._demux(), None)
        if found is None:
            return
        number = self._identify(found)
        if number is None or number > start:
            return
        self._video.container.seek(stamp, stream=self._video.stream, backward=True)
        self._feed = self._number(number)
        self._next = number

    def _identify(self, packet: av.Packet[Any]) -> int | None:
        table = self._packets
        same = table.size == packet.size
        if packet.dts is not None:
            same &= table.dts == packet.dts
        if packet.pts is not None:
            same &= table.pts == packet.pts
        places = np.flatnonzero(same)
        return int(places[0]) if places.size == 1 else None

    def _demux(self) -> Iterator[av.Packet[Any]]:
        for packet in self._video.container.demux(self._video.stream):
            if packet.size:
                yield packet

    def _number(self, first: int) -> Iterator[tuple[int, av.Packet[Any]]]:
        limit = self._packets.size.size
        for number, packet in enumerate(self._demux(), first):
            if number >= limit or packet.size != self._packets.size[number]:
                raise SourceError("changed_while_reading", f"packet {number} is not what it was at first")
            yield number, packet


_READ_AHEAD = 32
"""Packets that are read over rather than sought over."""


def presentation_order(video: Video, packets: PacketTable) -> NDArray[np.int64]:
    """Packets in the order in which the decoder shows them, by decoding the whole stream. int64 (F,)."""
    decoder = Decoder(video, packets)
    first = int(np.flatnonzero(packets.key)[0])
    count = packets.size.size
    whole = Run(start=first, stop=count, targets=())
    return np.array([picture.packet for picture in decoder.decode(whole, every=True)], np.int64)


def to_rgb(frame: av.VideoFrame, *, short_side: int, rotation: int) -> NDArray[np.uint8]:
    """8-bit RGB in display orientation, the short side scaled down to `short_side`, never up.

    Returns:
        uint8 (h, w, 3).
    """
    width, height = scaled_size(frame.width, frame.height, short_side=short_side)
    image = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, rotation // 90 % 4))


def scaled_size(width: int, height: int, *, short_side: int) -> tuple[int, int]:
    """Width and height after the short side has become `short_side`, the aspect kept to the nearest pixel."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    return max(1, round(width * short_side / short)), max(1, round(height * short_side / short))
