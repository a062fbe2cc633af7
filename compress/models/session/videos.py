"""The videos of a prompt, and what a method makes of each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from compress.errors import ConfigError, ShapeError, SignalError
from compress.models.adapters.adapter import Adapter, VideoGrid, VideoTokens, VisionTap, spread
from compress.models.plans import join_plans
from compress.models.session.signals import MetaSignals, gather_signals
from compress.plan import MergePlan
from compress.stage import BeforeEncoder, BeforeLLM, Compression, GopKind
from compress.video import PACKET_SIZES

if TYPE_CHECKING:
    from codecmeta import VideoMeta
    from compress.video import MapChoice

_SAME = 1e-2
"""How far features of the same video may differ, relative to their size, when a batch holds it several times."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoResult:
    """What became of one video of the last prompt.

    Attributes:
        frames: of its tokens, after temporal patching.
        tokens_in: its visual tokens.
        tokens_out: those that entered the language model.
        before_encoder: what was merged of its patches; None where nothing was.
        before_llm: what was merged of its tokens; None where nothing was.
        sources: signal that was read -> where it came from.
    """

    frames: int
    tokens_in: int
    tokens_out: int
    before_encoder: Compression | None
    before_llm: Compression | None
    sources: Mapping[str, str]


class VideoCompressor:
    """Asks a method about the videos of a prompt, before the encoder and before the language model.

    Attributes:
        results: what became of each video of the last prompt.
        merges_patches: whether the method merges before the encoder.
    """

    def __init__(
        self,
        compressor: Any,
        adapter: Adapter,
        metas: Sequence[VideoMeta],
        map: MapChoice,
        *,
        reads: Collection[str],
        pooling_head: bool,
    ) -> None:
        self.results: list[VideoResult] = []
        self.merges_patches = isinstance(compressor, BeforeEncoder)
        self._compressor = compressor
        self._adapter = adapter
        self._metas = [MetaSignals(one, adapter, map) for one in metas]
        self._reads = reads
        self._pooling_head = pooling_head
        self._patches: list[Compression | None] = []

    @property
    def frames(self) -> list[int]:
        """Encoder frames of each video that has metadata."""
        return [meta.frames for meta in self._metas]

    def plan_patches(self, grids: Sequence[VideoGrid]) -> MergePlan:
        """One plan over the patches of all videos, in raster order; patches of a unit merge as one."""
        compressor: BeforeEncoder = self._compressor
        unit = self._adapter.patch_unit
        self._patches, plans = [], []
        for grid, entry in zip(grids, spread(len(grids), len(self._metas), what="metadata"), strict=True):
            meta, units = self._metas[entry], (grid[0], grid[1] // unit, grid[2] // unit)
            if meta.residual is None:
                self._patches.append(None)
                plans.append(MergePlan.identity(units[0] * units[1] * units[2]))
                continue
            compression = compressor.before_encoder(meta.density(units))
            self._patches.append(compression)
            plans.append(compression.plan)
        return join_plans(plans)

    def compress(
        self, embeddings: Tensor, videos: Sequence[VideoTokens], vision: VisionTap
    ) -> list[Compression | None]:
        """Ask the method about each video; one that a batch repeats is asked about once.

        Args:
            embeddings: (B, S, D), what the language model would see.
            videos: where the videos lie in it.
            vision: what was seen of them.

        Returns:
            What was merged of each video; None for a method that does nothing before the language model.

        Raises:
            SignalError: the metadata is that of other videos.
            ShapeError: videos that share metadata differ.
        """
        self.results = []
        if not videos:
            return []
        if self.merges_patches and not vision.planned:
            raise SignalError(
                f"the metadata describes videos of {self.frames} frames, but the prompt has "
                f"videos of {[video.frames for video in videos]}; give the model the frames of the metadata, for "
                "example by compress.models.inputs.prompt.prepare"
            )
        count = len(videos)
        which = spread(count, len(self._metas), what="metadata") if self._metas else list(range(count))
        total = sum(grid[0] for grid in vision.grids)
        if total and sum(video.frames for video in videos) % total == 0:
            # Newer versions encode a video once before beams repeat it, older ones once per beam.
            vision.split([video.frames for video in videos[:: sum(video.frames for video in videos) // total]])
        seen = spread(count, len(vision.grids), what="encoded videos") if vision.grids else None
        first: dict[int, int] = {}
        compressions: list[Compression | None] = []
        for number, (video, entry) in enumerate(zip(videos, which, strict=True)):
            if entry in first:
                _check_same(embeddings, videos[first[entry]], video)
                compressions.append(compressions[first[entry]])
                self.results.append(self.results[first[entry]])
                continue
            first[entry] = number
            meta = self._metas[entry] if self._metas else None
            encoded = None if seen is None else seen[number]
            compression, sources = self._compress_video(embeddings, video, meta, vision, encoded)
            before = None
            if self.merges_patches and self._patches:
                before = self._patches[number * len(self._patches) // count]
                residual, skipped = self._metas[entry].residual, self._metas[entry].skipped
                sources["rpm"] = residual if before is not None and residual else f"skipped: {skipped}"
            compressions.append(compression)
            self.results.append(
                VideoResult(
                    frames=video.frames,
                    tokens_in=len(video.index),
                    tokens_out=len(video.index) if compression is None else compression.achieved,
                    before_encoder=before,
                    before_llm=compression,
                    sources=sources,
                )
            )
        return compressions

    def _compress_video(
        self, embeddings: Tensor, video: VideoTokens, meta: MetaSignals | None, vision: VisionTap, encoded: int | None
    ) -> tuple[Compression | None, dict[str, str]]:
        """What was merged of one video's tokens, and where the signals came from."""
        sources: dict[str, str] = {}
        compressor = self._compressor
        if not isinstance(compressor, BeforeLLM):
            return None, sources
        gop: GopKind = getattr(compressor, "gop", "mean")
        if meta is not None:
            read = {"density": meta.density_source, "packet_size": PACKET_SIZES[gop]}
            sources = {name: source for name, source in read.items() if name in self._reads}
        patches = (video.frames, *video.grid) if encoded is None else vision.grids[encoded]
        signals = gather_signals(
            video,
            patches,
            meta,
            reads=self._reads,
            gop=gop,
            saliency=vision.saliency[encoded] if vision.saliency and encoded is not None else None,
            frame_features=vision.frame_features[encoded] if vision.frame_features and encoded is not None else None,
            saliency_source="pooling head" if self._pooling_head else self._adapter.saliency_source,
        )
        tokens = video.of(embeddings)
        compression = compressor.before_llm(tokens.view(video.frames, -1, tokens.shape[1]), signals)
        _check_returned(compressor, compression, len(tokens))
        sources = {**compression.sources, **sources}
        if compression.positions == "contiguous" and self._adapter.multi_axis:
            compression = replace(compression, positions="original")
            sources["positions"] = "original: this model's positions have three axes"
        return compression, sources


def _check_returned(compressor: object, returned: object, tokens: int) -> None:
    """Raise ConfigError unless a method returned a plan over all tokens of the video."""
    name = type(compressor).__name__
    if not isinstance(returned, Compression):
        raise ConfigError(
            f"before_llm of {name} returned {type(returned).__name__}; return a compress.stage.Compression"
        )
    if returned.plan.count_in != tokens:
        raise ConfigError(f"the plan of {name} is over {returned.plan.count_in} tokens; this video has {tokens}")


def _check_same(embeddings: Tensor, first: VideoTokens, again: VideoTokens) -> None:
    """Raise ShapeError unless two videos that share metadata are one."""
    a, b = first.of(embeddings), again.of(embeddings)
    if a.shape != b.shape or bool((a - b).abs().amax() > _SAME * a.abs().amax()):
        raise ShapeError(
            f"rows {first.row} and {again.row} hold different videos but share one metadata; give one per video"
        )
