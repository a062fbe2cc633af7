"""Open a video; its packets from the container's index, or by demuxing. Never decodes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from codecmeta.container import mp4_boxes, pyav
from codecmeta.container.completeness import judge_file
from codecmeta.container.sample_table import SampleTable
from codecmeta.errors import BitstreamError, SourceError
from codecmeta.h264.field_pairs import FieldPairs
from codecmeta.record.limits import Limits
from codecmeta.record.meta import MISSING

# Only demuxers that read the one file they are given. Playlists and concat scripts would open others.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,ivf,h264,hevc,vvc,obu,av1,h263,h261,"
    "wav,mp3,flac,aac"  # to say "no video stream" of them
)
_VP8_SHOW_FRAME = 0x10


@dataclass(frozen=True, kw_only=True)
class PacketTable:
    """The packets of a video stream in decode order, P of them.

    The two fields of an H.264 frame count as one packet, also where they come in one each: a packet is a frame.

    Attributes:
        pts: int64 (P,), MISSING where there is none; of two fields that of the first, as all below.
        dts: int64 (P,), likewise.
        size: uint32 (P,), bytes.
        key: bool (P,), starts a GoP.
        shown: bool (P,), False for packets that an edit list discards or that carry no displayed picture.
        second: uint32 (P,), how many of these bytes come in a packet of their own, the second field; mostly 0.
        corrupt: number of packets that the demuxer marked as corrupt.
        position: int64 (P,), where each packet's bytes begin in the file; None where the container's index does not
            tell.
        second_position: int64 (P,), likewise of the second field, where there is one.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    size: NDArray[np.uint32]
    key: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    second: NDArray[np.uint32]
    corrupt: int
    position: NDArray[np.int64] | None
    second_position: NDArray[np.int64] | None

    @property
    def origin(self) -> Literal["index", "demux"]:
        """Whether the table was read from the container's index or by demuxing the file."""
        return "demux" if self.position is None else "index"


@dataclass(kw_only=True)
class Video:
    """An opened video and its chosen stream. Both are replaced where going back means opening the file again.

    Attributes:
        path: the file.
        size: its length in bytes.
        container: libav's demuxer.
        stream: the video stream.
        width: display width in luma samples, coded orientation, as the header tells it; the decoder's own changes
            with the pictures.
        height: display height, likewise.
        track: the MP4/MOV track of the stream, if there is one.
        limits: what it may demand at most.
    """

    path: Path
    size: int
    container: InputContainer
    stream: VideoStream
    width: int
    height: int
    track: mp4_boxes.Track | None = field(repr=False)
    limits: Limits = field(repr=False)

    @property
    def codec(self) -> str:
        """libav's name of the codec, such as h264."""
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def chroma_size(self) -> tuple[int, int]:
        """Height and width of the chroma planes, (0, 0) for monochrome."""
        pixels = self.stream.codec_context.format
        if pixels is None or len(pixels.components) < 3:
            return 0, 0
        return pixels.chroma_height(self.height), pixels.chroma_width(self.width)

    @property
    def fps(self) -> float | None:
        """Average frame rate as the container tells it."""
        rate = self.stream.average_rate or self.stream.base_rate
        return float(rate) if rate else None

    def rewind(self) -> None:
        """Go back to the first packet."""
        try:
            # a transport stream sought at its own start time may begin a few packets late
            self.container.seek(-(10**12), backward=True)
        except av.FFmpegError:
            # raw streams cannot be sought by time
            self.reopen()

    def reopen(self) -> None:
        """Open the file again, with a decoder that has not begun."""
        index = self.stream.index
        self.container.close()
        self.container = _open(self.path)
        self.stream = next(s for s in self.container.streams.video if s.index == index)


@contextmanager
def open_video(source: str | os.PathLike[str], limits: Limits | None = None) -> Iterator[Video]:
    """Open a video file and choose its video stream.

    Args:
        source: path of a regular file. Only the demuxers in `DEMUXERS` are tried, and no second file is opened.
        limits: what it may demand at most, None for the defaults of `Limits`.

    Yields:
        The opened video; it is closed on exit.

    Raises:
        SourceError: the file cannot be read as a video; `code` says why.
    """
    path = Path(source)
    size = _check_file(path)
    container = _open(path)
    try:
        stream = _choose_stream(container)
        limits = limits or Limits()
        _check_size(stream, limits)
        video = Video(
            path=path,
            size=size,
            container=container,
            stream=stream,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            track=_read_track(path, size, stream),
            limits=limits,
        )
    except BaseException as error:
        container.close()
        if isinstance(error, SourceError) and error.code in _OF_MISSING_PARTS:
            state, evidence = judge_file(path, size)
            if state == "truncated":
                raise SourceError("truncated", f"the file is cut short: {evidence}") from error
        raise
    try:
        yield video
    finally:
        video.container.close()


