"""Decoding of chosen frames from the nearest key frame, in one thread: pictures and side data.

FFmpeg's export of vectors and quantisers races under frame threading, so decoding is always serial; parallelism is
across videos. A picture is tied to its packet by an opaque tag that libav passes through.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from codecmeta.container import pyav
from codecmeta.container.mpeg4_headers import MOST_UNCODED, video_object_layer, video_object_plane
from codecmeta.container.packet_reader import PacketReader, copy_packet, join
from codecmeta.container.packets import PacketTable
from codecmeta.container.sample_form import read_form
from codecmeta.container.video import Video
from codecmeta.decoding import side_data
from codecmeta.errors import SourceError

_TYPES = {1: "I", 2: "P", 3: "B"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Decoded picture and the packet it came from.

    Attributes:
        packet: number of the packet.
        frame: the picture; at its coded size if the decoder was opened with `coded_size`.
        payload: the packet's bytes, b"" unless the decoder was opened with `payloads`.
        flushed: it was output because no further packet followed.
        repeats: its packet codes nothing: it is the previous reference picture, shown again (an MPEG-4 plane that is
            not coded).
    """

    packet: int
    frame: av.VideoFrame
    payload: bytes = field(repr=False)
    flushed: bool = False
    repeats: bool = False

    @property
    def type(self) -> str:
        """I, P, B, or ? for anything else."""
        return "P" if self.repeats else _TYPES.get(int(self.frame.pict_type), "?")

    @cached_property
    def vectors(self) -> NDArray[np.int16] | None:
        """Its motion vectors as `side_data.vectors` returns them; None without."""
        if self.repeats:
            return _still(self.frame.width, self.frame.height)
        return side_data.vectors(self.frame)


