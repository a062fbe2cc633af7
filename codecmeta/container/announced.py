"""Packet counts, times and durations that a container announces, compared with those that were read."""

from __future__ import annotations

from functools import partial

import numpy as np

from codecmeta.container import avi_structure, matroska_structure
from codecmeta.container.packet_form import open_check
from codecmeta.container.packet_pictures import PacketPictures
from codecmeta.container.packets import PacketTable
from codecmeta.container.unit_table import UnitTable
from codecmeta.container.video import Video
from codecmeta.record.meta import MISSING
from codecmeta.storage.byte_source import ByteSource

_LEAST_GAP = 1.0
_SHARE_GAP = 0.02
_PAUSES = 4.0
"""Seconds, share of the duration, and longest pauses by which a file may end before the duration in its header."""

_LEAST_RATE = 8
_SHARE_STEP = 0.1
"""Packets from which a constant rate is recognised, and how far one of its steps may deviate from the others."""


def find_missing(video: Video, packets: PacketTable, pictures: PacketPictures | None = None) -> str | None:
    """Find evidence that packets of a video stream are missing or that its container is damaged.

    Args:
        video: the opened video.
        packets: its packet table.
        pictures: what the headers of its packets say, where they were read.

    Returns:
        The observation; None where everything announced was read.
    """
    name = video.container.format.name
    if video.codec == "vp9" and (lost := _count_unshown(packets, pictures)):
        return f"{lost} packets show no picture where the times of the others leave room for one"
    if "matroska" in name:
        return _compare_matroska(video, packets)
    if name == "avi":
        return _compare_avi(video, packets)
    if video.track is not None and video.track.fragmented and (lost := _count_overlapped(packets)):
        return f"{lost} frames are hidden: their fragments begin before those that precede them end"
    return _compare_times(packets)


def find_continuity(video: Video, packets: PacketTable) -> str | None:
    """Find evidence that no packet of a transport stream, which announces no length, is missing between its ends.

    Continuity counters reveal losses except for multiples of 16 transport packets; a constant rate of all time stamps
    reveals lost frames. The last packet was found whole when the file was judged.

    Args:
        video: the opened video.
        packets: its packet table.

    Returns:
        The observation; None for other containers, and where the rate varies or is unknown.
    """
    if video.container.format.name != "mpegts" or packets.corrupt or packets.size.size < _LEAST_RATE:
        return None
    for stamps in (packets.dts, packets.pts):
        if (stamps == MISSING).any():
            return None
        steps = np.diff(np.sort(stamps).astype(np.float64))
        step = float(np.median(steps))
        if step <= 0 or (np.abs(steps - step) > _SHARE_STEP * step).any():
            return None
    return f"{packets.size.size} frames at a constant rate without a gap; the last transport packet is whole"


def find_doubt(video: Video) -> str | None:
    """Find a contradiction in an MP4/MOV header that may hide frames on purpose or by damage; None without one."""
    hidden = 0 if video.track is None else video.track.hidden_end
    return f"the edit list hides {hidden} frames at the end that the track's header counts in" if hidden else None


def _count_overlapped(packets: PacketTable) -> int:
    """Count samples of fragments that libav hides because their times go back, not because of an edit list."""
    return int(np.count_nonzero(packets.restarted & ~packets.shown))


def _count_unshown(packets: PacketTable, pictures: PacketPictures | None) -> int:
    """Count frames that are not shown in gaps between shown frames: frames for reference only take no time."""
    shown = packets.shown if pictures is None else packets.shown & pictures.shown
    hidden = packets.pts[~shown & (packets.pts != MISSING)]
    times = np.sort(packets.pts[shown & (packets.pts != MISSING)])
    if times.size < _LEAST_RATE:
        return 0
    after = np.searchsorted(times, hidden)
    inner = after[(after > 0) & (after < times.size)]
    steps = np.diff(times.astype(np.float64))
    return int(np.count_nonzero(steps[inner - 1] > 1.5 * np.median(steps)))


def _compare_times(packets: PacketTable) -> str | None:
    """Compare decoding times with presentation times: where only the latter have a gap, a frame's time is damaged.

    The frame with the damaged time then comes last, or is hidden by an edit list that ends before it.
    """
    if packets.size.size < _LEAST_RATE or (packets.pts == MISSING).any() or (packets.dts == MISSING).any():
        return None
    decoded = np.diff(packets.dts.astype(np.float64))
    shown = np.diff(np.sort(packets.pts).astype(np.float64))
    step = float(np.median(decoded))
    if step <= 0 or (np.abs(decoded - step) > _SHARE_STEP * step).any():
        return None
    gaps = int(np.count_nonzero(np.abs(shown - step) > 0.5 * step))
    return f"{gaps} gaps in the times of presentation, none in those of decoding" if gaps else None


def _count(packets: PacketTable) -> int:
    """Count the packets of the container, two of which can form one entry of the table."""
    return int(packets.size.size + np.count_nonzero(packets.second))


def _place(video: Video) -> int:
    """Return the index of the stream among the file's video streams."""
    return [stream.index for stream in video.container.streams.video].index(video.stream.index)


def _compare_matroska(video: Video, packets: PacketTable) -> str | None:
    found = matroska_structure.read_structure(video.source)
    if found.fault is not None:
        return found.fault
    place, read = _place(video), _count(packets)
    if place >= len(found.video_tracks):
        return "the header lists fewer video tracks than there are"
    written = found.blocks[found.video_tracks[place]]
    if written != read:
        return f"the track has {written} frames, {read} were read"
    # where the rate varies, the last picture may stay as long as earlier ones did, or longer
    allowed = max(_LEAST_GAP, _SHARE_GAP * (found.duration or 0), _PAUSES * found.pause)
    if found.duration is not None and found.duration - found.end > allowed:
        return f"the header announces {found.duration:.2f} s, the last packet ends at {found.end:.2f} s"
    return None


def _compare_avi(video: Video, packets: PacketTable) -> str | None:
    found = avi_structure.read_structure(video.source)
    if found.fault is not None:
        return found.fault
    read = _count(packets)
    stream = video.stream.index
    if missing := found.missing(stream):
        return missing
    if found.chunks[stream] != read:
        return f"the stream has {found.chunks[stream]} chunks with content, {read} were read"
    return None


def count_malformed(video: Video, packets: PacketTable, units: UnitTable | None) -> int:
    """Count packets that a decoder will refuse for their form, in a file whose index gives their positions.

    Args:
        video: the opened video.
        packets: its packet table; without positions nothing is counted.
        units: its NAL units, where the codec has NAL units.
    """
    if units is not None:
        return units.malformed
    check = open_check(video.codec, bytes(video.stream.codec_context.extradata or b""))
    if packets.position is None or packets.second_position is None or check is None:
        return 0
    malformed = 0
    parts = [(packets.position, packets.size - packets.second), (packets.second_position, packets.second)]
    for positions, sizes in parts:
        for number, (position, size) in enumerate(zip(positions.tolist(), sizes.tolist(), strict=True)):
            if size:
                width = packets.history.packaging(number)
                malformed += not check(partial(_read, video.source, position), size, width)
    return malformed


def _read(source: ByteSource, begin: int, at: int, count: int) -> bytes:
    return source.read_at(begin + at, count)
