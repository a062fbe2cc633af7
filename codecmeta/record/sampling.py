"""Frame sampling: `uniform:32`, `fps:1`, `keyframes`, `all`, or explicit indices in presentation order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import SamplingError

MAX_FRAMES = 1 << 20

FORMS = "uniform:N, fps:R, keyframes, all, or indices such as 0,40,80"


class FrameChooser(Protocol):
    """Function that chooses the frames of a video by the times of all of them."""

    def __call__(self, seconds: NDArray[np.float64], fps: float | None, /) -> Sequence[int]:
        """Return indices of frames, of which each is taken once.

        Args:
            seconds: presentation time of every frame, rising, float64 (F,).
            fps: frames per second as the container states them.
        """
        ...


def parse_frames(spec: str | Sequence[int]) -> str | tuple[int, ...]:
    """Check a frame specification without a video.

    Args:
        spec: `uniform:N` (N frames, each in the middle of one of N equal parts of the video), `fps:R` (R frames per
            second of presentation time), `keyframes`, `all`, or indices in presentation order, as a sequence or
            as text.

    Returns:
        The checked specification; indices sorted and unique.

    Raises:
        SamplingError: it is none of these.
    """
    if not isinstance(spec, str):
        return _indices(spec)
    text = spec.strip()
    if text in ("keyframes", "all"):
        return text
    if match := re.fullmatch(r"uniform:(\d{1,7})", text):
        count = int(match[1])
        if 1 <= count <= MAX_FRAMES:
            return f"uniform:{count}"
        raise SamplingError(f"frames={spec!r}: N must be 1..{MAX_FRAMES}")
    if match := re.fullmatch(r"fps:(\d{1,6}(?:\.\d{1,9})?)", text):
        if float(match[1]) > 0:
            return f"fps:{match[1]}"
        raise SamplingError(f"frames={spec!r}: R must be greater than 0")
    if re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
        return _indices([int(part) for part in text.split(",")])
    raise SamplingError(f"frames={spec!r} is not understood; choose from {FORMS}")


def _indices(values: Sequence[int]) -> tuple[int, ...]:
    indices = tuple(sorted({int(value) for value in values}))
    if not indices:
        raise SamplingError(f"an empty list selects no frame; choose from {FORMS}")
    if indices[0] < 0:
        raise SamplingError(f"frame index {indices[0]} is negative; indices count from 0 in presentation order")
    return indices


def choose_frames(
    spec: str | tuple[int, ...], seconds: NDArray[np.float64], key: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Apply a checked specification to a video.

    Args:
        spec: result of `parse_frames`.
        seconds: presentation time of every frame, rising, float64 (F,).
        key: whether a frame's packet starts a GoP, bool (F,).

    Returns:
        Frame indices, rising and unique, int64 (T,). `uniform:N` gives all frames of a video that has at most N.

    Raises:
        SamplingError: an index lies outside the video, or nothing is selected.
    """
    count = seconds.size
    if isinstance(spec, tuple):
        if spec[-1] >= count:
            raise SamplingError(f"frame index {spec[-1]} is outside the video, which has frames 0..{count - 1}")
        return np.array(spec, np.int64)
    if spec == "all":
        chosen = np.arange(count, dtype=np.int64)
    elif spec == "keyframes":
        chosen = np.flatnonzero(key).astype(np.int64)
    elif spec.startswith("uniform:"):
        wanted = min(int(spec[8:]), count)
        chosen = (2 * np.arange(wanted, dtype=np.int64) + 1) * count // (2 * wanted)
    else:
        # the frame on screen at 0, 1/R, 2/R, ... seconds after the first one
        rate = float(spec[4:])
        steps = int(np.floor((seconds[-1] - seconds[0]) * rate + 1e-9)) + 1
        if steps > MAX_FRAMES:
            raise SamplingError(f"{spec} selects {steps} frames; at most {MAX_FRAMES} are allowed")
        times = seconds[0] + np.arange(steps) / rate
        chosen = np.unique(np.searchsorted(seconds, times + 1e-9, side="right") - 1).astype(np.int64)
    if chosen.size == 0:
        raise SamplingError(f"{spec} selects no frame of a video with {count} frames")
    return chosen
