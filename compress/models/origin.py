"""Origin of pixels: the video file and the times of the frames that a prompt shows, kept with the pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from torch import Tensor

from compress.errors import SignalError

if TYPE_CHECKING:
    from codecmeta import VideoMeta

_ORIGINS: Final = "_compress_origins"
"""The attribute of pixels that names their videos."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Frames of a video file.

    Attributes:
        name: of the file; the same file under two names is one.
        digest: of its first and last MiB.
        times: when its frames are shown, in units of its time base.
    """

    name: str = field(compare=False)
    digest: str
    times: tuple[int, ...]

    @staticmethod
    def of(meta: VideoMeta) -> Origin | None:
        """Return the origin of the frames of a record; None of one that was made without a file."""
        source = meta.info["source"]
        digest = source.get("sha256")
        if digest is None:
            return None
        return Origin(name=source["name"], digest=digest, times=tuple(meta.frame_pts.tolist()))


def keep_origins(pixels: Tensor, origins: Sequence[Origin | None]) -> None:
    """Keep the origin of each video with the pixels of a prompt or a batch."""
    setattr(pixels, _ORIGINS, tuple(origins))


def origins_of(pixels: object, count: int) -> Sequence[Origin | None]:
    """Return the origin of each video of pixels, None where it is not known: of inputs that were not `prepare`'s."""
    origins = getattr(pixels, _ORIGINS, ())
    return origins if len(origins) == count else [None] * count


def check_origin(shown: Origin | None, entry: int, given: Sequence[Origin | None]) -> None:
    """Compare the origin of a video that the model sees with that of its metadata.

    Warns where they differ: the metadata may be of another encoding of the same video.

    Args:
        shown: of the pixels.
        entry: index of the video's metadata.
        given: origins of all metadata.

    Raises:
        SignalError: they differ, and other metadata is that of this video.
    """
    expected = given[entry]
    if shown is None or expected is None or shown == expected:
        return
    what = f"other frames of {shown.name!r}" if shown.digest == expected.digest else f"{expected.name!r}"
    difference = f"the model sees {shown.name!r}, but metadata {entry} is of {what}"
    if shown in given:
        raise SignalError(
            f"{difference}, and metadata {given.index(shown)} is of this video; give them in the order of the videos"
        )
    warnings.warn(f"{difference}: budgets and densities are those of the metadata's frames", stacklevel=2)
