"""Options of one extraction, checked once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from codecmeta.errors import UsageError
from codecmeta.record.sampling import parse_frames

ResidualChoice = Literal["auto", "bitstream", "motion", "proxy", "none"]
MapChoice = Literal["innovation", "carried"]
JpegQuality = int | Literal["auto"]

RESIDUALS: tuple[ResidualChoice, ...] = get_args(ResidualChoice)
MAPS: tuple[MapChoice, ...] = get_args(MapChoice)
DEFAULT_MAPS: tuple[MapChoice, ...] = ("innovation",)
"""Maps made by default, where a stream has a residual that is read without encoding anything."""

MAX_SHORT_SIDE = 4320
MAX_QUALITY = 100


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of one extraction.

    Attributes:
        frames: frame specification, as `sampling.parse_frames` takes it.
        residual: source of the residual; `auto` takes the best source that reads the stream's own, and makes no
            `proxy`.
        maps: energy maps to make.
        pixels: short side of the cached frames, None to cache none.
        square_pixels: scale the cached frames of anamorphic videos to the aspect in which they are displayed.
        motion: keep the motion vectors of the sampled frames.
        qp: keep the quantisers of the sampled frames.
        track: index of the video stream among all streams of the file; None takes the one that libavformat ranks best.
        fps: frames per second of a folder of pictures; None is 25.
        jpeg: quality, 1 to 100, in which the frames are cached as JPEG; `auto` is 90, and less for pictures that take
            too many bytes (see docs/format.md); None caches their pixels.

    Raises:
        UsageError: an option is not allowed.
    """

    frames: str | Sequence[int] = "uniform:32"
    residual: ResidualChoice = "auto"
    maps: Sequence[MapChoice] = DEFAULT_MAPS
    pixels: int | None = 384
    square_pixels: bool = True
    motion: bool = False
    qp: bool = False
    track: int | None = None
    fps: float | None = None
    jpeg: JpegQuality | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", parse_frames(self.frames))
        unknown = [name for name in self.maps if name not in MAPS]
        if isinstance(self.maps, str) or unknown:
            raise UsageError(f"maps={self.maps!r}; choose a sequence from {', '.join(MAPS)}")
        object.__setattr__(self, "maps", tuple(name for name in MAPS if name in self.maps))
        if self.residual == "none" and "carried" in self.maps:
            raise UsageError("residual='none' with the map carried, which is made of a residual; leave one of them out")
        if self.residual not in RESIDUALS:
            raise UsageError(f"unknown residual {self.residual!r}; choose from {', '.join(RESIDUALS)}")
        if self.pixels is not None and not 16 <= self.pixels <= MAX_SHORT_SIDE:
            raise UsageError(f"pixels={self.pixels}; allowed are 16..{MAX_SHORT_SIDE}, or none for no frames")
        if self.track is not None and self.track < 0:
            raise UsageError(f"track={self.track}; allowed are indices of streams from 0, or None for the best one")
        known = self.jpeg in (None, "auto") or (isinstance(self.jpeg, int) and 1 <= self.jpeg <= MAX_QUALITY)
        if not known or (self.jpeg is not None and self.pixels is None):
            raise UsageError(
                f"jpeg={self.jpeg}; allowed are auto, or 1..{MAX_QUALITY}, where pixels are cached, or None"
            )
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UsageError(f"fps={self.fps}; allowed are numbers greater than 0")

    @property
    def chosen_maps(self) -> tuple[MapChoice, ...]:
        """Energy maps that are requested; none without a residual."""
        return () if self.residual == "none" else tuple(self.maps)

    @property
    def reads_payloads(self) -> bool:
        """Whether anything but the packet table is requested."""
        return self.pixels is not None or self.motion or self.qp or bool(self.chosen_maps)

    def describe(self) -> dict[str, Any]:
        """Describe the options as plain JSON values."""
        values = asdict(self)
        for name in ("fps", "jpeg"):
            # records are as fresh as before there were such options
            if values[name] is None:
                del values[name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def digest(self) -> str:
        """Return a short identifier that differs whenever an option does."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:16]


def parse_maps(text: str) -> tuple[MapChoice, ...]:
    """Parse a list of maps such as `innovation,carried`.

    Raises:
        UsageError: a name is not a map, or there is none.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in MAPS:
            raise UsageError(f"unknown map {name!r}; choose from {', '.join(MAPS)}")
    if not names:
        raise UsageError(f"--maps={text!r} names no map; choose from {', '.join(MAPS)}, or --residual none for none")
    return tuple(name for name in MAPS if name in names)