def _still(width: int, height: int) -> NDArray[np.int16]:
    """Return the vectors of a picture that repeats the one before: every macroblock stays where it was."""
    y, x = np.mgrid[: -(-height // 16), : -(-width // 16)].reshape(2, -1) * 16
    rest = np.broadcast_to(np.array([16, 16, 0, 0, -1]), (x.size, 5))
    return np.column_stack([x, y, rest]).astype(np.int16)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Packets that are decoded in one pass, in decode order.

    Attributes:
        start: the key packet where decoding begins.
        stop: one past the last packet that is needed.
        targets: packets of the wanted frames, rising.
    """

    start: int
    stop: int
    targets: tuple[int, ...]


def plan_runs(packets: PacketTable, rank: NDArray[np.int64], targets: Iterable[int], *, back: int = 0) -> list[Run]:
    """Cover the targets with as little decoding as possible.

    A target needs the packets from the previous key packet on; a picture that is shown before that key packet (an open
    GoP) also needs the GoP before it. Targets whose stretches meet share a run.

    Args:
        packets: the packet table.
        rank: index of every packet's picture in presentation order, int64 (P,).
        targets: packets of the wanted frames.
        back: key packets to begin earlier. A key packet of a stream that is refreshed gradually is a recovery point,
            and nothing is shown until the recovery is complete.

    Raises:
        SourceError: a target comes before the first key packet.
    """
    keys = np.flatnonzero(packets.key)
    runs: list[Run] = []
    for target in sorted(set(targets)):
        place = int(np.searchsorted(keys, target, side="right")) - 1
        if place < 0:
            raise SourceError("no_key_frame", f"packet {target} comes before the first key frame")
        if place > 0 and target != keys[place] and rank[target] < rank[keys[place]]:
            place -= 1
        run = Run(start=int(keys[max(place - back, 0)]), stop=target + 1, targets=(target,))
        # a leading picture extends the run to the one that its key picture began
        while runs and run.start < runs[-1].stop:
            before = runs.pop()
            run = Run(start=min(before.start, run.start), stop=run.stop, targets=(*before.targets, *run.targets))
        runs.append(run)
    return runs


class Decoder:
    """Decoder of runs of packets of one opened video.

    Attributes:
        errors: number of packets that the decoder refused.
        corrupt: number of pictures that it marked as corrupt.
    """

    def __init__(
        self,
        video: Video,
        packets: PacketTable,
        *,
        vectors: bool = False,
        quantisers: bool = False,
        payloads: bool = False,
        coded_size: bool = False,
        samples: bool = True,
    ) -> None:
        """Prepare to decode.

        Args:
            video: the opened video.
            packets: its packet table.
            vectors: attach motion vectors to the pictures.
            quantisers: attach quantisers, likewise.
            payloads: keep the packets of the pictures.
            coded_size: do not cut pictures to the display size, where the decoder supports that.
            samples: whether samples matter; otherwise an H.264 decoder skips its loop filter, a fifth of its work.
        """
        if video.stream.codec_context.is_open:
            video.reopen()
        self._video = video
        self._payloads: dict[int, bytes] | None = {} if payloads else None
        self._coded_size = coded_size
        self.errors = 0
        self.corrupt = 0
        exports = ["mvs"] * vectors + ["venc_params"] * quantisers
        # cut pictures exactly where the stream states, not at the next aligned column
        # decoders count pictures as they are laid out in memory
        most = video.limits.pixels + _MOST_PADDING * (video.width + video.height + _MOST_PADDING)
        self._options = {"max_pixels": str(most), "flags": "+unaligned"}
        # dav1d reads the option once, when it is opened
        self._skips = video.codec != "av1"
        if exports:
            self._options["export_side_data"] = "+".join(exports)
        # these decoders attach nothing to a flushed picture: a further packet makes them output it before the flush
        self._pushes = bool(exports) and video.codec in ("mpeg1video", "mpeg2video", "mpeg4")
        if coded_size:
            self._options["apply_cropping"] = "0"
        if not samples and video.codec == "h264":
            self._options["skip_loop_filter"] = "all"
        self._layer = None
        if video.codec == "mpeg4":
            self._layer = video_object_layer(bytes(video.stream.codec_context.extradata or b""))
        self._uncoded: list[int] = []
        self._formats: set[str] = set()
        self._prepared: VideoStream | None = None
        self._reader = PacketReader(video, packets)
        self._packets = packets
        self._history = packets.history

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
        pyav.discard_others(stream)
        self._prepared = stream

    def decode(self, run: Run, *, every: bool = False) -> Iterator[Picture]:
        """Decode the pictures of a run in presentation order, including those whose packets code nothing.

        Pictures that are no references are skipped unless they are targets.

        Args:
            run: what to decode.
            every: skip nothing.

        Raises:
            SourceError: a picture has another size, bit depth or chroma format than the header states.
        """
        self._uncoded.clear()
        reference: Picture | None = None
        for picture in self._decode_coded(run, every=every):
            if picture.packet in self._uncoded:
                if picture.flushed:
                    # FFmpeg shows the last picture again where the stream ends in a plane that is not coded
                    continue
                # a placeholder in a packed stream: it shows what the previous packet contained
                self._uncoded.remove(picture.packet)
            elif picture.type != "B":
                yield from self._repeat(reference, before=picture.packet)
                reference = picture
            yield picture
        yield from self._repeat(reference, before=run.stop)

    def _repeat(self, reference: Picture | None, *, before: int) -> Iterator[Picture]:
        """Show a reference picture once more for each packet that codes nothing."""
        due = [number for number in self._uncoded if number < before]
        self._uncoded = [number for number in self._uncoded if number >= before]
        for number in due if reference is not None else ():
            payload = self._payload(number)
            yield Picture(packet=number, frame=cast(Picture, reference).frame, payload=payload, repeats=True)

    def _decode_coded(self, run: Run, *, every: bool) -> Iterator[Picture]:
        wanted = set(run.targets)
        self._prefetch(run)
        self._reader.go_to(run.start)
        self._prepare()
        context = self._video.stream.codec_context
        key = b""
        for number, packets in self._reader:
            if number == run.start and self._pushes:
                key = join(packets)
            if self._payloads is not None:
                self._payloads[number] = self._history.lead(number, join(packets))
            if self._layer is not None and sum(packet.size for packet in packets) <= MOST_UNCODED:
                plane = video_object_plane(join(packets), self._layer)
                if plane is not None and not plane.coded:
                    self._uncoded.append(number)
            if self._skips:
                context.skip_frame = "DEFAULT" if every or number in wanted else "NONREF"
            for packet in self._lead(number, packets, first=number == run.start):
                # a new object: PyAV keeps tags by identity, and small integers are shared between decoders
                packet.opaque = (number,)
                yield from self._decode(packet)
            if number + 1 >= run.stop:
                break
        if key and context.has_b_frames:
            # without a tag, its own picture is not shown
            yield from self._decode(av.Packet(key))
        for picture in self._decode(None):
            yield replace(picture, flushed=True)

    def _prefetch(self, run: Run) -> None:
        """Announce the reads of a run, with the sound in between if that is less than what is wanted."""
        packets = self._packets
        if self._video.source.is_local or packets.position is None:
            return
        begin = packets.position[run.start : run.stop]
        end = begin + packets.size[run.start : run.stop]
        span = int(begin.min()), int(end.max())
        near = span[1] - span[0] <= 2 * int((end - begin).sum())
        self._video.source.prefetch([span] if near else zip(begin.tolist(), end.tolist(), strict=True))

    def _lead(self, number: int, packets: tuple[av.Packet[Any], ...], *, first: bool) -> Iterator[av.Packet[Any]]:
        """Yield the packets after any parameter sets in force that the decoder has not seen on its way."""
        history = self._history
        if history.is_plain_before(number):
            yield from packets
            return
        for packet in packets:
            if first or history.changes_at(number) or history.is_repackaged(number):
                # without the side data, which would change the packaging
                yield copy_packet(packet, history.lead(number, bytes(packet)))
            else:
                yield packet

    def _decode(self, packet: av.Packet[Any] | None) -> Iterator[Picture]:
        context = self._video.stream.codec_context
        try:
            frames = context.decode(packet)
        except av.FFmpegError as error:
            _check_memory(error, _BYTES_PER_PIXEL * self._video.width * self._video.height)
            self.errors += 1
            return
        for frame in frames:
            if frame.opaque is None:
                continue
            self._check_form(frame)
            self.corrupt += frame.is_corrupt
            (number,) = cast(tuple[int], frame.opaque)
            yield Picture(packet=number, frame=frame, payload=self._payload(number))

    def _check_form(self, frame: av.VideoFrame) -> None:
        if not self._fits(frame):
            sizes = f"{frame.width}x{frame.height} in a stream of {self._video.width}x{self._video.height}"
            raise SourceError("varying_geometry", f"a picture of {sizes}")
        if frame.format.name in self._formats:
            return
        form = self._video.form
        if form is not None and (own := read_form(frame.format)) != form:
            raise SourceError("varying_geometry", f"a picture of {own} samples in a stream of {form} ones")
        self._formats.add(frame.format.name)

    def _fits(self, frame: av.VideoFrame) -> bool:
        width, height = self._video.width, self._video.height
        if not self._coded_size:
            return (frame.width, frame.height) == (width, height)
        # the picture has whole macroblocks: the decoder decides how much of them is shown
        context = self._video.stream.codec_context
        shown = (context.width, context.height) == (width, height)
        return shown and width <= frame.width < width + 64 and height <= frame.height < height + 64

    def _payload(self, number: int) -> bytes:
        """Return the bytes of a packet, and forget those of earlier ones that were output or skipped."""
        if self._payloads is None:
            return b""
        payload = self._payloads.pop(number, b"")
        for older in [n for n in self._payloads if n < number - _HELD_BACK]:
            del self._payloads[older]
        return payload


def _check_memory(error: av.FFmpegError, size: int) -> None:
    """Distinguish lack of memory from damage: decoders mostly report invalid data in both cases.

    Raises:
        MemoryError: a picture of this size could not be allocated.
    """
    if isinstance(error, MemoryError):
        raise error
    try:
        mmap.mmap(-1, size).close()
    except OSError as reason:
        raise MemoryError("not enough memory for a picture") from reason


_MOST_PADDING = 256
_BYTES_PER_PIXEL = 8
"""Enough for three channels of 16 bits, and borders."""

_HELD_BACK = 64
"""Packets after which one that gave no picture counts as skipped."""


@dataclass(frozen=True, kw_only=True)
class ShownOrder:
    """Result of decoding a whole stream for its presentation order.

    Attributes:
        packet: int64 (F,), packets in the order in which the decoder shows them.
        errors: number of packets that the decoder refused.
        corrupt: number of pictures that it marked as corrupt.
    """

    packet: NDArray[np.int64]
    errors: int
    corrupt: int


def presentation_order(video: Video, packets: PacketTable) -> ShownOrder:
    """Find the order in which the decoder shows packets, by decoding the whole stream."""
    decoder = Decoder(video, packets)
    first = int(np.flatnonzero(packets.key)[0])
    count = packets.size.size
    whole = Run(start=first, stop=count, targets=())
    shown = np.array([picture.packet for picture in decoder.decode(whole, every=True)], np.int64)
    return ShownOrder(packet=shown, errors=decoder.errors, corrupt=decoder.corrupt)