def _check_file(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise SourceError("not_a_file", "no such file") from error
    except PermissionError as error:
        raise SourceError("permission_denied", "permission denied") from error
    except (OSError, ValueError) as error:
        raise SourceError("not_a_file", f"cannot be found ({error})") from error
    if stat.S_ISDIR(status.st_mode) and not os.access(path, os.R_OK):
        raise SourceError("permission_denied", "a folder that cannot be listed")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError("not_a_file", "not a regular file")
    if status.st_size == 0:
        raise SourceError("unreadable", "the file is empty")
    return status.st_size


def _open(path: Path) -> InputContainer:
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    # without the prefix a name such as `clip:01.mp4` is taken for a protocol
    name = "file:" + os.fspath(path)
    try:
        return pyav.open_input(name, options)
    except Exception as error:  # libav's errors come as many types
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> SourceError:
    try:
        # libav's demuxers have other reasons to say so
        with path.open("rb") as file:
            head = file.read(16)
    except PermissionError:
        return SourceError("permission_denied", "permission denied")
    state, evidence = judge_file(path, path.stat().st_size)
    if state == "truncated":
        return SourceError("truncated", f"the file is cut short: {evidence}")
    text = str(getattr(error, "strerror", None) or error)
    if head.startswith((b"ffconcat", b"#EXTM3U")) or "whitelist" in str(error).lower():
        return SourceError("format_refused", "a playlist or script that names other files is not opened")
    return SourceError(
        "unreadable", f"not a video that can be read ({text or type(error).__name__}; it begins with {head!r})"
    )


def _choose_stream(container: InputContainer) -> VideoStream:
    candidates = [s for s in container.streams.video if not pyav.is_attached_picture(s)]
    if not candidates:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams"
        raise SourceError("no_video_stream", f"no video stream ({kinds} only; cover art does not count)")
    best = container.streams.best("video")
    stream = next((s for s in candidates if best is not None and s.index == best.index), candidates[0])
    context = stream.codec_context
    if context is None or context.codec is None:
        raise SourceError("decoder_missing", "this build of libav has no decoder for the video stream")
    return stream


def _check_size(stream: VideoStream, limits: Limits) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise SourceError("unreadable", f"the header gives no picture size ({width}x{height})")
    if width * height > limits.pixels:
        raise SourceError("limit_exceeded", f"pictures of {width}x{height}, allowed are {limits.pixels} pixels")


# what a header looks like whose end is missing
_OF_MISSING_PARTS = frozenset(("no_video_stream", "decoder_missing", "unreadable"))


def _read_track(path: Path, size: int, stream: VideoStream) -> mp4_boxes.Track | None:
    if "mp4" not in stream.container.format.name:
        return None
    with path.open("rb") as file:
        return mp4_boxes.read_track(file, size, stream.id)


def read_packets(video: Video) -> PacketTable:
    """The packet table of the stream: from the MP4/MOV index where it is complete, else by demuxing once.

    Raises:
        SourceError: there are no packets, no key packet, or more than can be a video.
    """
    table = _from_index(video) or _from_demuxing(video)
    if table.size.size == 0:
        raise SourceError("no_frames", "the video stream has no packets")
    if not table.key.any():
        raise SourceError("no_key_frame", f"none of the {table.size.size} packets is a key frame")
    return table


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.frames:
        raise SourceError("limit_exceeded", f"{count} packets or more, allowed are {limits.frames}")


def _from_index(video: Video) -> PacketTable | None:
    samples = None if video.track is None else video.track.samples
    if samples is None:
        return None
    # samples without bytes stand for dropped frames, and are not packets
    samples = samples.select(samples.size > 0)
    _check_count(samples.size.size, video.limits)
    shifts = _check_index(video, samples)
    if shifts is None or np.unique(samples.pts[samples.shown]).size != np.count_nonzero(samples.shown):
        return None
    pts, dts = samples.pts + shifts[0], samples.dts + shifts[1]
    columns = np.stack([pts, dts, samples.size, samples.key, samples.shown, samples.position], axis=1)
    return _as_table(columns, _find_second_fields(video, columns), corrupt=0)


def _find_second_fields(video: Video, columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which packets of an index are the second field of the frame before; reads the headers of interlaced streams."""
    second = np.zeros(len(columns), np.bool_)
    pairs = _open_pairs(video)
    if pairs is None:
        return second
    with video.path.open("rb") as file:
        for number, (_, _, size, key, _, position) in enumerate(columns.tolist()):
            if pairs.asks_for(key=bool(key)):
                second[number] = pairs.continues(pairs.read_headers(file, position, size))
    return second


def _open_pairs(video: Video) -> FieldPairs | None:
    if video.codec != "h264":
        return None
    try:
        pairs = FieldPairs(bytes(video.stream.codec_context.extradata or b""))
    except BitstreamError:
        return None
    return pairs if pairs.asks_for(key=True) else None


def _as_table(columns: NDArray[np.int64], second: NDArray[np.bool_], *, corrupt: int) -> PacketTable:
    """Join second fields to the packets before them.

    Args:
        columns: int64 (n, 5 or 6), one row per packet: pts, dts, size, key, shown, and position where it is known.
        second: bool (n,), never set twice in a row.
        corrupt: number of corrupt packets.
    """
    frames = columns[~second]
    place = np.cumsum(~second)[second] - 1
    own = np.zeros((len(frames), columns.shape[1]), np.int64)
    own[place] = columns[second]
    located = columns.shape[1] == 6
    return PacketTable(
        pts=frames[:, 0].copy(),
        dts=frames[:, 1].copy(),
        size=(frames[:, 2] + own[:, 2]).astype(np.uint32),
        key=frames[:, 3].astype(np.bool_),
        shown=frames[:, 4].astype(np.bool_),
        second=own[:, 2].astype(np.uint32),
        corrupt=corrupt,
        position=frames[:, 5].copy() if located else None,
        second_position=own[:, 5].copy() if located else None,
    )


def _check_index(video: Video, samples: SampleTable, *, probe: int = 4) -> tuple[int, int] | None:
    """What the demuxer adds to the pts and dts of all samples; None where the first packets contradict the table."""
    shifts: tuple[int, int] | None = None
    for number, packet in enumerate(demux(video)):
        if number == min(probe, samples.size.size) or packet.pts is None or packet.dts is None:
            break
        found = packet.pts - int(samples.pts[number]), packet.dts - int(samples.dts[number])
        shifts = found if shifts is None else shifts
        facts = packet.size, not packet.is_discard, packet.pos
        if found != shifts or facts != (samples.size[number], samples.shown[number], samples.position[number]):
            return None
    video.rewind()
    return shifts


def demux(video: Video) -> Iterator[av.Packet[Any]]:
    """The packets of the stream from where the demuxer is, in decode order.

    Raises:
        SourceError: there are packets that cannot be read.
    """
    try:
        for packet in video.container.demux(video.stream):
            if packet.size:
                yield packet
    except IndexError:
        # when all packets have come, PyAV trips over streams of the file that have appeared since it was opened
        return
    except (av.FFmpegError, ValueError) as error:
        # a sample that is too large for memory is damage, too
        reason = getattr(error, "strerror", None) or error
        raise SourceError("damaged", f"its packets cannot be read to the end ({reason})") from error


def _from_demuxing(video: Video) -> PacketTable:
    rows: list[tuple[int, int, int, bool, bool]] = []
    second: list[bool] = []
    corrupt = 0
    hides = video.codec == "vp8"
    pairs = _open_pairs(video)
    video.rewind()
    for packet in demux(video):
        shown = not packet.is_discard
        if hides:
            shown = shown and bool(memoryview(packet)[0] & _VP8_SHOW_FRAME)
        rows.append(
            (
                MISSING if packet.pts is None else packet.pts,
                MISSING if packet.dts is None else packet.dts,
                packet.size,
                packet.is_keyframe,
                shown,
            )
        )
        asked = pairs if pairs is not None and pairs.asks_for(key=packet.is_keyframe) else None
        second.append(asked is not None and asked.continues(bytes(packet)))
        corrupt += packet.is_corrupt
        _check_count(len(rows), video.limits)
    return _as_table(np.array(rows, np.int64).reshape(-1, 5), np.array(second, np.bool_), corrupt=corrupt)
