"""One video in memory: its metadata and cached frames -> shortened tokens, with the embedded encoder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.density import MapChoice, choose_maps, measure_density, name_density
from compress.encoders import SpectralEncoder
from compress.encoders.spectral import COVERED, GRID, TOKEN_GRID
from compress.errors import ConfigError, SignalError
from compress.stage import BeforeEncoder, BeforeLLM, Compression, InsideLLM, Signals

if TYPE_CHECKING:
    from codecmeta import VideoMeta
    from compress.stage import GopKind

Stage = Literal["load", "density", "encode", "compress", "save", "plot"]

PACKET_SIZES: Mapping[GopKind, str] = {
    "mean": "mean packet of the frame's GoP",
    "total": "all packets of the frame's GoP",
    "packet": "the frame's own packet",
    "interval": "mean packet since the previous sampled frame",
}
"""What a method's ``gop`` makes of the packets, in words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressedVideo:
    """What came out of a video: T frames of 729 patches, pooled to 196 tokens each.

    Attributes:
        tokens: float32 (V', D), on the CPU.
        patches: what was merged before the encoder; None where nothing was.
        compression: what was merged of the 196 T tokens.
        density: float32 (T, 27, 27), the density that ranked them.
        packet_size: float64 (T,), complexity c_t of each frame in bytes, of the method's ``gop``.
        sources: signal -> where it came from.
        notes: what was done otherwise than asked for, one sentence each.
    """

    tokens: Tensor
    patches: Compression | None
    compression: Compression
    density: NDArray[np.float32]
    packet_size: NDArray[np.float64]
    sources: Mapping[str, str]
    notes: tuple[str, ...]


class Stopwatch:
    """Seconds spent per stage; on an accelerator a stage ends when its work has."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}

    @contextmanager
    def stage(self, name: Stage, device: torch.device | None = None) -> Iterator[None]:
        """Add the time of a block to a stage, also when it fails."""
        start = time.perf_counter()
        try:
            yield
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize(device)
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def compress_video(
    meta: VideoMeta,
    method: object,
    *,
    encoder: SpectralEncoder,
    map: MapChoice = "auto",
    device: torch.device | str = "cpu",
    stopwatch: Stopwatch | None = None,
) -> CompressedVideo:
    """Encode the cached frames of a video and shorten its tokens.

    The result names the maps by which patches merged (RPM) and tokens were ranked (BTM).

    Args:
        meta: the video; its frames must have been cached.
        method: merges before the language model, and perhaps before the encoder too.
        encoder: the embedded encoder.
        map: by what density is measured, see `compress.density`.
        device: where to compute.
        stopwatch: gets the time of the stages density, encode and compress.

    Raises:
        ConfigError: the method does not merge before the language model.
        SignalError: frames, or the map that was asked for, are not in the metadata.
        CompressError: the method refuses this video.
    """
    if not isinstance(method, BeforeLLM):
        raise ConfigError(
            f"{type(method).__name__} does not merge tokens before the language model, and there is no model here"
        )
    if meta.frames is None:
        source = meta.info["source"]["name"]
        raise SignalError(
            "there are no cached frames to encode; "
            f"run: codecmeta extract PATH/{source} --out META --pixels 384 --overwrite"
        )
    watch, place = stopwatch or Stopwatch(), torch.device(device)
    gop: GopKind = getattr(method, "gop", "mean")
    sources: dict[str, str] = {"packet_size": PACKET_SIZES[gop]}
    if isinstance(method, InsideLLM):
        sources["inside_llm"] = "skipped: there is no language model"
    notes: list[str] = []
    with watch.stage("density"):
        maps = choose_maps(meta, map)
        density = measure_density(meta, maps.tokens, GRID, covered=COVERED)
        sources["density"] = str(maps.tokens)
    patches: Compression | None = None
    with watch.stage("encode", place):
        if isinstance(method, BeforeEncoder):
            if maps.patches is None:
                sources["rpm"] = "skipped"
                notes.append(f"RPM skipped: {maps.skipped}; tokens are ranked by {maps.tokens}")
            else:
                sources["rpm"] = maps.patches
                same = maps.patches == maps.tokens
                of_patches = density if same else measure_density(meta, maps.patches, GRID, covered=COVERED)
                patches = name_density(method.before_encoder(of_patches), maps.patches)
        features = encoder.encode(meta.frames, device=place)
        if patches is not None:
            features = merge_patches(features, patches)
        tokens = encoder.pool(features)
    with watch.stage("compress", place):
        packet_size = meta.gop_packet_size(kind=gop)
        signals = Signals(
            packet_size=packet_size,
            density=encoder.pool(torch.from_numpy(density).reshape(len(density), -1, 1)).squeeze(2),
            saliency=encoder.saliency(tokens),
            frame_features=encoder.frame_features(tokens),
            grid=TOKEN_GRID,
            saliency_source="distance to the frame's mean token",
            density_source=str(maps.tokens),
        )
        compression = method.before_llm(tokens, signals)
        short = compression.plan.apply(tokens.flatten(0, 1)).float().cpu()
    return CompressedVideo(
        tokens=short,
        patches=patches,
        compression=compression,
        density=density,
        packet_size=packet_size,
        sources={**compression.sources, **sources},
        notes=tuple(notes),
    )


def merge_patches(features: Tensor, patches: Compression) -> Tensor:
    """Give every patch the mean feature of its region.

    Args:
        features: float (T, 729, D).
        patches: a plan over T * 729 patches that drops none.

    Returns:
        (T, 729, D): merged, and broadcast back to the full grid, which pooling needs.
    """
    plan = patches.plan.to(features.device)
    return plan.broadcast(plan.apply(features.flatten(0, 1))).reshape(features.shape)
