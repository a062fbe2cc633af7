"""Picture folders, as tools that split videos into frames write them: one numbered file per frame."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import av
import numpy as np

from codecmeta.container.pyav import frame_of_rgb
from codecmeta.errors import SourceError
from codecmeta.record.limits import Limits
from codecmeta.record.source_identity import identify_source

_DEMUXERS = {
    ".jpg": "jpeg_pipe",
    ".jpeg": "jpeg_pipe",
    ".png": "png_pipe",
    ".webp": "webp_pipe",
    ".bmp": "bmp_pipe",
    ".tif": "tiff_pipe",
    ".tiff": "tiff_pipe",
}
"""File name extensions in lower case, and libavformat's demuxer that reads one such picture and opens no other file."""


def is_picture(name: str) -> bool:
    """Return whether a file is a picture by its name."""
    return os.path.splitext(name)[1].lower() in _DEMUXERS  # noqa: PTH122


def holds_pictures(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds pictures itself, not only below it."""
    try:
        with os.scandir(path) as entries:
            return any(is_picture(entry.name) and entry.is_file() for entry in entries)
    except (OSError, ValueError):
        return False


class PictureFolder:
    """Pictures of a folder as a sequence, decoded on access.

    Args:
        path: the folder.
        limits: largest pixels of a picture.

    Raises:
        SourceError: it cannot be listed, or holds no picture.
    """

    def __init__(self, path: str | os.PathLike[str], limits: Limits) -> None:
        self._path = Path(path)
        self._limits = limits
        try:
            with os.scandir(path) as entries:
                self._names = sorted((entry.name for entry in entries if is_picture(entry.name)), key=_order)
        except PermissionError as error:
            raise SourceError("permission_denied", "the folder cannot be listed") from error
        except OSError as error:
            raise SourceError("unreadable", f"the folder cannot be listed ({error.strerror or error})") from error
        if not self._names:
            raise SourceError("not_a_file", "the folder contains no pictures; give a video or a folder of pictures")
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> av.VideoFrame:
        frame = self._decode(self._names[number])
        size = (frame.width, frame.height)
        self._size = self._size or size
        if size != self._size:
            raise SourceError(
                "varying_geometry",
                f"{self._names[number]} is {size[0]}x{size[1]}; others are {self._size[0]}x{self._size[1]}",
            )
        return frame

    def _decode(self, name: str) -> av.VideoFrame:
        path = self._path / name
        if not path.is_file():
            raise SourceError("not_a_file", f"{name} is not a regular file")
        demuxer = _DEMUXERS[path.suffix.lower()]
        try:
            with av.open(f"file:{path}", format=demuxer) as container:
                context = container.streams.video[0].codec_context
                if context.width * context.height > self._limits.pixels:
                    given = f"{name} is {context.width}x{context.height}"
                    raise SourceError("limit_exceeded", f"{given}; allowed are {self._limits.pixels} pixels")
                context.options = {"max_pixels": str(self._limits.pixels)}
                context.thread_count = 1
                for frame in container.decode(video=0):
                    # same form as arrays, whatever colours the picture was stored in
                    return frame_of_rgb(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
        except MemoryError:
            raise
        except (OSError, ValueError, av.FFmpegError, IndexError) as error:
            raise SourceError("damaged", f"{name} cannot be decoded ({error})") from error
        raise SourceError("damaged", f"{name} contains no picture")

    def identify(self) -> dict[str, Any]:
        """Return the folder's name, size and latest modification of its pictures, and a digest of their properties.

        Raises:
            SourceError: a picture has disappeared.
        """
        digest, size, latest = hashlib.sha256(), 0, 0
        try:
            for name in self._names:
                status = (self._path / name).stat()
                size += status.st_size
                latest = max(latest, status.st_mtime_ns)
                digest.update(f"{name!r} {status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError as error:
            raise SourceError("changed_while_reading", f"a picture has disappeared ({error})") from error
        return {"name": self._path.name, "bytes": size, "mtime_ns": latest, "sha256": digest.hexdigest()}


def identify(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the identity of a video file, or of a folder of pictures.

    Raises:
        OSError: it cannot be read.
        SourceError: the folder holds no picture.
    """
    return PictureFolder(path, Limits()).identify() if Path(path).is_dir() else identify_source(path)


def _order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key by the numbers in a name: 2.jpg before 10.jpg."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name
