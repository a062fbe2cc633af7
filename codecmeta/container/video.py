"""Video files: opening one, and choosing its video stream. Never decodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from codecmeta.container import mp4_boxes, pyav
from codecmeta.container.completeness import judge_file
from codecmeta.container.formats import DEMUXERS, explain_refusal
from codecmeta.container.sample_form import SampleForm, read_form
from codecmeta.errors import SourceError, UsageError
from codecmeta.record.limits import Limits
from codecmeta.storage.byte_source import ByteSource
from codecmeta.storage.opening import open_source


@dataclass(kw_only=True)
class Video:
    """Opened video and its chosen stream. Both are replaced when going back requires opening the file again.

    Attributes:
        source: the file.
        container: libav's demuxer.
        stream: the video stream.
        width: display width in luma samples, coded orientation, as the header states it; the decoder's own changes
            with the pictures.
        height: display height, likewise.
        pixels: libav's pixel format of the stream, likewise; None where the header does not state it.
        track: the MP4/MOV track of the stream, if it has one.
        limits: the largest demands that it may make.
        others: descriptions of the other video streams.
    """

    source: ByteSource
    container: InputContainer
    stream: VideoStream
    width: int
    height: int
    pixels: av.VideoFormat | None = field(repr=False)
    track: mp4_boxes.Track | None = field(repr=False)
    limits: Limits = field(repr=False)
    others: tuple[str, ...] = ()

    @property
    def codec(self) -> str:
        """libav's name of the codec, such as h264."""
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def chroma_size(self) -> tuple[int, int]:
        """Height and width of the chroma planes, (0, 0) for monochrome."""
        pixels = self.pixels
        if pixels is None or len(pixels.components) < 3:
            return 0, 0
        return pixels.chroma_height(self.height), pixels.chroma_width(self.width)

    @property
    def form(self) -> SampleForm | None:
        """Bit depth and chroma format; None where the header does not state them."""
        return None if self.pixels is None else read_form(self.pixels)

    @property
    def sample_aspect(self) -> tuple[int, int] | None:
        """Width and height of a sample as the container states them, else the stream; None if neither does."""
        ratio = self.stream.sample_aspect_ratio
        return (ratio.numerator, ratio.denominator) if ratio else None

    @property
    def fps(self) -> float | None:
        """Average frame rate as the container states it."""
        rate = self.stream.average_rate or self.stream.base_rate
        return float(rate) if rate else None

    @property
    def has_alpha(self) -> bool:
        """Whether the pictures have an opacity channel, in their pixel format or separately (Matroska, AlphaMode)."""
        # libav reports one for every GIF
        inside = self.codec != "gif" and self.pixels is not None and any(one.is_alpha for one in self.pixels.components)
        return inside or self.stream.metadata.get("alpha_mode") == "1"

    def rewind(self) -> None:
        """Go back to the first packet."""
        if self.container.format.name == "mpegts":
            # libav may begin one packet late after any seek
            self.reopen()
            return
        try:
            self.container.seek(-(10**12), backward=True)
        except av.FFmpegError:
            # raw streams cannot be sought by time
            self.reopen()

    def reopen(self) -> None:
        """Open the file again, with a new decoder."""
        index = self.stream.index
        self.container.close()
        self.container = _open(self.source)
        self.stream = next(s for s in self.container.streams.video if s.index == index)


@contextmanager
def open_video(
    source: str | os.PathLike[str] | bytes, limits: Limits | None = None, *, track: int | None = None
) -> Iterator[Video]:
    """Open a video file and choose its video stream.

    Args:
        source: path of a regular file, URL of an object, or the bytes of a file. Only the demuxers in `DEMUXERS` are
            tried, and no second file is opened.
        limits: the largest demands that it may make, None for the defaults of `Limits`.
        track: index of the video stream among all streams of the file; None takes the one that libavformat ranks best.

    Yields:
        The opened video; it is closed on exit.

    Raises:
        SourceError: the file cannot be read as a video; `code` gives the reason.
        UsageError: it has no such video stream.
    """
    limits = limits or Limits()
    with open_source(source, most_bytes=limits.copied) as opened:
        try:
            video = _open_stream(opened, limits, track)
            try:
                yield video
            finally:
                video.container.close()
        except Exception:
            # libav takes a read that fails for the end of the file, and what follows from that for damage
            opened.check()
            raise
        opened.check()


