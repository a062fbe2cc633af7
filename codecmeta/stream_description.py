"""Stream description of a record."""

from __future__ import annotations

from typing import Any

import av

from codecmeta.container.packets import PacketTable
from codecmeta.container.timeline import Timeline
from codecmeta.container.video import Video
from codecmeta.record.orientation import Orientation, display_aspect


def _frame_rate(video: Video, packets: PacketTable, timeline: Timeline, time_base: tuple[int, int]) -> float | None:
    """Return frames per second as the container states it, or as measured where its packets are fields."""
    span = int(timeline.pts[-1]) - int(timeline.pts[0])
    if not packets.second.any() or not span:
        return video.fps
    return (timeline.pts.size - 1) * time_base[1] / (span * time_base[0])


def describe_stream(
    video: Video, packets: PacketTable, timeline: Timeline, time_base: tuple[int, int], orientation: Orientation
) -> dict[str, Any]:
    """Describe a stream for `info`.

    Args:
        video: the opened video.
        packets: its packet table.
        timeline: its frames in presentation order.
        time_base: of the time stamps, numerator and denominator.
        orientation: in which its pictures are displayed.
    """
    stream, context = video.stream, video.stream.codec_context
    form = video.form
    ratio, size = video.sample_aspect, (video.width, video.height)
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
        "pixel_format": video.pixels.name if video.pixels else None,
        "bit_depth": form.bits if form else None,
        "chroma": form.chroma if form else "unknown",
        "fps": _frame_rate(video, packets, timeline, time_base),
        "time_base": list(time_base),
        "duration_s": duration,
        "orientation": orientation.matrix(width=video.width, height=video.height),
        "sar": list(ratio) if ratio else None,
        "display_aspect": list(display_aspect(*size, orientation=orientation, sample_aspect=ratio)),
        "packets": int(packets.size.size),
    }
