"""One video file -> VideoMeta."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import av
import numba
import numpy as np

from codecmeta import __version__, h264, hevc
from codecmeta.container.completeness import judge_file
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import PacketTable, read_packets
from codecmeta.container.timeline import Timeline
from codecmeta.container.video import Video, open_video
from codecmeta.decoding.presentation import order_frames
from codecmeta.decoding.rgb import scaled_size
from codecmeta.errors import BitstreamError, SourceError
from codecmeta.frame_columns import Request
from codecmeta.frame_reader import read_frames
from codecmeta.frame_table import FrameTable
from codecmeta.record.limits import Limits
from codecmeta.record.meta import VideoMeta
from codecmeta.record.options import MAPS, MapChoice, Options, ResidualChoice
from codecmeta.record.sampling import choose_frames
from codecmeta.record.source_identity import identify_source
from codecmeta.signals import describe_signals, list_arrays
from codecmeta.stream_description import describe_stream
from codecmeta.verdict import describe_verdict

_SMALL_PICTURE = 288


def extract(
    source: str | os.PathLike[str],
    *,
    frames: str | Sequence[int] = "uniform:32",
    residual: ResidualChoice = "auto",
    maps: Sequence[MapChoice] = MAPS,
    pixels: int | None = 384,
    motion: bool = False,
    qp: bool = False,
    limits: Limits | None = None,
) -> VideoMeta:
    """Read the codec metadata of a video.

    Args:
        source: the file.
        frames: `uniform:N`, `fps:R`, `keyframes`, `all`, or indices in presentation order.
        residual: where the residual comes from: `auto`, `bitstream`, `motion`, `proxy` or `none`.
        maps: energy maps to make, of `innovation` and `carried`.
        pixels: short side of the cached RGB frames; None caches none.
        motion: keep the motion vectors of the sampled frames.
        qp: keep their quantisers.
        limits: what the video may demand at most, None for the defaults of `Limits`.

    Raises:
        UsageError: an option is not allowed, or selects no frame.
        SourceError: the file cannot be read; `code` says why.
    """
    options = Options(frames=frames, residual=residual, maps=maps, pixels=pixels, motion=motion, qp=qp)
    return extract_video(source, options, limits or Limits())


def extract_video(source: str | os.PathLike[str], options: Options, limits: Limits) -> VideoMeta:
    """`extract` with checked options."""
    path = Path(source)
    with open_video(path, limits) as video:
        state, evidence = judge_file(path, video.size)
        if state == "truncated":
            raise SourceError("truncated", f"the file is cut short: {evidence}")
        identity = identify_source(path)
        packets = read_packets(video)
        if state == "unknown":
            _check_last_packet(video, packets)
        timeline = order_frames(video, packets)
        base = video.stream.time_base
        numerator, denominator = (base.numerator, base.denominator) if base else (1, 1)
        chosen = choose_frames(
            options.frames if isinstance(options.frames, str) else tuple(options.frames),
            timeline.pts.astype(np.float64) * np.float64(numerator / denominator),
            packets.key[timeline.packet],
        )
        block: Literal[4, 8] = 4 if min(video.width, video.height) < _SMALL_PICTURE else 8
        targets = timeline.packet[chosen].tolist()
        _check_output(video, options, len(targets), block, limits)
        request = Request(video=video, packets=packets, timeline=timeline, options=options, block=block)
        table = read_frames(request, targets)
        if identify_source(path) != identity:
            raise SourceError("changed_while_reading", "the file changed while it was read")
        signals = describe_signals(table, packets)
        info = {
            "source": identity,
            "stream": describe_stream(video, packets, timeline, (numerator, denominator), table.rotation or 0),
            "verdict": describe_verdict(state, evidence, packets, timeline, table.decoding),
            "signals": signals,
            "extraction": _extraction(options, block, timeline, table),
        }
        meta = VideoMeta(
            info=info,
            packet_pts=packets.pts,
            packet_dts=packets.dts,
            packet_size=packets.size,
            packet_key=packets.key,
            frame_packet=np.array(table.packets, np.int32),
            frame_pts=timeline.pts[np.isin(timeline.packet, table.packets)],
            frame_type=np.array([table.types[packet] for packet in table.packets], "<U1"),
            **list_arrays(table, signals),
        )
        _check_bytes(meta.nbytes, len(table.packets), limits)
        return meta


def _check_output(video: Video, options: Options, frames: int, block: int, limits: Limits) -> None:
    """Refuse what would not fit the record, before anything is allocated."""
    blocks = -(-video.width // block) * -(-video.height // block)
    size = frames * blocks * 4 * (8 if options.chosen_maps else 0)
    if options.pixels is not None:
        wide, tall = scaled_size(video.width, video.height, short_side=options.pixels)
        size += frames * wide * tall * 3
    _check_bytes(size, frames, limits)


def _check_bytes(size: int, frames: int, limits: Limits) -> None:
    if size > limits.bytes:
        raise SourceError(
            "limit_exceeded",
            f"the record of {frames} frames takes {size} bytes, allowed are {limits.bytes}; choose fewer frames, leave "
            "out pixels or maps, or raise the limit",
        )


def _check_last_packet(video: Video, packets: PacketTable) -> None:
    """A raw or transport stream that was cut ends in a picture that cannot be parsed to its end (H.264, HEVC)."""
    readers = {"h264": h264.ResidualReader, "hevc": hevc.ResidualReader}
    if video.codec not in readers:
        return
    reader = readers[video.codec](bytes(video.stream.codec_context.extradata or b""))
    keys = np.flatnonzero(packets.key)
    last = packets.size.size - 1
    for number, payload in read_payloads(video, packets, {int(keys[-1]), last}):
        if number != last:
            with suppress(BitstreamError):
                reader.observe(payload)
        else:
            try:
                reader.measure(payload, block=8)
            except BitstreamError as error:
                # fields that never come in pairs are frames of their own
                alone = "field" in str(error) and not packets.second.any()
                if error.unsupported is None and not alone:
                    raise SourceError("truncated", f"the last picture is cut short: {error}") from error


def _extraction(options: Options, block: int, timeline: Timeline, table: FrameTable) -> dict[str, Any]:
    warnings = []
    if timeline.synthetic:
        warnings.append("no usable time stamps: frames are in decoder order and frame_pts count frames")
    if timeline.mended:
        warnings.append(f"{timeline.mended} of the time stamps were missing or repeated: set between their neighbours")
    if timeline.leading:
        warnings.append(f"{timeline.leading} pictures before the first key frame cannot be decoded")
    if missing := table.decoding.missing:
        given = f"{missing} of {missing + len(table.packets)} frames"
        warnings.append(f"{given} are left out: the decoder gives no picture of them")
    return {
        "version": __version__,
        "libraries": {
            "av": av.__version__,
            "ffmpeg": av.ffmpeg_version_info,
            "numpy": np.__version__,
            "numba": numba.__version__,
        },
        "options": options.describe(),
        "digest": options.digest(),
        "frames": len(table.packets),
        "sampling": options.frames if isinstance(options.frames, str) else list(options.frames),
        "block": block,
        "pixels": options.pixels,
        "warnings": warnings,
    }
