"""Qwen2-VL, served compressed; vLLM itself does not prune its videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.interfaces import SupportsMultiModalPruning
from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLForConditionalGeneration,
    Qwen2VLMultiModalDataParser,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from compress.models.adapters.adapter import VideoGrid
from compress.serving.vllm.patch_merging import MergedPass, PatchMerger
from compress.serving.vllm.processors import KeepsMetadata, PlainVideos
from compress.serving.vllm.qwen import QwenModel, QwenProcessor, grid_of, layout_of
from compress.serving.vllm.version import check_version

check_version()


class CompressQwen2VLDataParser(KeepsMetadata, Qwen2VLMultiModalDataParser):
    """Parser of requests that keeps the metadata of videos."""


class CompressQwen2VLProcessingInfo(Qwen2VLProcessingInfo):
    """See `Qwen2VLProcessingInfo`."""

    def get_data_parser(self) -> CompressQwen2VLDataParser:
        """Return the parser of requests."""
        return CompressQwen2VLDataParser(
            self.get_hf_config().vision_config.spatial_merge_size,
            video_needs_metadata=True,
            expected_hidden_size=self._get_expected_hidden_size(),
            allow_missing_mm_embeddings=self.allow_missing_mm_embeddings,
        )


class CompressQwen2VLProcessor(QwenProcessor, PlainVideos, Qwen2VLMultiModalProcessor):
    """See `compress.serving.vllm.processors.CompressingProcessor`."""


@MULTIMODAL_REGISTRY.register_processor(
    CompressQwen2VLProcessor, info=CompressQwen2VLProcessingInfo, dummy_inputs=Qwen2VLDummyInputsBuilder
)
class CompressQwen2VLForConditionalGeneration(QwenModel, Qwen2VLForConditionalGeneration, SupportsMultiModalPruning):
    """See `compress.serving.vllm.models.CompressingModel`."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.prepare(vllm_config, layout_of(self.config))
        self.merger = None if self.planner.served.rpm is None else PatchMerger(self.visual)
        self.tap_attention(self.visual.blocks[-1].attn.attn, self.visual.num_heads)

    def _process_video_input(self, video_input: Any) -> Any:
        """Encode videos and shorten them."""
        grids = [grid_of(one) for one in video_input["video_grid_thw"]]
        if self.merger is None or video_input["type"] == "video_embeds":
            encoded = super()._process_video_input(video_input)
        else:
            self._merged = self.planner.plan_patches(grids, [self.codec_of(index) for index in range(len(grids))])
            with self.merger.merging(MergedPass.of(self._merged.plan, grids, self.merge)):
                encoded = super()._process_video_input(video_input)
        return tuple(self.shorten(encoded, grids, [self.time_factor(None)] * len(grids)))

    def received(self, grids: Sequence[VideoGrid]) -> list[tuple[Tensor, VideoGrid]]:
        """See `QwenModel.received`; merged patches received as one."""
        running = None if self.merger is None else self.merger.running
        if running is None or self.tap is None:
            return super().received(grids)
        whole = running.spread(self.tap.measure_lengths(running.lengths))
        parts = torch.split(whole, [frames * rows * cols for frames, rows, cols in grids])
        return [(part.view(grid[0], -1), grid) for part, grid in zip(parts, grids, strict=True)]

    def get_encoder_cudagraph_config(self) -> Any:
        """Capture no videos: the graph of the encoder ends before they are shortened."""
        config = super().get_encoder_cudagraph_config()
        config.modalities = []
        return config
