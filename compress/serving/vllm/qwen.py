"""What the Qwen-VL families have in common when they are served: grids, positions, and encoders without windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from compress.models.adapters.adapter import VideoGrid
from compress.models.adapters.layouts import MergedLayout
from compress.serving.vllm.models import CompressingModel
from compress.serving.vllm.processors import CompressingProcessor
from compress.serving.vllm.prompt_positions import PlacedItem, append_positions
from compress.stage import Compression


def layout_of(config: Any) -> MergedLayout:
    """Return the layout of a checkpoint's tokens by its configuration."""
    vision = config.vision_config
    return MergedLayout(merge_size=vision.spatial_merge_size, temporal=vision.temporal_patch_size)


def grid_positions(grid: VideoGrid, merge: int, time_factor: float = 1.0) -> Tensor:
    """Return M-RoPE positions int64 (3, V) of a video's tokens, relative to its first.

    Args:
        grid: frames, rows and columns of patches.
        merge: rows and columns of patches of a token.
        time_factor: positions from a frame to the next, rounded down after counting.
    """
    frames, rows, cols = grid[0], grid[1] // merge, grid[2] // merge
    axes = torch.meshgrid(torch.arange(frames), torch.arange(rows), torch.arange(cols), indexing="ij")
    positions = torch.stack([axis.flatten() for axis in axes])
    if time_factor != 1.0:
        # in float32, as transformers counts: a product that rounds to a whole number is that number
        positions[0] = (positions[0].float() * torch.tensor(time_factor, dtype=torch.float32)).long()
    return positions


def grid_of(field: Any) -> VideoGrid:
    """Return the grid that a field ``video_grid_thw`` of one item holds."""
    frames, rows, cols = (int(one) for one in field.flatten().tolist())
    return frames, rows, cols


class QwenProcessor(CompressingProcessor):
    """See `CompressingProcessor`."""

    @cached_property
    def layout(self) -> MergedLayout:
        """See `CompressingProcessor.layout`."""
        return layout_of(self.info.get_hf_config())

    def video_grid(self, fields: Mapping[str, Any], index: int) -> VideoGrid:
        """See `CompressingProcessor.video_grid`."""
        return grid_of(fields["video_grid_thw"][index])

    def item_grid(self, item: Mapping[str, Any]) -> VideoGrid:
        """See `CompressingProcessor.item_grid`."""
        return grid_of(item["video_grid_thw"].data)

    def placeholders(self, item: Mapping[str, Any]) -> Any:
        """See `CompressingProcessor.placeholders`."""
        return [self.info.get_hf_config().video_token_id] * self.count(self.item_grid(item))


class QwenModel(CompressingModel):
    """See `CompressingModel`; of those whose videos are one run of tokens."""

    config: Any
    visual: Any

    @property
    def merge(self) -> int:
        """Rows and columns of patches of a token."""
        return int(self.config.vision_config.spatial_merge_size)

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Encode images and videos, the latter shortened."""
        plain: Any = super()
        with self.arriving(kwargs):
            return plain.embed_multimodal(**kwargs)

    def _process_video_input(self, video_input: Any) -> Any:
        """Encode videos, and note the attention in the encoder."""
        plain: Any = super()
        if self.tap is None or video_input["type"] == "video_embeds":
            return plain._process_video_input(video_input)
        with self.tap.listening():
            encoded = plain._process_video_input(video_input)
            grids = [grid_of(one) for one in video_input["video_grid_thw"]]
            self._saliency = [self.order_tokens(received, grid) for received, grid in self.received(grids)]
        return encoded

    def received(self, grids: Sequence[VideoGrid]) -> list[tuple[Tensor, VideoGrid]]:
        """Return what the patches of each video received, (T, patches) in the order of the encoder, with its grid."""
        assert self.tap is not None  # it listens
        return [(self.tap.measure(grid[0], grid[1] * grid[2]), grid) for grid in grids]

    def order_tokens(self, received: Tensor, grid: VideoGrid) -> Tensor:
        """Average what patches received over those of each token, (T, patches) in encoder order -> (T, N)."""
        return received.view(grid[0], -1, self.merge**2).mean(dim=2)

    def plan_video(self, tokens: Tensor, grid: VideoGrid, index: int) -> Compression:
        """Plan over the tokens (V, D) of a video of the batch."""
        saliency = None if self.tap is None or not self._saliency else self._saliency[index]
        token_grid = (grid[1] // self.merge, grid[2] // self.merge)
        return self.plan_tokens(tokens, grid, token_grid, saliency, index)

    def _postprocess_image_embeds_evs(self, image_embeds_split: Any, image_input: Any) -> Any:
        """Leave images as they are; their positions are known beforehand."""
        return image_embeds_split

    def shorten(self, encoded: Sequence[Tensor], grids: Sequence[VideoGrid], factors: Sequence[float]) -> list[Tensor]:
        """Shorten videos and append the positions of what stays.

        Args:
            encoded: tokens (V, D) of each video.
            grids: of their patches.
            factors: positions from a frame to the next.
        """
        rows = []
        for index, (tokens, grid, factor) in enumerate(zip(encoded, grids, factors, strict=True)):
            plan = self.plan_video(tokens, grid, index).plan
            positions = grid_positions(grid, self.merge, factor).to(tokens.device)
            rows.append(append_positions(plan.apply(tokens), plan.take(positions, dim=1)))
        self._saliency = []
        return rows

    def time_factor(self, seconds: Any) -> float:
        """Return the positions from a frame of a video to the next.

        Args:
            seconds: field ``second_per_grid_ts``; None for an unknown time.
        """
        spacing = torch.as_tensor(1.0 if seconds is None else seconds, dtype=torch.float32).flatten()[0]
        return float(spacing * getattr(self.config.vision_config, "tokens_per_second", 1))

    def place_items(self, input_tokens: list[int], mm_features: Sequence[Any]) -> list[PlacedItem]:
        """See `CompressingModel.place_items`."""
        items = []
        for feature in sorted(mm_features, key=lambda one: one.mm_position.offset):
            kind, fields = feature.modality, feature.data
            seconds = fields.get("second_per_grid_ts") if kind == "video" else None
            factor = self.time_factor(None if seconds is None else seconds.data) if kind == "video" else 1.0
            positions = grid_positions(grid_of(fields[f"{kind}_grid_thw"].data), self.merge, factor)
            items.append(
                PlacedItem(
                    offset=feature.mm_position.offset,
                    length=feature.mm_position.length,
                    extent=int(positions.amax()) + 1,
                    positions=positions if kind == "image" else None,
                )
            )
        return items
