"""Codec metadata of videos, read from the file itself: packets, GoPs, motion vectors, quantisers and exact residuals.

import codecmeta

meta = codecmeta.extract("clip.mp4")
meta.save("clip.npz")
codecmeta.load("clip.npz").gop_packet_size()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codecmeta.batch.extraction import extract_many
    from codecmeta.batch.outcome import Outcome
    from codecmeta.bit_cost_maps import bit_costs
    from codecmeta.errors import (
        BitstreamError,
        CodecMetaError,
        MetaFormatError,
        OutputError,
        SamplingError,
        SourceError,
        UsageError,
    )
    from codecmeta.extraction import extract
    from codecmeta.picture_sequence import from_frames
    from codecmeta.record.dataset import MetaDataset, open_dataset
    from codecmeta.record.density_maps import DENSITY_MAPS, DensityMap
    from codecmeta.record.gop import Gop
    from codecmeta.record.limits import Limits
    from codecmeta.record.meta import VideoMeta, load
    from codecmeta.record.options import Options
    from codecmeta.record.sampling import FrameChooser

__version__ = "0.2.0"

# Names are loaded on first use: `codecmeta --help` must not wait for NumPy, libav and numba.
_HOME = {
    "DENSITY_MAPS": "codecmeta.record.density_maps",
    "DensityMap": "codecmeta.record.density_maps",
    "BitstreamError": "codecmeta.errors",
    "CodecMetaError": "codecmeta.errors",
    "FrameChooser": "codecmeta.record.sampling",
    "Gop": "codecmeta.record.gop",
    "Limits": "codecmeta.record.limits",
    "MetaDataset": "codecmeta.record.dataset",
    "MetaFormatError": "codecmeta.errors",
    "Options": "codecmeta.record.options",
    "Outcome": "codecmeta.batch.outcome",
    "OutputError": "codecmeta.errors",
    "SamplingError": "codecmeta.errors",
    "SourceError": "codecmeta.errors",
    "UsageError": "codecmeta.errors",
    "VideoMeta": "codecmeta.record.meta",
    "bit_costs": "codecmeta.bit_cost_maps",
    "extract": "codecmeta.extraction",
    "extract_many": "codecmeta.batch.extraction",
    "from_frames": "codecmeta.picture_sequence",
    "load": "codecmeta.record.meta",
    "open_dataset": "codecmeta.record.dataset",
}

__all__ = [
    "DENSITY_MAPS",
    "BitstreamError",
    "CodecMetaError",
    "DensityMap",
    "FrameChooser",
    "Gop",
    "Limits",
    "MetaDataset",
    "MetaFormatError",
    "Options",
    "Outcome",
    "OutputError",
    "SamplingError",
    "SourceError",
    "UsageError",
    "VideoMeta",
    "bit_costs",
    "extract",
    "extract_many",
    "from_frames",
    "load",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    import importlib

    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'codecmeta' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
