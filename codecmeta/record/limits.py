"""Limits on the demands of one video, against files that are made to exhaust a machine."""

from __future__ import annotations

from dataclasses import dataclass

from codecmeta.errors import UsageError
from codecmeta.record import npz
from codecmeta.storage.opening import MOST_COPIED


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one extraction; a video beyond them is refused with the code `limit_exceeded`.

    Attributes:
        pixels: luma samples of a picture. The default is slightly above 8192x4320.
        frames: number of packets of the video stream.
        bytes: size of the record's arrays.
        copied: size of a file elsewhere that is copied to this machine, since it cannot be read by ranges.

    Raises:
        UsageError: a limit is not positive.
    """

    pixels: int = 36_000_000
    frames: int = 1 << 26
    bytes: int = npz.MAX_BYTES
    copied: int = MOST_COPIED

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise UsageError(f"limit of {name} is {value}; allowed are whole numbers from 1")
