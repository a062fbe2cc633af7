"""One video file -> VideoMeta."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import av
import numba
import numpy as np
from numpy.typing import NDArray

from codecmeta import __version__
from codecmeta.container.completeness import State, judge_file
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.timeline import Timeline, from_decoder, from_pts, has_usable_pts
from codecmeta.container.video import PacketTable, Video, open_video, read_packets
from codecmeta.decoding.decoder import presentation_order
from codecmeta.decoding.rgb import scaled_size
from codecmeta.errors import BitstreamError, SourceError, UsageError
from codecmeta.frame_record import FrameRecord
from codecmeta.h264.reader import ResidualReader
from codecmeta.harvest import Harvest, Harvester
from codecmeta.record import npz
from codecmeta.record.gop import split_gops
from codecmeta.record.meta import MISSING, VideoMeta
from codecmeta.record.options import MAPS, MapChoice, Options, ResidualChoice
from codecmeta.record.sampling import choose_frames
from codecmeta.residual.source import STANDARDS

_SMALL_PICTURE = 288
_DIGEST_BYTES = 1 << 20
_UNKNOWN_QP = -128
_MAX_REASONS = 100


def extract(
    source: str | os.PathLike[str],
    *,
    frames: str | Sequence[int] = "uniform:32",
    residual: ResidualChoice = "auto",
    maps: Sequence[MapChoice] = MAPS,
    pixels: int | None = 384,
    motion: bool = False,
    qp: bool = False,
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

    Raises:
        UsageError: an option is not allowed, or selects no frame.
        SourceError: the file cannot be read; `code` says why.
    """
    options = Options(frames=frames, residual=residual, maps=maps, pixels=pixels, motion=motion, qp=qp)
    return extract_video(source, options)


def extract_video(source: str | os.PathLike[str], options: Options) -> VideoMeta:
    """`extract` with checked options."""
    path = Path(source)
    with open_video(path) as video:
        state, evidence = judge_file(path, video.size)
        if state == "truncated":
            raise SourceError("truncated", f"the file is cut short: {evidence}")
        identity = _identify(path)
        packets = read_packets(video)
        if state == "unknown":
            _check_last_packet(video, packets)
        timeline = _order(video, packets)
        base = video.stream.time_base
        numerator, denominator = (base.numerator, base.denominator) if base else (1, 1)
        chosen = choose_frames(
            options.frames if isinstance(options.frames, str) else tuple(options.frames),
            timeline.pts.astype(np.float64) * np.float64(numerator / denominator),
            packets.key[timeline.packet],
        )
        block: Literal[4, 8] = 4 if min(video.width, video.height) < _SMALL_PICTURE else 8
        targets = timeline.packet[chosen].tolist()
        _check_output(video, options, len(targets), block)
        harvest = Harvester(video, packets, timeline, targets, options, block).run()
        if _identify(path) != identity:
            raise SourceError("changed_while_reading", "the file changed while it was read")
        signals = _signals(video, packets, options, harvest)
        info = {
            "source": identity,
            "stream": _stream(video, packets, timeline, (numerator, denominator), harvest.rotation),
            "verdict": _verdict(state, evidence, packets, timeline, harvest),
            "signals": signals,
            "extraction": _extraction(options, block, timeline, len(harvest.targets)),
        }
        return VideoMeta(
            info=info,
            packet_pts=packets.pts,
            packet_dts=packets.dts,
            packet_size=packets.size,
            packet_key=packets.key,
            frame_packet=np.array(harvest.targets, np.int32),
            frame_pts=timeline.pts[np.isin(timeline.packet, harvest.targets)],
            frame_type=np.array([record.type for record in harvest.records], "<U1"),
            **_arrays(harvest, signals),
        )