def _open_stream(source: ByteSource, limits: Limits, track: int | None) -> Video:
    container = _open(source)
    try:
        stream, others = _choose_stream(container, track)
        _check_size(stream, limits)
        description = _read_track(source, stream, limits)
        if description is None or description.samples is None:
            # no index says where the packets are
            source.fetch_all()
        video = Video(
            source=source,
            container=container,
            stream=stream,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            pixels=stream.codec_context.format,
            track=description,
            limits=limits,
            others=others,
        )
        _check_protection(video)
    except BaseException as error:
        container.close()
        if isinstance(error, SourceError) and error.code in _OF_MISSING_PARTS:
            state, evidence = judge_file(source)
            if state == "truncated":
                raise SourceError("truncated", f"the file is cut short: {evidence}") from error
        raise
    return video


def _open(source: ByteSource) -> InputContainer:
    name = source.open_input()
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file" if isinstance(name, str) else "none"}
    try:
        return pyav.open_input(name, options)
    except Exception as error:  # libav raises errors of many types
        source.check()
        raise _refusal(source, error) from error


def _refusal(source: ByteSource, error: Exception) -> SourceError:
    # libav's demuxers also report lack of permission for other reasons
    state, evidence = judge_file(source)
    if state == "truncated":
        return SourceError("truncated", f"the file is cut short: {evidence}")
    head = source.read_at(0, 32)
    text = str(getattr(error, "strerror", None) or error)
    if head.startswith((b"ffconcat", b"#EXTM3U")) or "whitelist" in str(error).lower():
        return SourceError("format_refused", "a playlist or script that names other files is not opened")
    if (reason := explain_refusal(head)) is not None:
        return SourceError("format_refused", reason)
    return SourceError(
        "unreadable", f"not a video that can be read ({text or type(error).__name__}; it begins with {head[:16]!r})"
    )


def _choose_stream(container: InputContainer, track: int | None) -> tuple[VideoStream, tuple[str, ...]]:
    """Choose the stream to read, and describe the other video streams."""
    candidates = [s for s in container.streams.video if not pyav.is_attached_picture(s)]
    if not candidates:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams"
        raise SourceError("no_video_stream", f"no video stream ({kinds} only; cover art does not count)")
    best = container.streams.best("video")
    wanted = track if track is not None else candidates[0].index if best is None else best.index
    stream = next((s for s in candidates if s.index == wanted), None if track is not None else candidates[0])
    if stream is None:
        known = "; ".join(_describe_stream(s) for s in candidates)
        raise UsageError(f"track {track} is not a video track of the file; choose from: {known}")
    if stream.codec_context is None or stream.codec_context.codec is None:
        raise SourceError("decoder_missing", "this build of libav has no decoder for the video stream")
    return stream, tuple(_describe_stream(s) for s in candidates if s.index != stream.index)


def _describe_stream(stream: VideoStream) -> str:
    context = stream.codec_context
    name = context.codec.canonical_name if context is not None and context.codec is not None else "unknown codec"
    return f"{stream.index} ({name} {context.width}x{context.height})" if context is not None else f"{stream.index}"


def _check_size(stream: VideoStream, limits: Limits) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise SourceError("unreadable", f"the header gives no picture size ({width}x{height})")
    if width * height > limits.pixels:
        raise SourceError("limit_exceeded", f"pictures of {width}x{height}; allowed are {limits.pixels} pixels")


# typical of a header whose end is missing
_OF_MISSING_PARTS = frozenset(("no_video_stream", "decoder_missing", "unreadable"))


def _check_protection(video: Video) -> None:
    """Refuse encrypted samples, of which nothing but headers can be read.

    Raises:
        SourceError: the sample entry or the track marks samples as encrypted.
    """
    scheme = None if video.track is None else video.track.protection
    if scheme is None and "enc_key_id" in video.stream.metadata:
        scheme = "ContentEncryption of Matroska"
    if scheme is not None:
        raise SourceError("encrypted", f"the video is encrypted ({scheme}); decrypt it first")


def _read_track(source: ByteSource, stream: VideoStream, limits: Limits) -> mp4_boxes.Track | None:
    if "mp4" not in stream.container.format.name:
        return None
    return mp4_boxes.read_track(source, stream.id, most_samples=limits.frames)


def demux(video: Video) -> Iterator[av.Packet[Any]]:
    """Yield the packets of the stream in decode order, from the demuxer's position.

    Raises:
        SourceError: some packets cannot be read.
    """
    try:
        for packet in video.container.demux(video.stream):
            if packet.size:
                yield packet
    except IndexError:
        # after the last packet, PyAV fails on streams of the file that have appeared since it was opened
        return
    except (av.FFmpegError, ValueError) as error:
        # a sample that is too large for memory is damage, too
        reason = getattr(error, "strerror", None) or error
        raise SourceError("damaged", f"its packets cannot be read to the end ({reason})") from error
