"""Provenance of a record: the versions and options that it was made with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numba
import numpy as np

from codecmeta import __version__
from codecmeta.record.options import Options


def describe_extraction(options: Options, *, frames: int, block: int, warnings: Sequence[str]) -> dict[str, Any]:
    """Describe the extraction for `info`.

    Args:
        options: of the extraction.
        frames: sampled frames.
        block: luma samples per side of a block of the energy maps.
        warnings: what a user should know about the record, in sentences.
    """
    return {
        "version": __version__,
        "libraries": {
            "av": av.__version__,
            "ffmpeg": av.ffmpeg_version_info,
            "numpy": np.__version__,
            "numba": numba.__version__,
        },
        "options": options.describe(),
        "digest": options.digest(),
        "frames": frames,
        "sampling": options.frames if isinstance(options.frames, str) else list(options.frames),
        "block": block,
        "pixels": options.pixels,
        "warnings": list(warnings),
    }