def _identify(path: Path) -> dict[str, Any]:
    """Name, length, modification time and a digest of both ends of a file."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256(file.read(_DIGEST_BYTES))
        if status.st_size > _DIGEST_BYTES:
            file.seek(max(_DIGEST_BYTES, status.st_size - _DIGEST_BYTES))
            digest.update(file.read(_DIGEST_BYTES))
    return {
        "name": path.name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": digest.hexdigest(),
    }


def _check_output(video: Video, options: Options, frames: int, block: int) -> None:
    """Refuse what would not fit the record, before anything is allocated."""
    blocks = -(-video.width // block) * -(-video.height // block)
    size = frames * blocks * 4 * (8 if options.chosen_maps else 0)
    if options.pixels is not None:
        wide, tall = scaled_size(video.width, video.height, short_side=options.pixels)
        size += frames * wide * tall * 3
    if size > npz.MAX_BYTES:
        gib = f"{size / 2**30:.0f} GiB for {frames} frames, at most {npz.MAX_BYTES / 2**30:.0f} GiB are allowed"
        raise UsageError(f"the record would take {gib}: choose fewer frames, or leave out pixels or maps")


def _check_last_packet(video: Video, packets: PacketTable) -> None:
    """A raw or transport stream that was cut ends in a picture that cannot be parsed to its end (H.264)."""
    if video.codec != "h264":
        return
    reader = ResidualReader(bytes(video.stream.codec_context.extradata or b""))
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


def _order(video: Video, packets: PacketTable) -> Timeline:
    reorders = bool(video.stream.codec_context.has_b_frames) and video.container.format.name in ("avi", "asf")
    if has_usable_pts(packets, reorders=reorders):
        return from_pts(packets)
    ticks = _measured_ticks(packets)
    if ticks is None:
        base = video.stream.time_base
        ticks = round(1 / ((video.fps or 25.0) * base)) if base else 1
    return from_decoder(presentation_order(video, packets), packets=packets.size.size, ticks=ticks)


def _measured_ticks(packets: PacketTable) -> int | None:
    """Length of a frame in a stream of fields, which containers count, from the few packets that have a time stamp."""
    known = np.flatnonzero(packets.dts != MISSING)
    if not packets.second.any() or known.size < 2:
        return None
    return round(float(np.median(np.diff(packets.dts[known].astype(np.float64)) / np.diff(known))))


def _frame_rate(video: Video, packets: PacketTable, timeline: Timeline, time_base: tuple[int, int]) -> float | None:
    """Frames per second as the container tells it; measured where packets are fields, which containers count."""
    span = int(timeline.pts[-1]) - int(timeline.pts[0])
    if not packets.second.any() or not span:
        return video.fps
    return (timeline.pts.size - 1) * time_base[1] / (span * time_base[0])


def _stream(
    video: Video, packets: PacketTable, timeline: Timeline, time_base: tuple[int, int], rotation: int
) -> dict[str, Any]:
    stream, context = video.stream, video.stream.codec_context
    pixels = context.format
    ratio = stream.sample_aspect_ratio
    duration = stream.duration * time_base[0] / time_base[1] if stream.duration else None
    if duration is None and video.container.duration:
        duration = video.container.duration / av.time_base
    return {
        "index": stream.index,
        "container": video.container.format.name,
        "codec": video.codec,
        "profile": context.profile,
        "width": video.width,
        "height": video.height,
        "pixel_format": pixels.name if pixels else None,
        "bit_depth": pixels.components[0].bits if pixels else None,
        "chroma": _chroma(video),
        "fps": _frame_rate(video, packets, timeline, time_base),
        "time_base": list(time_base),
        "duration_s": duration,
        "rotation": rotation,
        "sar": [ratio.numerator, ratio.denominator] if ratio else None,
        "packets": int(packets.size.size),
    }


def _chroma(video: Video) -> str:
    tall, wide = video.chroma_size
    if not tall:
        return "4:0:0"
    half_wide, half_tall = wide < video.width, tall < video.height
    if half_wide:
        return "4:2:0" if half_tall else "4:2:2"
    return "4:4:0" if half_tall else "4:4:4"


def _verdict(state: State, evidence: str, packets: PacketTable, timeline: Timeline, harvest: Harvest) -> dict[str, Any]:
    damaged = packets.corrupt + harvest.errors + harvest.corrupt + harvest.missing > 0
    return {
        "state": "damaged" if damaged else state,
        "evidence": evidence,
        "packets": int(packets.size.size),
        "gops": len(split_gops(packets.size, packets.key)),
        "frames": int(timeline.packet.size),
        "leading": timeline.leading,
        "hidden": int(np.count_nonzero(~packets.shown)),
        "field_pairs": int(np.count_nonzero(packets.second)),
        "corrupt_packets": packets.corrupt,
        "pictures_decoded": harvest.decoded,
        "decode_errors": harvest.errors,
        "corrupt_pictures": harvest.corrupt,
        "missing_frames": harvest.missing,
    }


def _extraction(options: Options, block: int, timeline: Timeline, frames: int) -> dict[str, Any]:
    warnings = []
    if timeline.synthetic:
        warnings.append("no usable time stamps: frames are in decoder order and frame_pts count frames")
    if timeline.leading:
        warnings.append(f"{timeline.leading} pictures before the first key frame cannot be decoded")
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
        "frames": frames,
        "sampling": options.frames if isinstance(options.frames, str) else list(options.frames),
        "block": block,
        "pixels": options.pixels,
        "warnings": warnings,
    }


def _signals(video: Video, packets: PacketTable, options: Options, harvest: Harvest) -> dict[str, dict[str, Any]]:
    """Per signal its source, or why it is absent."""
    records, columns = harvest.records, harvest.columns
    no_vectors = {"absent": f"{video.codec}: the decoder exports no motion vectors"}
    residual = _residual_signal(options, records)
    signals: dict[str, dict[str, Any]] = {
        "packets": {"source": "container index" if packets.origin == "index" else "demuxing"},
        "frames": {"source": "decoder"} if options.pixels is not None else {"absent": "not asked for (pixels none)"},
    }
    for name in MAPS:
        signals[name] = dict(residual) if name in options.maps else {"absent": "not asked for (maps)"}
    if "source" in signals["carried"] and columns.whole("energy_carried") is None:
        # some decoders export vectors of a prediction that is not followed, such as that of fields
        lost = len(records) - columns.filled("energy_carried")
        which = f"{lost} frames come without" if lost < len(records) else "there are no"
        signals["carried"] = {"absent": f"{video.codec}: {which} motion vectors that can be followed"}
    elif "source" in signals["carried"]:
        signals["carried"]["along"] = _name_origin([record.carried_along for record in records])
        if harvest.gaps:
            signals["carried"]["pictures_not_read"] = harvest.gaps
    for facts in ("mb_bits", "mb_type"):
        whole = columns.whole(facts) is not None
        signals[facts] = {"source": "bitstream"} if whole else {"absent": "read by the bitstream source only"}
    if not options.motion:
        signals["motion"] = {"absent": "not asked for"}
    elif video.codec not in STANDARDS and all(record.vectors is None for record in records):
        signals["motion"] = no_vectors
    else:
        told = [record.vectors_known and record.vectors_from is not None for record in records]
        unknown_vectors = [row for row, known in enumerate(told) if not known]
        origins = [record.vectors_from or "decoder" for record in records]
        signals["motion"] = _name_origin(origins) | ({"unknown_frames": unknown_vectors} if unknown_vectors else {})
    if not options.qp:
        signals["qp"] = {"absent": "not asked for"}
    elif not columns.filled("qp"):
        signals["qp"] = {"absent": f"{video.codec}: the decoder exports no quantisers"}
    else:
        by_bitstream = all(record.source == "bitstream" for record in records)
        unknown = len(records) - columns.filled("qp")
        signals["qp"] = {"source": "bitstream" if by_bitstream else "decoder", "unknown_frames": unknown}
    return signals


def _residual_signal(options: Options, records: Sequence[FrameRecord]) -> dict[str, Any]:
    if options.residual == "none":
        return {"absent": "not asked for (residual none)"}
    names = [record.source for record in records]
    if not any(names):
        return {"absent": "not asked for (maps)"}
    signal = _name_origin(names)
    reasons: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        for name, reason in record.reasons.items():
            reasons.setdefault(f"{name}: {reason}", []).append(row)
    if reasons:
        signal["reasons"] = [
            {"reason": reason, "frames": rows} for reason, rows in list(reasons.items())[:_MAX_REASONS]
        ]
    return signal


def _name_origin(names: Sequence[str | None]) -> dict[str, Any]:
    """One source for all frames, or the source of each."""
    return {"source": names[0]} if len(set(names)) == 1 else {"source": "mixed", "per_frame": list(names)}


def _arrays(harvest: Harvest, signals: dict[str, dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """The optional arrays of all signals that are there."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in npz.OPTIONAL:
        column = harvest.columns.filled_up(name, _UNKNOWN_QP) if name == "qp" else harvest.columns.whole(name)
        if column is not None:
            arrays[name] = column
    if "source" in signals["motion"]:
        empty = np.zeros((0, 7), np.int16)
        vectors = [empty if record.vectors is None else record.vectors for record in harvest.records]
        arrays["mv_offset"] = np.concatenate([[0], np.cumsum([len(part) for part in vectors])]).astype(np.int64)
        arrays["mv"] = np.concatenate(vectors)
    return arrays
