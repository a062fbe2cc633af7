"""LLaVA-OneVision, served compressed; vLLM itself does not prune its videos.

Its positions have one axis, and vLLM counts them by itself. With the section of M-RoPE in its configuration
(see `registration`) it asks the model for positions on three axes, and three equal ones are the one of plain RoPE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.interfaces import SupportsMRoPE, SupportsMultiModalPruning
from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataParser

from compress.models.adapters.adapter import VideoGrid
from compress.models.adapters.layouts import PooledLayout
from compress.serving.vllm.models import CompressingModel
from compress.serving.vllm.processors import CompressingProcessor, KeepsMetadata, PlainVideos
from compress.serving.vllm.prompt_positions import AXES, PlacedItem, append_positions
from compress.serving.vllm.version import check_version

check_version()

FRAMES = "video_frames"
"""Field of a video: how many frames it has."""


def layout_of(config: Any) -> PooledLayout:
    """Return the layout of a checkpoint's tokens by its configuration."""
    return PooledLayout.of(config.vision_config.image_size, config.vision_config.patch_size)


class CompressLlavaOnevisionDataParser(KeepsMetadata, MultiModalDataParser):
    """Parser of requests that keeps the metadata of videos."""


class CompressLlavaOnevisionProcessingInfo(LlavaOnevisionProcessingInfo):
    """See `LlavaOnevisionProcessingInfo`."""

    def get_data_parser(self) -> CompressLlavaOnevisionDataParser:
        """Return the parser of requests."""
        return CompressLlavaOnevisionDataParser(
            video_needs_metadata=True,
            expected_hidden_size=self._get_expected_hidden_size(),
            allow_missing_mm_embeddings=self.allow_missing_mm_embeddings,
        )


class CompressLlavaOnevisionProcessor(CompressingProcessor, PlainVideos, LlavaOnevisionMultiModalProcessor):
    """See `compress.serving.vllm.processors.CompressingProcessor`."""

    @cached_property
    def layout(self) -> PooledLayout:
        """See `CompressingProcessor.layout`."""
        return layout_of(self.info.get_hf_config())

    def video_grid(self, fields: Mapping[str, Any], index: int) -> VideoGrid:
        """See `CompressingProcessor.video_grid`."""
        return len(fields["pixel_values_videos"][index]), self.layout.side, self.layout.side

    def item_grid(self, item: Mapping[str, Any]) -> VideoGrid:
        """See `CompressingProcessor.item_grid`."""
        return len(item["pixel_values_videos"].data), self.layout.side, self.layout.side

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        """Add the number of frames of each video to the processed fields."""
        fields = super()._apply_hf_processor_main(mm_items, hf_kwargs)
        if "pixel_values_videos" in fields:
            fields[FRAMES] = [torch.tensor([len(one)]) for one in fields["pixel_values_videos"]]
        return fields

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> dict[str, Any]:
        """Let the number of frames stay with a video whose pixels the engine leaves out, because they are cached."""
        configured = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)
        return configured | {FRAMES: MultiModalFieldConfig.batched("video", keep_on_cpu=True)}

    def placeholders(self, item: Mapping[str, Any]) -> Any:
        """See `CompressingProcessor.placeholders`; a newline ends a video."""
        return [self.info.get_hf_config().video_token_index] * (self.count(self.item_grid(item)) + 1)

    def kept(self, placeholders: Sequence[int]) -> int:
        """See `CompressingProcessor.kept`; the newline does not count."""
        return len(placeholders) - 1


@MULTIMODAL_REGISTRY.register_processor(
    CompressLlavaOnevisionProcessor,
    info=CompressLlavaOnevisionProcessingInfo,
    dummy_inputs=LlavaOnevisionDummyInputsBuilder,
)
class CompressLlavaOnevisionForConditionalGeneration(
    CompressingModel, LlavaOnevisionForConditionalGeneration, SupportsMultiModalPruning, SupportsMRoPE
):
    """See `compress.serving.vllm.models.CompressingModel`."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        layout = layout_of(self.config)
        self.prepare(vllm_config, layout)
        self.side, self.token_grid = layout.side, layout.token_grid
        layers = self.vision_tower.vision_model.encoder.layers
        self.tap_attention(layers[-1].self_attn.attn, self.config.vision_config.num_attention_heads)

    @property
    def _contiguous(self) -> bool:
        """Whether positions are counted without gaps."""
        return getattr(self.planner.served.compressor, "positions", "original") == "contiguous"

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Encode images and videos, the latter shortened."""
        with self.arriving(kwargs):
            return super().embed_multimodal(**kwargs)

    def _process_video_pixels(self, inputs: Any) -> list[Tensor]:
        """Encode videos and shorten them."""
        frames = [len(one) for one in inputs["pixel_values_videos"]]
        saliency: list[Tensor | None] = [None] * len(frames)
        if self.tap is None:
            encoded = super()._process_video_pixels(inputs)
        else:
            with self.tap.listening():
                encoded = super()._process_video_pixels(inputs)
                saliency = [self._measure(count) for count in frames]
        return [
            self._shorten(whole.flatten(0, -2), count, received, index)
            for index, (whole, count, received) in enumerate(zip(encoded, frames, saliency, strict=True))
        ]

    def _measure(self, frames: int) -> Tensor:
        """Pool the attention that the patches of a video received as features are pooled, (T, N)."""
        assert self.tap is not None  # it listens
        received = self.tap.measure(frames, self.side**2)
        return self.planner.layout.pool(received.view(frames, self.side, self.side))

    def _shorten(self, whole: Tensor, frames: int, saliency: Tensor | None, index: int) -> Tensor:
        """Shorten a video (V + 1, D) that a newline ends, and append positions."""
        tokens, newline = whole[:-1], whole[-1:]
        plan = self.plan_tokens(tokens, (frames, self.side, self.side), self.token_grid, saliency, index).plan
        places = torch.cat((plan.keep, plan.keep.new_tensor([len(tokens)])))
        if self._contiguous:
            places = torch.arange(len(places), device=places.device)
        return append_positions(torch.cat((plan.apply(tokens), newline)), places.expand(AXES, -1))

    def place_items(self, input_tokens: list[int], mm_features: Sequence[Any]) -> list[PlacedItem]:
        """See `CompressingModel.place_items`."""
        items = []
        for feature in sorted(mm_features, key=lambda one: one.mm_position.offset):
            place = feature.mm_position
            extent, positions = place.length, None
            if feature.modality == "image":
                positions = torch.arange(place.length).expand(AXES, -1)
            elif not self._contiguous:
                rows, cols = self.token_grid
                extent = int(feature.data[FRAMES].data) * rows * cols + 1
            items.append(PlacedItem(offset=place.offset, length=place.length, extent=extent, positions=positions))
        return items
