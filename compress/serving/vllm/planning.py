"""Planning of a request's video inside an engine, by the classes and in the order of `attach`."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.errors import ConfigError
from compress.models.adapters.adapter import TokenLayout, VideoGrid, VideoTokens, VisionView
from compress.models.plans import join_plans
from compress.models.session.encoding import EncodedVideo
from compress.models.session.session import signals_read
from compress.models.session.videos import VideoCompressor, VideoResult
from compress.plan import MergePlan
from compress.serving.vllm.codec import CodecSignals
from compress.serving.vllm.settings import ServedMethod
from compress.stage import Compression

LOG = logging.getLogger("vllm.compress")
"""Below vLLM's own logger, whose handlers show it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedPatches:
    """Patches that merge before the encoder.

    Attributes:
        compressions: of each video; None where nothing merges.
        plan: over the patches of all of them, in raster order.
    """

    compressions: list[Compression | None]
    plan: MergePlan


class VideoPlanner:
    """Plans of the videos of all requests.

    Attributes:
        served: the method.
        layout: of the model's tokens.
        reads: signals that the method reads.
        wants_saliency: whether attention in the encoder is to be measured.
    """

    def __init__(self, served: ServedMethod, layout: TokenLayout) -> None:
        self.served = served
        self.layout = layout
        self.reads = signals_read(served.compressor)
        self.wants_saliency = served.saliency != "none" and "saliency" in self.reads

    def plan(
        self,
        tokens: Tensor,
        grid: VideoGrid,
        *,
        token_grid: tuple[int, int],
        saliency: Tensor | None,
        codec: CodecSignals | None,
        patches: Compression | None = None,
    ) -> Compression:
        """Plan over the tokens of one video.

        Args:
            tokens: (V, D), as the language model would be given them.
            grid: frames, rows and columns of its patches.
            token_grid: rows and columns of the tokens of a frame.
            saliency: (T, N), attention received; None if it was not measured.
            codec: what came with the video.
            patches: what was merged of its patches.

        Raises:
            ConfigError: another number of tokens would leave than was announced.
            SignalError: the method cannot do without a signal that is missing.
        """
        video = VideoTokens(
            row=0,
            frames=grid[0],
            grid=token_grid,
            patches=grid[1:],
            index=torch.arange(len(tokens), device=tokens.device),
            begin=0,
            stop=len(tokens),
            start=0,
        )
        seen = EncodedVideo(
            session=weakref.ref(self), grid=grid, view=VisionView(saliency=saliency), patches=patches, entry=None
        )
        compressor, entries = self._compressor(codec), None if codec is None else [0]
        (compression,), (result,) = compressor.compress(tokens[None], [video], [seen], entries)
        if compression is None:
            raise ConfigError(f"{self.served.method} has no stage before the language model")
        announced = self.served.count(grid[0], token_grid[0] * token_grid[1])
        if compression.achieved != announced:
            raise ConfigError(
                f"{self.served.method} kept {compression.achieved} tokens of a video for which {announced} were "
                "announced; its count of tokens is not known beforehand"
            )
        self._report(result)
        return compression

    def plan_patches(self, grids: Sequence[VideoGrid], codecs: Sequence[CodecSignals | None]) -> MergedPatches:
        """Plan what merges of the patches of videos before the encoder.

        Args:
            grids: of their patches.
            codecs: what came with each; a video without keeps its patches.
        """
        found: list[Compression | None] = []
        plans = []
        for grid, codec in zip(grids, codecs, strict=True):
            if codec is None:
                found.append(None)
                plans.append(MergePlan.identity(grid[0] * grid[1] * grid[2], device="cpu"))
                continue
            (one,), plan = self._compressor(codec).plan_patches([grid], [0])
            found.append(one)
            plans.append(plan)
        return MergedPatches(compressions=found, plan=join_plans(plans))

    def _compressor(self, codec: CodecSignals | None) -> VideoCompressor:
        """Return what compresses one video."""
        missing = {"packet_size", "density"} - set(() if codec is None else codec.known)
        return VideoCompressor(
            self.served.compressor,
            self.layout,
            [] if codec is None else [codec],
            reads=[name for name in self.reads if name not in missing],
            reads_saliency=self.wants_saliency,
            pooling_head=False,
        )

    def _report(self, result: VideoResult) -> None:
        """Log how a video was shortened."""
        sources = ", ".join(f"{name}: {source}" for name, source in result.sources.items())
        LOG.info(
            "compress: %s keeps %d of %d tokens of a video of %d frames (%s)",
            self.served.method,
            result.tokens_out,
            result.tokens_in,
            result.frames,
            sources or "reads no signals",
        )
