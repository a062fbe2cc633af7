"""Video of a request: frames and codec metadata, read from the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from codecmeta import Limits, VideoMeta

NATIVE_PIXELS = 4320
"""Short side that frames of no allowed size exceed: they keep their own size, which the model's processor changes."""

_DEFAULT_FPS = 24.0
"""Rate of a video of one picture that states none, as transformers assumes it."""


class Sampler(Protocol):
    """Rule by which the processor of a family of models chooses frames."""

    def __call__(self, count: int, fps: float, duration: float, /) -> Sequence[int]:
        """Return indices of frames.

        Args:
            count: frames of the video.
            fps: frames per second.
            duration: seconds.
        """
        ...


def read_video(data: bytes, sample: Sampler, *, pixels: int = NATIVE_PIXELS, limits: Limits | None = None) -> VideoMeta:
    """Read the chosen frames of a video, and its codec metadata.

    Args:
        data: all bytes of the file.
        sample: chooses the frames.
        pixels: largest short side of the frames; larger ones are scaled down.
        limits: the largest demands that the video may make.

    Raises:
        CodecMetaError: it cannot be read, or makes larger demands.
    """
    # every process of vLLM imports this module, and few read videos
    from codecmeta import extract

    def choose(seconds: NDArray[np.float64], fps: float | None) -> Sequence[int]:
        count = len(seconds)
        if count == 1:
            # rules that pair frames choose none
            return (0,)
        rate = fps or _measure_rate(seconds)
        return sample(count, rate, count / rate)

    return extract(data, frames=choose, pixels=pixels, limits=limits)


def _measure_rate(seconds: NDArray[np.float64]) -> float:
    span = float(seconds[-1] - seconds[0])
    return (len(seconds) - 1) / span if span > 0 else _DEFAULT_FPS


def describe_reading(meta: VideoMeta) -> str:
    """Describe in a line what was read of a video: codec, size, frames, and its signals with their sources."""
    stream, signals = meta.info["stream"], meta.info["signals"]
    found = ", ".join(f"{name} from {signals[key]['source']}" for name, key in _SIGNALS if "source" in signals[key])
    return (
        f"{stream['codec']} {stream['width']}x{stream['height']}, {len(meta.frame_pts)} frames of "
        f"{stream['packets']} packets in {len(meta.gops)} GoPs; {found}"
    )


def list_shortfalls(meta: VideoMeta) -> list[str]:
    """List what could not be read of a video, in sentences: signals that are absent, frames that are missing."""
    signals = meta.info["signals"]
    absent = [f"no {name}: {signals[key]['absent']}" for name, key in _SIGNALS if "absent" in signals[key]]
    return [*absent, *meta.info["extraction"]["warnings"]]


_SIGNALS = (("packet sizes", "packets"), ("residual", "innovation"), ("bits of blocks", "mb_bits"))
"""Signals that methods read, and their names in a record."""
