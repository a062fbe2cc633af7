"""Videos of a prompt, and their compression by a method."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from compress.density import name_density
from compress.encoder_merging import EncoderResult
from compress.errors import ConfigError, ShapeError, SignalError
from compress.models.adapters.adapter import TokenLayout, VideoGrid, VideoTokens, VisionView
from compress.models.origin import Origin, check_origin
from compress.models.plans import join_plans
from compress.models.session.encoding import EncodedVideo
from compress.models.session.signals import GridSignals, gather_signals
from compress.plan import MergePlan
from compress.planning_mode import planning
from compress.stage import BeforeEncoder, BeforeLLM, Compression, GopKind, InsideEncoder
from compress.video import PACKET_SIZES

_SAME = 1e-2
"""How far features of the same video may differ, relative to their size, when a batch holds it several times."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoResult:
    """Result of one video of the last prompt.

    Attributes:
        frames: of its tokens, after temporal patching.
        tokens_in: its visual tokens.
        tokens_out: those that entered the language model.
        before_encoder: what was merged of its patches; None where nothing was.
        inside_encoder: what they became between the encoder's blocks; None where nothing merges there.
        before_llm: what was merged of its tokens; None where nothing was.
        sources: signal that was read -> where it came from.
    """

    frames: int
    tokens_in: int
    tokens_out: int
    before_encoder: Compression | None
    before_llm: Compression | None
    sources: Mapping[str, str]
    inside_encoder: EncoderResult | None = None


