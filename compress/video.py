"""Compression of one video in memory: metadata and cached frames -> shortened tokens, by an encoder or a model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.density import MapChoice, StageMaps, choose_maps, measure_density, name_density
from compress.encoders import SpectralEncoder
from compress.encoders.spectral import COVERED, GRID, TOKEN_GRID
from compress.errors import CompressError, ConfigError, SignalError
from compress.stage import AtDecoding, BeforeEncoder, BeforeLLM, Compression, InsideEncoder, InsideLLM, Signals

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
"""Measures of a frame's complexity in words, by a method's ``gop``."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of the patches and tokens of an encoder in a frame; by default that of the embedded one.

    Attributes:
        grid: rows and columns of tokens.
        patch_grid: rows and columns of what merges before the encoder.
        covered: share of the picture's width and height that they cover, from the upper left.
        temporal: sampled frames of a frame of tokens.
    """

    grid: tuple[int, int] = TOKEN_GRID
    patch_grid: tuple[int, int] = GRID
    covered: float = COVERED
    temporal: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressedVideo:
    """The shortened tokens of a video of T token frames.

    Attributes:
        tokens: float32 (V', D), on the CPU.
        positions: int64 (V',), position ids, or (3, V') of a model whose positions have three axes; the video's first
            token is at 0.
        patches: what was merged before the encoder; None where nothing was.
        compression: what was merged of the tokens.
        packet_size: float64 (T,), complexity c_t of each frame in bytes, of the method's ``gop``.
        frame_seconds: float64 (T,), presentation time of each frame.
        layout: where patches and tokens lie in a frame.
        sources: signal -> where it came from.
        notes: what differs from what was requested, one sentence each.
        embeddings: float32 (n, D), what stands for the video in the model's own prompt, newlines included; None unless
            it was requested.
    """

    tokens: Tensor
    positions: Tensor
    patches: Compression | None
    compression: Compression
    packet_size: NDArray[np.float64]
    frame_seconds: NDArray[np.float64]
    layout: Layout
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    embeddings: Tensor | None = None


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


class Shortener(Protocol):
    """Encoder of the frames of a video that lets a method shorten the tokens."""

    @property
    def device(self) -> str:
        """Where it computes."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the output, as plain JSON values."""
        ...

    def check(self, method: object, name: str) -> None:
        """Check that it can work with this method; its device is not used.

        Raises:
            ConfigError: it cannot work.
        """
        ...

    def shorten(self, meta: VideoMeta, method: Any, *, map: MapChoice, stopwatch: Stopwatch) -> CompressedVideo:
        """Encode and shorten one video.

        Raises:
            ConfigError: model, method or map do not go together, whatever the video.
            CompressError: this video cannot be shortened.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EmbeddedShortener:
    """The embedded, weight-free encoder.

    Attributes:
        encoder: the encoder.
        device: where to compute.
    """

    encoder: SpectralEncoder = field(default_factory=SpectralEncoder)
    device: str = "cpu"

    def describe(self) -> dict[str, Any]:
        """See `Shortener`."""
        return {"encoder": asdict(self.encoder), "device": self.device}

    def check(self, method: object, name: str) -> None:
        """See `Shortener`."""
        if isinstance(method, InsideEncoder) and not isinstance(method, BeforeLLM):
            raise ConfigError(
                f"{name} merges inside a vision encoder, and the embedded one has no blocks; give a model with --model "
                "(or --random-weights), or choose a method with a stage before_llm (see: compress methods)"
            )
        if not isinstance(method, BeforeLLM):
            raise ConfigError(
                f"{name} has no stage between the encoder and the language model, the one that works without a model; "
                f"choose a method with a stage before_llm (see: compress methods){ask_instead(method, name)}"
            )

    def shorten(self, meta: VideoMeta, method: Any, *, map: MapChoice, stopwatch: Stopwatch) -> CompressedVideo:
        """See `Shortener`."""
        return compress_video(meta, method, encoder=self.encoder, map=map, device=self.device, stopwatch=stopwatch)


def check_device(name: str) -> None:
    """Check that a device can be used.

    Raises:
        ConfigError: no tensor can be created on it.
    """
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter from a build of PyTorch without the device
        raise ConfigError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error


def ask_instead(method: object, name: str) -> str:
    """Return what to do with a method that works inside a language model, for a message that refuses it elsewhere."""
    if not isinstance(method, InsideLLM | AtDecoding):
        return ""
    return f"; {name} works inside a language model: compress ask --model MODEL --prompt TEXT --method {name}"


@contextmanager
def blaming_the_video() -> Iterator[None]:
    """Turn a refusal of one video's input by a method into an error of that video, which does not end the run."""
    try:
        yield
    except ConfigError as error:
        raise CompressError(str(error)) from error


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
            f"{type(method).__name__} does not merge tokens before the language model; choose a method that does"
        )
    watch = stopwatch or Stopwatch()
    return encode_video(meta, encoder=encoder, map=map, device=device, stopwatch=watch).shorten(method, watch)


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedVideo:
    """The patches of a video after the embedded encoder, before any method.

    Attributes:
        meta: the video.
        encoder: the encoder.
        maps: by which patches merge and tokens are ranked.
        density: float32 (T, rows, cols), of the patches by the map that ranks tokens.
        features: float32 (T, patches, D).
    """

    meta: VideoMeta
    encoder: SpectralEncoder
    maps: StageMaps
    density: NDArray[np.float32]
    features: Tensor

    def shorten(self, method: Any, stopwatch: Stopwatch) -> CompressedVideo:
        """Shorten the tokens by a method that merges before the language model; see `compress_video`."""
        meta, encoder, maps, place = self.meta, self.encoder, self.maps, self.features.device
        gop: GopKind = getattr(method, "gop", "mean")
        sources: dict[str, str] = {"packet_size": PACKET_SIZES[gop], "density": str(maps.tokens)}
        if isinstance(method, InsideEncoder):
            sources["inside_encoder"] = "skipped: the embedded encoder has no blocks"
        if isinstance(method, InsideLLM):
            sources["inside_llm"] = "skipped: there is no language model"
        if isinstance(method, AtDecoding):
            sources["at_decoding"] = "skipped: there is no language model"
        notes: list[str] = []
        patches: Compression | None = None
        features = self.features
        with stopwatch.stage("encode", place):
            if getattr(method, "reuses_patches", False):
                sources["reuse"] = "skipped: the embedded encoder has no blocks"
            elif isinstance(method, BeforeEncoder):
                if maps.patches is None:
                    sources["rpm"] = "skipped"
                    notes.append(f"RPM skipped: {maps.skipped}; tokens are ranked by {maps.tokens}")
                else:
                    sources["rpm"] = maps.patches
                    same = maps.patches == maps.tokens
                    of_patches = self.density if same else measure_density(meta, maps.patches, GRID, covered=COVERED)
                    with blaming_the_video():
                        patches = name_density(method.before_encoder(of_patches), maps.patches)
                    features = merge_patches(features, patches)
            tokens = encoder.pool(features)
        with stopwatch.stage("compress", place):
            packet_size = meta.gop_packet_size(kind=gop)
            signals = Signals(
                packet_size=packet_size,
                density=encoder.pool(torch.from_numpy(self.density).reshape(len(self.density), -1, 1)).squeeze(2),
                saliency=encoder.saliency(tokens),
                frame_features=encoder.frame_features(tokens),
                grid=TOKEN_GRID,
                saliency_source="distance to the frame's mean token",
                density_source=str(maps.tokens),
            )
            with blaming_the_video():
                compression = method.before_llm(tokens, signals)
            short = compression.plan.apply(tokens.flatten(0, 1)).float().cpu()
        return CompressedVideo(
            tokens=short,
            positions=compression.position_ids(torch.arange(compression.plan.count_in, device=place)).cpu(),
            patches=patches,
            compression=compression,
            packet_size=packet_size,
            frame_seconds=meta.frame_seconds,
            layout=Layout(),
            sources={**compression.sources, **sources},
            notes=tuple(notes),
        )


def encode_video(
    meta: VideoMeta,
    *,
    encoder: SpectralEncoder,
    map: MapChoice = "auto",
    device: torch.device | str = "cpu",
    stopwatch: Stopwatch | None = None,
) -> EncodedVideo:
    """Encode the cached frames of a video once, for one method or several; arguments as of `compress_video`.

    Raises:
        SignalError: frames, or the map that was asked for, are not in the metadata.
    """
    if meta.frames is None:
        source = meta.info["source"]["name"]
        raise SignalError(
            "the record has no cached frames to encode; "
            f"run: codecmeta extract PATH/{source} --out META --pixels 384 --overwrite"
        )
    watch, place = stopwatch or Stopwatch(), torch.device(device)
    with watch.stage("density"):
        maps = choose_maps(meta, map)
        density = measure_density(meta, maps.tokens, GRID, covered=COVERED)
    with watch.stage("encode", place):
        features = encoder.encode(meta.frames, device=place)
    return EncodedVideo(meta=meta, encoder=encoder, maps=maps, density=density, features=features)


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
