"""Encoded videos: what the vision encoder showed of each, kept with its features."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from compress.models.adapters.adapter import VideoGrid, VisionView
from compress.models.origin import Origin
from compress.stage import Compression

_VIDEOS: Final = "_compress_videos"
"""The attribute of features, and of the output that holds them, that names their videos."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedVideo:
    """A video after the vision encoder.

    Attributes:
        session: which encoded it.
        grid: frames, rows and columns of its patches.
        view: what the encoder showed.
        patches: what was merged of its patches; None where nothing was.
        entry: index of the metadata that the merge used; None where no patches merge.
        origin: of its pixels; None where it is not known.
    """

    session: weakref.ref[Any]
    grid: VideoGrid
    view: VisionView
    patches: Compression | None
    entry: int | None
    origin: Origin | None = None


def tag(output: Any, videos: Sequence[EncodedVideo]) -> None:
    """Keep the videos with their features, which may be passed on, listed again and joined with others.

    Args:
        output: of ``core.get_video_features``.
        videos: in order.
    """
    features = getattr(output, "pooler_output", None)
    if features is None:
        return
    setattr(output, _VIDEOS, tuple(videos))
    if isinstance(features, Tensor):
        setattr(features, _VIDEOS, tuple(videos))
    elif len(features) == len(videos):
        for one, video in zip(features, videos, strict=True):
            setattr(one, _VIDEOS, (video,))


def videos_of(output: Any, session: object) -> list[EncodedVideo] | None:
    """Return the videos that features belong to; None where this session did not encode them.

    Args:
        output: as ``mm_encoder_outputs["video"]`` holds it.
        session: whose videos count.
    """
    parts = _parts(output.get("pooler_output") if isinstance(output, dict) else getattr(output, "pooler_output", None))
    tags: list[Any] = [getattr(part, _VIDEOS, None) for part in parts]
    if parts and all(one is not None for one in tags):
        videos = [video for one in tags for video in one]
    else:
        # Beams stack features again, but leave the output that holds them.
        videos = list(getattr(output, _VIDEOS, ()))
    if not videos or any(video.session() is not session for video in videos):
        return None
    return videos


def _parts(features: Any) -> list[Any]:
    """List features as they may carry their videos: of all videos in one tensor, or of each in its own."""
    if features is None:
        return []
    return [features] if isinstance(features, Tensor) else list(features)
