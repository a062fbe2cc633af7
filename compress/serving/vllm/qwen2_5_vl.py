"""Qwen2.5-VL, served compressed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from codecmeta import VideoMeta
from compress.models.adapters.adapter import VideoGrid
from compress.serving.vllm.qwen import QwenModel, QwenProcessor, grid_of, layout_of
from compress.serving.vllm.version import check_version

check_version()


class CompressQwen2_5_VLProcessor(QwenProcessor, Qwen2_5_VLMultiModalProcessor):
    """See `compress.serving.vllm.processors.CompressingProcessor`."""

    def set_times(self, fields: Any, index: int, meta: VideoMeta) -> None:
        """See `CompressingProcessor.set_times`: the seconds from a frame to the next scale the positions in time."""
        seconds = meta.frame_seconds
        spacing = float(np.diff(seconds).mean()) if len(seconds) > 1 else 1.0
        fields["second_per_grid_ts"][index] = spacing * self.layout.temporal


@MULTIMODAL_REGISTRY.register_processor(
    CompressQwen2_5_VLProcessor, info=Qwen2_5_VLProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
class CompressQwen2_5_VLForConditionalGeneration(QwenModel, Qwen2_5_VLForConditionalGeneration):
    """See `compress.serving.vllm.models.CompressingModel`."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.prepare(vllm_config, layout_of(self.config))
        last = max(self.visual.fullatt_block_indexes, default=len(self.visual.blocks) - 1)
        self.tap_attention(self.visual.blocks[last].attn.attn, self.visual.num_heads)

    def order_tokens(self, received: Tensor, grid: VideoGrid) -> Tensor:
        """See `QwenModel.order_tokens`; the encoder's order is that of its windows."""
        by_window = super().order_tokens(received, grid)
        order, _ = self.visual.get_window_index_thw(*grid)
        tokens = torch.empty_like(by_window)
        tokens.view(-1)[order.to(tokens.device)] = by_window.flatten()
        return tokens

    def _postprocess_video_embeds_evs(self, video_embeds_split: Any, video_input: Any) -> Any:
        """Shorten videos."""
        grids = [grid_of(one) for one in video_input["video_grid_thw"]]
        seconds = video_input.get("second_per_grid_ts")
        factors = [self.time_factor(None if seconds is None else seconds[index]) for index in range(len(grids))]
        return tuple(self.shorten(video_embeds_split, grids, factors))
