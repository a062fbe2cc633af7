"""Residual sources of a stream, best first."""

from __future__ import annotations

from codecmeta.container.video import Video
from codecmeta.errors import SourceError
from codecmeta.prediction.standards import STANDARDS
from codecmeta.record.options import ResidualChoice
from codecmeta.residual.h264_source import H264Source
from codecmeta.residual.hevc_source import HevcSource
from codecmeta.residual.motion import MotionSource
from codecmeta.residual.proxy import ProxySource
from codecmeta.residual.source import ResidualSource, SourceName


def choose_sources(choice: ResidualChoice, codec: str) -> tuple[SourceName, ...]:
    """Choose the sources to try for a stream, best first; none where `auto` finds no readable residual.

    A proxy costs an encoding of every frame and its predecessor, and is used only on request.

    Raises:
        SourceError: the requested source does not work for this codec.
    """
    if choice == "none":
        return ()
    fitting: list[SourceName] = []
    if codec in ("h264", "hevc"):
        fitting.append("bitstream")
    if codec in STANDARDS:
        fitting.append("motion")
    if choice == "auto":
        return tuple(fitting)
    if choice not in (*fitting, "proxy"):
        allowed = ", ".join(("auto", *fitting, "proxy", "none"))
        raise SourceError("no_signal", f"residual {choice!r} is not available for {codec}; choose from {allowed}")
    return (choice,)


def open_source(name: SourceName, video: Video, *, vectors: bool = False, carries: bool = False) -> ResidualSource:
    """Open a source for a video.

    Args:
        name: which one.
        video: the video.
        vectors: whether its motion vectors are requested, if it has any.
        carries: whether it follows what pictures carry, if it can.
    """
    extradata = bytes(video.stream.codec_context.extradata or b"")
    if name == "bitstream" and video.codec == "hevc":
        return HevcSource(width=video.width, height=video.height, form=video.form, extradata=extradata)
    if name == "bitstream":
        return H264Source(
            width=video.width,
            height=video.height,
            form=video.form,
            extradata=extradata,
            vectors=vectors,
            carries=carries,
        )
    if name == "motion":
        return MotionSource(width=video.width, height=video.height, codec=video.codec, extradata=extradata)
    return ProxySource(width=video.width, height=video.height)
