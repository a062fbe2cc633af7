"""LLaVA-OneVision: SigLIP, bilinear pooling to 14 x 14 tokens per frame, one newline after each video, Qwen2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaOnevisionModel

from compress.errors import ShapeError
from compress.models.adapters.adapter import (
    Clip,
    VideoGrid,
    VideoTokens,
    VisionRequest,
    VisualInputs,
    count_places,
    part,
    placeholder_runs,
)
from compress.models.adapters.layouts import PooledLayout
from compress.models.adapters.siglip import SiglipTap
from compress.models.inputs.preprocess import PixelSettings, square_pixels

MOST_ELEMENTS = 2**31 - 1


class LlavaOnevision:
    """See `compress.models.adapters.adapter.Adapter`."""

    temporal = 1
    patch_unit = 1
    multi_axis = False
    first_merge_layer = 1
    saliency_source = PooledLayout.saliency_source

    def __init__(self, model: nn.Module) -> None:
        self.core = part(model, "model")
        self.language_model = part(model, "model.language_model")
        self.layers = part(model, "model.language_model.layers")
        self.tower = part(model, "model.vision_tower")
        self.projector = part(model, "model.multi_modal_projector")
        for path in ("embeddings", "encoder.layers"):
            part(model, f"model.vision_tower.{path}")
        self.config = part(model, "config")
        vision = self.config.vision_config
        self.layout = PooledLayout.of(vision.image_size, vision.patch_size)
        self.patch_grid = (self.layout.side, self.layout.side)
        self.covered = self.layout.covered

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of a frame."""
        return self.layout.token_grid

    def install(self, hooks: ExitStack, request: VisionRequest) -> SiglipTap:
        """Put hooks on the tower and the projector."""
        chosen = self.config.vision_feature_layer
        if not isinstance(chosen, int):
            raise ShapeError(f"vision_feature_layer is {chosen}; only a single layer is supported")
        tap = SiglipTap(
            tower=self.tower,
            projector=self.projector,
            # hidden_states begin with the embeddings, so that entry n is the output of layer n - 1
            layer=chosen if chosen < 0 else chosen - 1,
            grid=self.patch_grid,
            pool=self.pool,
            request=request,
        )
        tap.install(hooks)
        if type(self.core).apply_pooling is LlavaOnevisionModel.apply_pooling:
            self.core.apply_pooling = self.pool_features
            hooks.callback(delattr, self.core, "apply_pooling")
        return tap

    def relative_positions(
        self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any], mask: Tensor | None
    ) -> Tensor:
        """Return positions on one axis."""
        return count_places(input_ids, mask)

    def pool_features(self, features: Tensor) -> Tensor:
        """Pool (T, patches, D) -> (T, N, D), as the model does, without its change of memory layout.

        The model moves channels before rows first. On planes of 27 x 27 a GPU then runs one thread per token, each
        over all frames and channels, and a CPU needs a transposition and cannot vectorise.
        """
        maps = features.view(len(features), *self.patch_grid, -1).permute(0, 3, 1, 2)
        # PyTorch's kernel for this layout counts elements in 32 bits.
        parts = torch.split(maps, max(1, MOST_ELEMENTS // maps[0].numel()))
        pooled = [F.interpolate(part, size=self.token_grid, mode="bilinear") for part in parts]
        whole = pooled[0] if len(pooled) == 1 else torch.cat(pooled)
        return whole.permute(0, 2, 3, 1).flatten(1, 2)

    def pool(self, maps: Tensor) -> Tensor:
        """Pool (T, rows, cols) -> (T, N): bilinear, corners not aligned, no antialiasing."""
        return self.layout.pool(maps)

    def encode_pixels(self, clip: Clip) -> VisualInputs:
        """Resize frames to squares."""
        pixels = square_pixels(clip.frames, self.config.vision_config.image_size, self._settings)
        return VisualInputs(tensors={"pixel_values_videos": pixels[None]}, runs=[self.placeholders(len(clip.frames))])

    @property
    def _settings(self) -> PixelSettings:
        return PixelSettings().from_checkpoint(self.config._name_or_path)

    def placeholders(self, frames: int) -> int:
        """Count the placeholders of a video."""
        return frames * math.prod(self.token_grid) + 1

    def write_prompt(self, question: str, clip: Clip) -> list[str | None]:
        """Write the published chat template."""
        return ["<|im_start|>user ", None, f"\n{question}<|im_end|><|im_start|>assistant\n"]

    def write_turn(self, question: str) -> str:
        """Continue the same template."""
        return f"<|im_end|><|im_start|>user \n{question}<|im_end|><|im_start|>assistant\n"

    def video_grids(self, pixels: Tensor, inputs: Mapping[str, Any]) -> list[VideoGrid]:
        """Read the grids from pixels of shape (B, T, 3, height, width)."""
        return [(pixels.shape[1], *self.patch_grid)] * pixels.shape[0]

    def cut_patches(self, pixels: Tensor, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """Cut pixels of shape (B, T, 3, height, width)."""
        size, (rows, cols) = self.config.vision_config.patch_size, self.patch_grid
        levels = pixels[..., : rows * size, : cols * size] * self._settings.scale(pixels)[:, None, None]
        cells = levels.reshape(*levels.shape[:3], rows, size, cols, size)
        return list(cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4))

    def locate(self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any]) -> list[VideoTokens]:
        """Find one run of placeholders per video: T times N tokens and a newline."""
        rows, cols = self.token_grid
        videos = []
        for row, start, stop in placeholder_runs(input_ids, self.config.video_token_id):
            frames, rest = divmod(stop - start, rows * cols)
            if rest != 1 or not frames:
                raise ShapeError(
                    f"row {row} has {stop - start} video placeholders in a row; a video of T frames takes "
                    f"{rows * cols} T + 1; put text between two videos"
                )
            index = torch.arange(start, stop - 1, device=input_ids.device)
            videos.append(
                VideoTokens(
                    row=row,
                    frames=frames,
                    grid=(rows, cols),
                    patches=self.patch_grid,
                    index=index,
                    begin=start,
                    stop=stop,
                    start=start,
                )
            )
        return videos
