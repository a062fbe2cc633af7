"""Codec metadata of a request's video: its encoding next to the frames, and the signals that are read from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codecmeta import DENSITY_MAPS, CodecMetaError, DensityMap, VideoMeta
from compress.density import DensityStage, MapChoice, StageMaps
from compress.errors import ConfigError, SignalError
from compress.models.adapters.adapter import TokenLayout, VideoGrid, VideoTokens
from compress.models.session.signals import MetaSignals

KEY: Final = "codec"
"""Key of a video's metadata dictionary."""

TICKS: Final = 1_000_000
"""Frame numbers that `describe_video` counts per second: vLLM and transformers know times as frame numbers."""

_BLOCK: Final = 8
"""Pixels per side of a block of a record; frames without a codec have none."""

FIELDS: Final = ("codec_packet_size", "codec_density", "codec_units", "codec_map")
"""What travels to the worker, see `CodecSignals.tensors`."""


def describe_video(meta: VideoMeta) -> dict[str, Any]:
    """Describe a video as vLLM describes videos, with its codec metadata; the frames are ``meta.frames``.

    Args:
        meta: its frame times become ``frames_indices``, in microseconds since the first; ``fps`` is 10^6.

    Returns:
        A dictionary for ``multi_modal_data={"video": [(meta.frames, describe_video(meta))]}``; the same for records
        that differ only in name and date of their file.
    """
    seconds = meta.frame_seconds - meta.frame_seconds[0]
    count = len(seconds)
    spacing = float(np.diff(seconds).mean()) if count > 1 else 1.0
    total = max(1, round(count * spacing * TICKS))
    return {
        "total_num_frames": total,
        "fps": float(TICKS),
        "duration": total / TICKS,
        "frames_indices": [round(second * TICKS) for second in seconds.tolist()],
        "video_backend": "codecmeta",
        "do_sample_frames": False,
        KEY: encode_record(meta),
    }


def encode_record(meta: VideoMeta) -> dict[str, NDArray[np.uint8]]:
    """Encode a record, without its frames, as the value of `KEY`."""
    source = {**meta.info["source"], "name": "video", "mtime_ns": 0}
    bare = replace(meta, info={**meta.info, "source": source}, frames=None, frames_jpeg=None, frames_jpeg_offset=None)
    return {"record": np.frombuffer(bare.encode("the video's codec metadata"), np.uint8)}


