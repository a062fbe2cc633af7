"""Compile the kernels once, before anything is timed: numba keeps what it compiles beside the package.

What they were compiled from is written down, so that it can be told without numba whether there is anything to do.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CODECS = (("libx264", "clip.mp4"), ("mpeg4", "clip.avi"))
_HOME = Path(__file__).parents[1]
_NAME = "codecmeta-compiled.txt"


def is_compiled() -> bool:
    """Whether `compile_kernels` has run with these sources and this numba."""
    with suppress(OSError):
        return any(place.read_bytes() == _state(_HOME) for place in _places() if place.is_file())
    return False


def compile_kernels() -> None:
    """Extract two tiny clips, so that every kernel of the usual sources is compiled or loaded.

    Codecs that this build of libav cannot encode are passed over; their kernels compile on first use.
    """
    import av

    from codecmeta.extraction import extract

    with tempfile.TemporaryDirectory() as folder:
        for codec, name in _CODECS:
            if codec in av.codecs_available:
                path = Path(folder) / name
                _encode(path, codec)
                extract(path, frames="all", motion=True, qp=True, pixels=64)
    for place in _places():
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(_state(_HOME))
            return


def _places() -> Iterator[Path]:
    """Where it is written down: where numba keeps what it compiles, or for the user where that cannot be written."""
    yield Path(os.environ.get("NUMBA_CACHE_DIR") or _HOME / "__pycache__") / _NAME
    # a user of a container may have no home
    with suppress(RuntimeError):
        yield Path.home() / ".cache" / "codecmeta" / _NAME


def _state(home: Path) -> bytes:
    """A word that differs whenever a source of the package or the version of numba does."""
    status = [(str(path.relative_to(home)), path.stat()) for path in sorted(home.rglob("*.py"))]
    sources = [(name, one.st_mtime_ns, one.st_size) for name, one in status]
    return hashlib.sha256(repr((importlib.metadata.version("numba"), sources)).encode()).hexdigest().encode()


def _encode(path: Path, codec: str) -> None:
    from fractions import Fraction
    from typing import cast

    import av
    import numpy as np
    from av.video.stream import VideoStream

    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3)).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = cast(VideoStream, output.add_stream(codec, rate=25))
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(6):
            image = np.ascontiguousarray(noise[:, 2 * index : 2 * index + 128])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
