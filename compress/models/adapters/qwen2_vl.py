"""Qwen2-VL: dynamic resolution, two frames per temporal patch, 2 x 2 patches per token, M-RoPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import ConfigError, ShapeError
from compress.models.adapters.adapter import (
    Clip,
    VideoGrid,
    VideoTokens,
    VisionRequest,
    VisualInputs,
    part,
    placeholder_runs,
    spread,
)
from compress.models.adapters.qwen_vision import QwenVisionTap
from compress.models.inputs.preprocess import CLIP_MEAN, CLIP_STD, PixelSettings, patch_pixels

MIN_TOKENS, MAX_TOKENS = 16, 768
"""Bounds on the tokens of a frame: below the first, pictures are enlarged; above the second, reduced."""


class Qwen2VL:
    """See `compress.models.adapters.adapter.Adapter`."""

    covered = 1.0
    patch_unit = 1
    multi_axis = True
    first_merge_layer = 1
    windowed = False
    runs_per_frame = False
    pixels = PixelSettings(mean=CLIP_MEAN, std=CLIP_STD)
    saliency_source = "attention received in the encoder's last block"

    def __init__(self, model: nn.Module) -> None:
        self.core = part(model, "model")
        self.language_model = part(model, "model.language_model")
        self.layers = part(model, "model.language_model.layers")
        self.visual = part(model, "model.visual")
        for path in ("blocks", "merger", "rotary_pos_emb", "spatial_merge_size"):
            part(model, f"model.visual.{path}")
        self.config = part(model, "config")
        self.merge_size = int(self.visual.spatial_merge_size)
        self.temporal = int(self.config.vision_config.temporal_patch_size)

    def install(self, hooks: ExitStack, request: VisionRequest) -> QwenVisionTap:
        """Put hooks on the encoder."""
        tap = QwenVisionTap(self.visual, windowed=self.windowed, request=request)
        tap.install(hooks)
        return tap

    def pool(self, maps: Tensor) -> Tensor:
        """(T, rows, cols) -> (T, N): means of the patches of each token."""
        return F.avg_pool2d(maps[:, None], self.merge_size).flatten(1)

    def encode_pixels(self, clip: Clip) -> VisualInputs:
        """Frames in their aspect, as rows of pixels."""
        vision = self.config.vision_config
        area = (vision.patch_size * self.merge_size) ** 2
        settings = replace(self.pixels, min_pixels=MIN_TOKENS * area, max_pixels=MAX_TOKENS * area)
        rows, grid = patch_pixels(
            clip.frames,
            patch=vision.patch_size,
            temporal=self.temporal,
            merge=self.merge_size,
            settings=settings.from_checkpoint(self.config._name_or_path),
        )
        frames, tokens = int(grid[0, 0]), int(grid[0, 1:].prod()) // self.merge_size**2
        runs = [tokens] * frames if self.runs_per_frame else [tokens * frames]
        return VisualInputs(tensors={"pixel_values_videos": rows, "video_grid_thw": grid}, runs=runs)

    def write_prompt(self, question: str, clip: Clip) -> list[str | None]:
        """The published chat template."""
        return [
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>",
            None,
            f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n",
        ]

    def write_turn(self, question: str) -> str:
        """The same template, further on."""
        return f"<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def locate(self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any]) -> list[VideoTokens]:
        """The placeholders of each video, T * rows * cols of them, in one run or one run per frame."""
        runs = placeholder_runs(input_ids, self.config.video_token_id)
        if not runs:
            return []
        if inputs.get("mm_token_type_ids") is None:
            raise ConfigError(
                "mm_token_type_ids are missing, without which positions are wrong; pass those of the processor or of "
                "compress.models.inputs.prompt.prepare (0 text, 1 image, 2 video)"
            )
        given = inputs.get("video_grid_thw")
        if given is not None:
            grids = [(int(t), int(h), int(w)) for t, h, w in given.tolist()]
        per_video = [self._runs(grid) for grid in grids]
        if not per_video:
            raise ShapeError("there are video placeholders but no video was encoded; pass pixel_values_videos")
        repeats = len(runs) / sum(per_video)
        if repeats != int(repeats):
            raise ShapeError(f"there are {len(runs)} runs of video placeholders for grids {list(grids)}")
        videos, place = [], 0
        for entry in spread(int(repeats) * len(grids), len(grids), what="grids"):
            frames, rows, cols = grids[entry]
            mine = runs[place : place + per_video[entry]]
            place += per_video[entry]
            index = torch.cat([torch.arange(a, b, device=input_ids.device) for _, a, b in mine])
            tokens = (rows // self.merge_size, cols // self.merge_size)
            if len(index) != frames * tokens[0] * tokens[1] or len({row for row, _, _ in mine}) != 1:
                raise ShapeError(
                    f"a video of grid {grids[entry]} takes {frames * tokens[0] * tokens[1]} placeholders in one "
                    f"prompt; it has {len(index)}"
                )
            row, start, _ = mine[0]
            stop = mine[-1][2]
            videos.append(
                VideoTokens(
                    row=row,
                    frames=frames,
                    grid=tokens,
                    index=index,
                    stop=stop,
                    start=start if len(mine) == 1 else None,
                )
            )
        return videos

    def _runs(self, grid: VideoGrid) -> int:
        """Runs of placeholders of a video."""
        return grid[0] if self.runs_per_frame else 1