def decode_record(value: object) -> VideoMeta:
    """Decode the value of `KEY`.

    Raises:
        ConfigError: it is not what `encode_record` writes.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("record"), np.ndarray):
        raise ConfigError(
            f"the metadata of a video has {KEY!r}: {type(value).__name__}; give what "
            "compress.serving.vllm.codec.describe_video(meta) writes, or leave it out"
        )
    try:
        return VideoMeta.decode("the video's codec metadata", value["record"].tobytes())
    except CodecMetaError as error:
        raise ConfigError(str(error)) from error


def describe_frames(pixels: NDArray[np.uint8] | None) -> VideoMeta:
    """Make a record of frames without codec metadata, with a packet of one byte for each.

    Args:
        pixels: uint8 (T, h, w, 3).

    Raises:
        SignalError: the frames have another form.
    """
    if pixels is None:
        raise SignalError(
            "the method reads the density of a video, which has neither codec metadata nor uint8 pixels; send it "
            "through the loader codecmeta"
        )
    count, height, width = pixels.shape[:3]
    places = np.arange(count, dtype=np.int64)
    return VideoMeta(
        info={
            "source": {"name": "video"},
            "stream": {
                "width": width,
                "height": height,
                "orientation": [[1, 0, 0], [0, 1, 0]],
                "time_base": [1, 1],
                "duration_s": float(count),
            },
            "extraction": {"block": _BLOCK},
            "signals": {},
            "verdict": {"state": "unknown"},
        },
        packet_pts=places,
        packet_dts=places,
        packet_size=np.ones(count, np.uint32),
        packet_key=np.ones(count, np.bool_),
        frame_packet=places.astype(np.int32),
        frame_pts=places,
        frame_type=np.full(count, "?"),
        frames=np.ascontiguousarray(pixels),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class CodecSignals:
    """Signals on the grids of a model, see `GridSignals`; those that a method reads are measured beforehand.

    Attributes:
        layout: of the model's tokens.
        frames: T, after temporal patching.
        sizes: float64 (T,), complexity of each frame; None for a method that reads none.
        patches: float32 (T, rows, cols), density of the patches; None likewise, or where the record has no map.
        units: float32 (T, rows, cols), density of what merges before the encoder; None likewise.
        maps: by which maps.
    """

    layout: TokenLayout
    frames: int
    sizes: NDArray[np.float64] | None
    patches: NDArray[np.float32] | None
    units: NDArray[np.float32] | None
    maps: StageMaps

    @staticmethod
    def measure(
        meta: VideoMeta,
        layout: TokenLayout,
        grid: VideoGrid,
        *,
        reads: Collection[str],
        gop: Any,
        choice: MapChoice,
        pixels: NDArray[np.uint8] | None,
        merges: bool = False,
    ) -> CodecSignals:
        """Measure what a method reads.

        Args:
            meta: of the video, without its frames.
            layout: of the model's tokens.
            grid: frames, rows and columns of its patches.
            reads: names of the signals that the method reads.
            gop: measure of a frame's complexity, see `GopKind`.
            choice: map of the density.
            pixels: uint8 (T, h, w, 3), frames as the model sees them, for maps of their texture; None without.
            merges: whether patches merge before the encoder.

        Raises:
            SignalError: the record is of another number of frames, or lacks the map that is asked for.
        """
        if pixels is not None and len(pixels) == len(meta.frame_pts):
            meta = replace(meta, frames=np.ascontiguousarray(pixels))
        signals = MetaSignals(meta, layout, choice)
        signals.check_frames(grid[0])
        unit = layout.patch_unit
        units = (grid[0], grid[1] // unit, grid[2] // unit)
        return CodecSignals(
            layout=layout,
            frames=grid[0],
            sizes=signals.packet_size(gop) if "packet_size" in reads else None,
            patches=signals.density(grid) if "density" in reads and signals.maps.tokens is not None else None,
            units=signals.density(units, stage="patches") if merges and signals.maps.patches is not None else None,
            maps=signals.maps,
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Write them in the order of `FIELDS`, empty for what is absent; the map as its number in `DENSITY_MAPS`."""
        numbers = [-1 if name is None else DENSITY_MAPS.index(name) for name in (self.maps.tokens, self.maps.patches)]
        return (
            torch.empty(0, dtype=torch.float64) if self.sizes is None else torch.from_numpy(self.sizes),
            *(torch.empty(0) if one is None else torch.from_numpy(one) for one in (self.patches, self.units)),
            torch.tensor([self.frames, *numbers]),
        )

    @staticmethod
    def absent() -> tuple[Tensor, ...]:
        """Write the fields of a video without metadata."""
        return torch.empty(0, dtype=torch.float64), torch.empty(0), torch.empty(0), torch.empty(0, dtype=torch.int64)

    @staticmethod
    def read(
        layout: TokenLayout, sizes: Tensor, patches: Tensor, units: Tensor, numbers: Tensor
    ) -> CodecSignals | None:
        """Read what `tensors` wrote; None for what `absent` wrote."""
        if not numbers.numel():
            return None
        frames, *chosen = numbers.tolist()
        tokens, merged = (_map(number) for number in chosen)
        return CodecSignals(
            layout=layout,
            frames=frames,
            sizes=sizes.cpu().numpy() if sizes.numel() else None,
            patches=patches.cpu().numpy() if patches.numel() else None,
            units=units.cpu().numpy() if units.numel() else None,
            maps=StageMaps(patches=merged, tokens=tokens, skipped="" if merged else "the record has no map of it"),
        )

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the signals."""
        pairs = (("packet_size", self.sizes), ("density", self.patches))
        return tuple(name for name, values in pairs if values is not None)

    def check_frames(self, frames: int) -> None:
        """See `GridSignals.check_frames`."""
        if frames != self.frames:
            raise SignalError(f"the model sees {frames} frames of a video whose codec metadata has {self.frames}")

    def density(self, grid: VideoGrid, *, stage: DensityStage = "tokens") -> NDArray[np.float32]:
        """See `GridSignals.density`.

        Raises:
            SignalError: it was not measured, or on another grid.
        """
        found = self.patches if stage == "tokens" else self.units
        if found is None or found.shape != tuple(grid):
            raise SignalError(f"the density of {stage} on the grid {tuple(grid)} did not come with the video")
        return found

    def packet_size(self, kind: Any) -> NDArray[np.float64]:
        """See `GridSignals.packet_size`; of the kind that was measured.

        Raises:
            SignalError: they were not measured.
        """
        if self.sizes is None:
            raise SignalError("packet sizes did not come with the video")
        return self.sizes

    def of_tokens(self, video: VideoTokens) -> NDArray[np.float32]:
        """See `GridSignals.of_tokens`."""
        pooled = self.layout.pool(torch.from_numpy(self.density((video.frames, *video.patches))))
        return pooled.reshape(video.frames, -1).numpy()


def _map(number: int) -> DensityMap | None:
    """Return the map of a number that `CodecSignals.tensors` wrote."""
    return DENSITY_MAPS[number] if number >= 0 else None
