"""Pictures of the tokens that each method keeps: a few frames of the video, and a bit per token and method."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from compress.baselines.baseline import spread
from compress.comparison.coverage import Place
from compress.plan import MergePlan

if TYPE_CHECKING:
    from codecmeta import VideoMeta

SHOWN: Final = 6
"""Frames that are shown of a video."""
LONGEST: Final = 224
"""Pixels of the longer side of a picture."""
QUALITY: Final = 72
"""Of JPEG."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Some frames of a video, and which of their tokens are anchors of what methods keep.

    Attributes:
        place: of the tokens.
        shown: numbers of the frames of tokens that are shown.
        seconds: when each of them is.
        frames: JPEG files; none where the record has no cached frames.
        kept: by method and retention, a bit per token of the frames shown, packed, as base64.
        counts: likewise, tokens kept of every frame.
    """

    place: Place
    shown: tuple[int, ...]
    seconds: tuple[float, ...]
    frames: tuple[bytes, ...]
    kept: dict[tuple[str, float], str] = field(default_factory=dict)
    counts: dict[tuple[str, float], tuple[int, ...]] = field(default_factory=dict)

    @staticmethod
    def of(meta: VideoMeta, place: Place) -> Pictures:
        """Take frames spread evenly over a video."""
        sampled = len(meta.frame_pts)
        total = -(-sampled // place.temporal)
        shown = spread(min(SHOWN, total), total).tolist()
        frames = () if meta.frames is None else tuple(_encode(meta.frames[one * place.temporal]) for one in shown)
        seconds = tuple(round(float(meta.frame_seconds[one * place.temporal]), 3) for one in shown)
        return Pictures(place=place, shown=tuple(shown), seconds=seconds, frames=frames)

    def add(self, method: str, retention: float, plan: MergePlan) -> None:
        """Add what a method keeps at a retention."""
        rows, cols = self.place.grid
        kept = np.zeros(plan.count_in, np.bool_)
        kept[plan.keep.cpu().numpy()] = True
        by_frame = kept.reshape(-1, rows * cols)
        packed = np.packbits(by_frame[list(self.shown)].ravel())
        self.kept[method, retention] = base64.b64encode(packed.tobytes()).decode("ascii")
        self.counts[method, retention] = tuple(by_frame.sum(axis=1).tolist())

    def describe(self) -> Mapping[str, object]:
        """Return plain values, without what methods keep."""
        return {
            "grid": self.place.grid,
            "covered": self.place.covered,
            "shown": self.shown,
            "seconds": self.seconds,
            "frames": [base64.b64encode(one).decode("ascii") for one in self.frames],
        }


def _encode(frame: np.typing.NDArray[np.uint8]) -> bytes:
    height, width = frame.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    written, file = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not written:
        raise ValueError(f"a frame of shape {frame.shape} cannot be written as JPEG")
    return file.tobytes()
