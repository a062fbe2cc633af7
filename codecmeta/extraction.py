"""Extraction of one video file to a VideoMeta."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from codecmeta import h264, hevc
from codecmeta.container.announced import find_doubt
from codecmeta.container.completeness import State, judge_file
from codecmeta.container.orientation import find_display_matrix, is_cut_by_container
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.packets import PacketTable, read_packets
from codecmeta.container.picture_headers import read_pictures
from codecmeta.container.unit_table import read_units
from codecmeta.container.video import Video, open_video
from codecmeta.decoding.decoder import plan_runs
from codecmeta.decoding.presentation import order_frames
from codecmeta.decoding.rgb import scaled_size
from codecmeta.errors import BitstreamError, SourceError
from codecmeta.frame_columns import Request
from codecmeta.frame_reader import read_frames
from codecmeta.frame_table import FrameTable
from codecmeta.provenance import describe_extraction
from codecmeta.record.limits import Limits
from codecmeta.record.meta import VideoMeta
from codecmeta.record.options import DEFAULT_MAPS, JpegQuality, MapChoice, Options, ResidualChoice
from codecmeta.record.orientation import UPRIGHT, Orientation, display_size, is_believable
from codecmeta.record.sampling import FrameChooser, choose_frames
from codecmeta.record.source_identity import describe_source, has_changed
from codecmeta.signals import describe_signals, list_arrays
from codecmeta.stream_description import describe_stream
from codecmeta.verdict import describe_verdict

_SMALL_PICTURE = 288


def extract(
    source: str | os.PathLike[str] | bytes,
    *,
    frames: str | Sequence[int] | FrameChooser = "uniform:32",
    residual: ResidualChoice = "auto",
    maps: Sequence[MapChoice] = DEFAULT_MAPS,
    pixels: int | None = 384,
    square_pixels: bool = True,
    jpeg: JpegQuality | None = None,
    motion: bool = False,
    qp: bool = False,
    track: int | None = None,
    limits: Limits | None = None,
) -> VideoMeta:
    """Read the codec metadata of a video.

    Args:
        source: the file, its URL (`s3://`, `gs://`, `http://`, `https://` or `memory://`), or its bytes.
        frames: `uniform:N`, `fps:R`, `keyframes`, `all`, or indices in presentation order, of which each is taken
            once, whatever their order. Or a function that chooses the indices by the times of all frames, see
            `FrameChooser`.
        residual: source of the residual: `auto`, `bitstream`, `motion`, `proxy` or `none`. `auto` takes the best source
            that reads the stream's own residual; codecs without one have none unless `proxy` is requested.
        maps: energy maps to make, of `innovation` and `carried`, which decodes and follows all pictures in between.
        pixels: short side of the cached RGB frames; None caches none.
        square_pixels: scale the cached frames of anamorphic videos to their display aspect; otherwise a pixel is a
            sample.
        jpeg: quality, 1 to 100, in which the frames are cached as JPEG, or `auto`, see `Options`; None caches their
            pixels.
        motion: keep the motion vectors of the sampled frames.
        qp: keep their quantisers.
        track: index of the video stream among all streams of the file, as `info.stream.index` has it; None takes the
            one that libavformat calls best.
        limits: the largest demands that the video may make, None for the defaults of `Limits`.

    Raises:
        UsageError: an option is not allowed, or selects no frame.
        SourceError: the file cannot be read; `code` gives the reason.
    """
    options = Options(
        frames="all" if callable(frames) else frames,
        residual=residual,
        maps=maps,
        pixels=pixels,
        square_pixels=square_pixels,
        jpeg=jpeg,
        motion=motion,
        qp=qp,
        track=track,
    )
    return extract_video(source, options, limits or Limits(), choose=frames if callable(frames) else None)


def extract_video(
    source: str | os.PathLike[str] | bytes, options: Options, limits: Limits, *, choose: FrameChooser | None = None
) -> VideoMeta:
    """Run `extract` with checked options.

    Args:
        source: see `extract`.
        options: its options.
        limits: see `extract`.
        choose: chooses the frames instead of `options.frames`.
    """
    with open_video(source, limits, track=options.track) as video:
        state, evidence = judge_file(video.source)
        if state == "truncated":
            raise SourceError("truncated", f"the file is cut short: {evidence}")
        identity = describe_source(video.source)
        request, targets, orientation = _plan(video, options, state, choose)
        if not video.source.is_local and _reads_most(request, targets):
            video.source.fetch_all()
            request, targets, orientation = _plan(video, options, state, choose)
        _check_output(request, len(targets), limits)
        table = read_frames(request, targets)
        if has_changed(video.source, identity):
            raise SourceError("changed_while_reading", "the file changed while it was read")
        # the headers of all packets: of a file elsewhere, a request for each
        scans = options.reads_payloads and video.source.is_local
        packets, timeline = request.packets, request.timeline
        units = read_units(video, packets) if scans else None
        pictures = read_pictures(video, packets, units) if scans else packets.pictures
        signals = describe_signals(
            table, packets, pictures, codec=video.codec, payloads=options.reads_payloads, scanned=scans
        )
        info = {
            "source": identity | video.source.describe_access(),
            "stream": describe_stream(video, packets, timeline, _time_base(video), request.orientation),
            "verdict": describe_verdict(
                state, evidence, video, packets, units, pictures, timeline, table, payloads=scans
            ),
            "signals": signals,
            "extraction": describe_extraction(
                request.options,
                frames=len(table.packets),
                block=request.block,
                warnings=_list_warnings(request, table, orientation),
            ),
        }
        meta = VideoMeta(
            info=info,
            packet_pts=packets.pts,
            packet_dts=packets.dts,
            packet_size=packets.size,
            packet_key=packets.key,
            packet_type=pictures.type if pictures else None,
            packet_shown=pictures.shown if pictures else None,
            frame_packet=np.array(table.packets, np.int32),
            frame_pts=timeline.pts[np.isin(timeline.packet, table.packets)],
            frame_type=np.array([table.types[packet] for packet in table.packets], "<U1"),
            **list_arrays(table, signals),
        )
        _check_bytes(meta.nbytes, len(table.packets), limits)
        return meta if options.jpeg is None else meta.with_jpeg(options.jpeg)


def _plan(
    video: Video, options: Options, state: State, choose: FrameChooser | None
) -> tuple[Request, list[int], Orientation | None]:
    """Read packet table and orientation, and choose the packets of the frames to read."""
    packets = read_packets(video, payloads=options.reads_payloads)
    if state == "unknown":
        _check_last_packet(video, packets)
    timeline = order_frames(video, packets)
    numerator, denominator = _time_base(video)
    seconds = timeline.pts.astype(np.float64) * np.float64(numerator / denominator)
    if choose is not None:
        options = replace(options, frames=choose(seconds, video.fps))
    chosen = choose_frames(
        options.frames if isinstance(options.frames, str) else tuple(options.frames),
        seconds,
        packets.key[timeline.packet],
    )
    orientation = Orientation.from_display_matrix(find_display_matrix(video, packets))
    request = Request(
        video=video,
        packets=packets,
        timeline=timeline,
        options=options,
        orientation=orientation or UPRIGHT,
        block=4 if min(video.width, video.height) < _SMALL_PICTURE else 8,
    )
    return request, timeline.packet[chosen].tolist(), orientation


def _time_base(video: Video) -> tuple[int, int]:
    base = video.stream.time_base
    return (base.numerator, base.denominator) if base else (1, 1)


def _reads_most(request: Request, targets: Sequence[int]) -> bool:
    """Return whether most of a file is going to be read, so that copying it costs less than its parts."""
    options, packets = request.options, request.packets
    if not options.reads_payloads:
        return False
    decodes = options.pixels is not None or options.motion or options.qp or "carried" in options.chosen_maps
    if decodes or request.video.codec not in ("h264", "hevc"):
        runs = plan_runs(packets, request.timeline.rank, targets)
        numbers = np.concatenate([np.arange(run.start, run.stop) for run in runs])
    else:
        numbers = np.array(targets)
    return 2 * int(packets.size[numbers].sum()) > request.video.source.size


def _check_output(request: Request, frames: int, limits: Limits) -> None:
    """Refuse output that would not fit the record, before anything is allocated."""
    video, options, block = request.video, request.options, request.block
    blocks = -(-video.width // block) * -(-video.height // block)
    size = frames * blocks * 4 * (8 if options.chosen_maps else 0)
    if options.pixels is not None:
        shown = display_size(
            video.width, video.height, orientation=request.orientation, sample_aspect=request.sample_aspect
        )
        wide, tall = scaled_size(*shown, short_side=options.pixels)
        size += frames * wide * tall * 3
    _check_bytes(size, frames, limits)


def _check_bytes(size: int, frames: int, limits: Limits) -> None:
    if size > limits.bytes:
        raise SourceError(
            "limit_exceeded",
            f"the record of {frames} frames takes {size} bytes; allowed are {limits.bytes}; choose fewer frames, omit "
            "pixels or maps, or raise the limit",
        )


def _check_last_packet(video: Video, packets: PacketTable) -> None:
    """Refuse a raw or transport stream whose last picture cannot be parsed to its end (H.264, HEVC): it was cut."""
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
                unpaired = "field" in str(error) and not packets.second.any()
                if error.unsupported is None and not unpaired:
                    raise SourceError("truncated", f"the last picture is cut short: {error}") from error


def _list_warnings(request: Request, table: FrameTable, orientation: Orientation | None) -> list[str]:
    """Describe what a user should know about a record, in sentences."""
    timeline, ratio = request.timeline, request.video.sample_aspect
    warnings = []
    if request.video.others and request.options.track is None:
        warnings.append(f"the file has other video tracks, which are not read: {'; '.join(request.video.others)}")
    if (fps := request.options.fps) is not None:
        warnings.append(
            f"fps={fps:g} is for folders of pictures and was not used; frames='fps:{fps:g}' takes as many a second"
        )
    if timeline.synthetic:
        warnings.append("no usable time stamps: frames are in decoder order and frame_pts count frames")
    if timeline.mended:
        warnings.append(f"{timeline.mended} of the time stamps were missing or repeated and were interpolated")
    if timeline.leading:
        warnings.append(f"{timeline.leading} pictures before the first key frame cannot be decoded")
    if missing := table.decoding.missing:
        given = f"{missing} of {missing + len(table.packets)} frames"
        warnings.append(f"{given} are omitted: the decoder gives no picture for them")
    damaged = table.decoding.unreadable.intersection(table.packets)
    if table.requests("residual") and (lost := sum(not table.holds(packet, "residual") for packet in damaged)):
        warnings.append(f"{lost} of {len(table.packets)} frames are damaged and have no residual")
    if orientation is None:
        warnings.append(
            "the display matrix does not rotate by a multiple of 90 degrees: pictures keep their coded orientation"
        )
    if turned := table.decoding.turned_otherwise:
        warnings.append(
            f"the orientation changes: {turned} frames are displayed in the orientation of the first picture"
        )
    if request.video.has_alpha and request.options.pixels is not None:
        warnings.append("the pictures have an alpha channel, which is not read: frames show their colours as opaque")
    if doubt := find_doubt(request.video):
        warnings.append(doubt)
    if is_cut_by_container(request.video):
        warnings.append("the container cuts the pictures by a clean aperture or PixelCrop: they are shown uncropped")
    if request.packets.unscanned and request.options.reads_payloads:
        warnings.append(
            "the file was read by ranges: only its key packets were searched for parameter sets, which may change in "
            "others; copy the file to have all searched"
        )
    if ratio is not None and not is_believable(ratio):
        warnings.append(f"the sample aspect ratio {ratio[0]}:{ratio[1]} is implausible: samples are taken as square")
    return warnings