class VideoCompressor:
    """Compressor of the videos of a prompt, which calls a method before the encoder and before the language model.

    Attributes:
        entries: metadata that was given.
        merges_patches: whether the method merges before the encoder, and has what it merges by.
        reuses_patches: whether it does so by their pixels, for the encoder to reuse what it computed.
        needs: what the method needs that only the encoder shows, "merged patches" or "saliency"; empty for nothing.
    """

    def __init__(
        self,
        compressor: Any,
        adapter: TokenLayout,
        metas: Sequence[GridSignals],
        *,
        reads: Collection[str],
        reads_saliency: bool,
        pooling_head: bool,
        origins: Sequence[Origin | None] = (),
    ) -> None:
        self.entries = len(metas)
        merges = isinstance(compressor, BeforeEncoder)
        self.reuses_patches = merges and getattr(compressor, "reuses_patches", False)
        self._reads_density = merges and not self.reuses_patches
        self.merges_patches = self.reuses_patches or (
            merges and (not metas or any(one.maps.patches is not None for one in metas))
        )
        merges = self.merges_patches or isinstance(compressor, InsideEncoder)
        self.needs = "merged patches" if merges else "saliency" if reads_saliency else ""
        self._compressor = compressor
        self._adapter = adapter
        self._metas = metas
        self._reads = reads
        self._pooling_head = pooling_head
        self._origins = origins

    def plan_patches(
        self, grids: Sequence[VideoGrid], entries: Sequence[int]
    ) -> tuple[list[Compression | None], MergePlan]:
        """Plan what to merge of each video's patches, and join the plans over all videos, in raster order.

        Patches of a unit merge as one.

        Args:
            grids: of the videos.
            entries: whose metadata each takes.
        """
        compressor: BeforeEncoder = self._compressor
        unit = self._adapter.patch_unit
        found: list[Compression | None] = []
        plans = []
        for grid, entry in zip(grids, entries, strict=True):
            meta, units = self._metas[entry], (grid[0], grid[1] // unit, grid[2] // unit)
            if meta.maps.patches is None:
                found.append(None)
                plans.append(MergePlan.identity(units[0] * units[1] * units[2], device="cpu"))
                continue
            with planning():
                compression = compressor.before_encoder(meta.density(units, stage="patches"))
            compression = name_density(compression, meta.maps.patches)
            found.append(compression)
            plans.append(compression.plan)
        return found, join_plans(plans)

    def plan_reuse(self, patches: Sequence[Tensor]) -> tuple[Sequence[Compression], MergePlan]:
        """Plan which patches of each video are reused, and join the plans as `plan_patches` does.

        Args:
            patches: (T, rows, cols, P) of each video, see `Adapter.cut_patches`.
        """
        with planning():
            found = [self._compressor.before_encoder(one) for one in patches]
        return found, join_plans([one.plan for one in found])

    def compress(
        self,
        embeddings: Tensor,
        videos: Sequence[VideoTokens],
        encoded: Sequence[EncodedVideo] | None,
        entries: Sequence[int] | None,
    ) -> tuple[list[Compression | None], list[VideoResult]]:
        """Call the method for each video, once for a video that rows repeat.

        Args:
            embeddings: (B, S, D), what the language model would see.
            videos: where the videos lie in it.
            encoded: what the encoder showed of each; None where that is not known.
            entries: whose metadata each takes; None without metadata.

        Returns:
            What was merged of each video, None for a method that does nothing before the language model; and the
            result of each.

        Raises:
            SignalError: the metadata is that of other videos.
            ShapeError: videos that share metadata differ.
        """
        compressions: list[Compression | None] = []
        results: list[VideoResult] = []
        known: dict[int, int] = {}
        shared: dict[int, int] = {}
        for number, video in enumerate(videos):
            entry = None if entries is None else entries[number]
            seen = None if encoded is None else encoded[number]
            first = known.get(id(seen)) if seen is not None else None
            if entry is not None and first is None and entry in shared:
                _check_same(embeddings, videos[shared[entry]], video)
                first = shared[entry]
            if entry is not None and seen is not None and self._origins:
                check_origin(seen.origin, entry, self._origins)
            if first is not None:
                compressions.append(compressions[first])
                results.append(results[first])
                continue
            known[id(seen)] = number
            if entry is not None:
                shared[entry] = number
            compression, result = self._compress_video(embeddings, video, entry, seen)
            compressions.append(compression)
            results.append(result)
        return compressions, results

    def _compress_video(
        self, embeddings: Tensor, video: VideoTokens, entry: int | None, encoded: EncodedVideo | None
    ) -> tuple[Compression | None, VideoResult]:
        meta = None if entry is None else self._metas[entry]
        if encoded is not None and encoded.entry not in (None, entry):
            raise SignalError(
                f"patches of a video merged by metadata {encoded.entry}, but in its conversation it is video {entry}; "
                "give the metadata in the order of the videos, or one conversation at a time"
            )
        view = VisionView() if encoded is None else encoded.view
        compression, sources = self._ask(embeddings, video, meta, view)
        before = None if encoded is None else encoded.patches
        if (inside := view.merged) is not None:
            left = f"{len(inside.keep)} of {len(inside.origin)} patches left"
            sources["inside_encoder"] = f"{left}, {inside.frames} of {inside.frames_in} frames"
        if self.reuses_patches and before is not None:
            sources["reuse"] = f"{before.achieved} of {before.plan.count_in} patches computed, by their pixels"
        if self._reads_density and meta is not None:
            merged = before is not None and meta.maps.patches
            sources["rpm"] = merged or f"skipped: {meta.maps.skipped}"
        return compression, VideoResult(
            frames=video.frames,
            tokens_in=len(video.index),
            tokens_out=len(video.index) if compression is None else compression.achieved,
            before_encoder=before,
            before_llm=compression,
            sources=sources,
            inside_encoder=view.merged,
        )

    def _ask(
        self, embeddings: Tensor, video: VideoTokens, meta: GridSignals | None, view: VisionView
    ) -> tuple[Compression | None, dict[str, str]]:
        """Return what was merged of one video's tokens, and where the signals came from."""
        sources: dict[str, str] = {}
        compressor = self._compressor
        if not isinstance(compressor, BeforeLLM):
            return None, sources
        gop: GopKind = getattr(compressor, "gop", "mean")
        if meta is not None:
            read = {"density": str(meta.maps.tokens), "packet_size": PACKET_SIZES[gop]}
            sources = {name: source for name, source in read.items() if name in self._reads}
        signals = gather_signals(
            video,
            meta,
            reads=self._reads,
            gop=gop,
            saliency=view.saliency,
            frame_features=view.frame_features,
            saliency_source="pooling head"
            if self._pooling_head
            else view.saliency_source or self._adapter.saliency_source,
            merged=view.merged,
        )
        tokens = video.of(embeddings)
        with planning():
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
