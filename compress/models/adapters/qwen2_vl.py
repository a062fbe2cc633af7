"""Qwen2-VL: dynamic resolution, two frames per temporal patch, 2 x 2 patches per token, M-RoPE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
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
)
from compress.models.adapters.layouts import MergedLayout
from compress.models.adapters.qwen_vision import QwenVisionTap
from compress.models.inputs.preprocess import CLIP_MEAN, CLIP_STD, PixelSettings, patch_pixels

IMAGE_TYPE = 1
"""Kind of an image's token in ``mm_token_type_ids``."""

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
    saliency_source = MergedLayout.saliency_source

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
        self.layout = MergedLayout(merge_size=self.merge_size, temporal=self.temporal)

    def install(self, hooks: ExitStack, request: VisionRequest) -> QwenVisionTap:
        """Put hooks on the encoder."""
        tap = QwenVisionTap(self.visual, windowed=self.windowed, request=request)
        tap.install(hooks)
        return tap

    def relative_positions(
        self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any], mask: Tensor | None
    ) -> Tensor:
        """Return positions on three axes, as the model counts a prompt.

        Raises:
            ConfigError: the grids of some images are not given.
        """
        kinds, images = inputs["mm_token_type_ids"][:, -input_ids.shape[1] :], inputs.get("image_grid_thw")
        count = len(placeholder_runs(kinds, IMAGE_TYPE))
        if count != (0 if images is None else len(images)):
            raise ConfigError(
                f"a later turn has {count} images and a video, and {0 if images is None else len(images)} grids of "
                "images; pass image_grid_thw of that turn's images"
            )
        positions: Tensor
        positions, _ = self.core.get_rope_index(
            input_ids,
            mm_token_type_ids=kinds,
            image_grid_thw=images if count else None,
            video_grid_thw=torch.tensor(grids, device=input_ids.device),
            second_per_grid_ts=inputs.get("second_per_grid_ts"),
            attention_mask=mask,
        )
        return positions

    def pool(self, maps: Tensor) -> Tensor:
        """Average the patches of each token, (T, rows, cols) -> (T, N)."""
        return self.layout.pool(maps)

    def encode_pixels(self, clip: Clip) -> VisualInputs:
        """Convert frames in their aspect to rows of pixels."""
        vision = self.config.vision_config
        area = (vision.patch_size * self.merge_size) ** 2
        settings = replace(self._settings, min_pixels=MIN_TOKENS * area, max_pixels=MAX_TOKENS * area)
        rows, grid = patch_pixels(
            clip.frames,
            patch=vision.patch_size,
            temporal=self.temporal,
            merge=self.merge_size,
            settings=settings,
        )
        frames, tokens = int(grid[0, 0]), int(grid[0, 1:].prod()) // self.merge_size**2
        runs = [tokens] * frames if self.runs_per_frame else [tokens * frames]
        return VisualInputs(tensors={"pixel_values_videos": rows, "video_grid_thw": grid}, runs=runs)

    @property
    def _settings(self) -> PixelSettings:
        return self.pixels.from_checkpoint(self.config._name_or_path)

    def cut_patches(self, pixels: Tensor, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """Cut rows of pixels, one per patch, those of a token together."""
        size = self.merge_size
        scale = self._settings.scale(pixels)[:, None]
        levels = (pixels.view(len(pixels), len(scale), -1) * scale).flatten(1)
        found, counts = [], [math.prod(grid) for grid in grids]
        for video, (frames, rows, cols) in zip(torch.split(levels, counts), grids, strict=True):
            tokens = video.view(frames, rows // size, cols // size, size, size, -1)
            if self.patch_unit == 1:
                tokens = tokens.transpose(2, 3).reshape(frames, rows, cols, 1, 1, -1)
            found.append(tokens.flatten(3))
        return found

    def write_prompt(self, question: str, clip: Clip) -> list[str | None]:
        """Write the published chat template."""
        return [
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>",
            None,
            f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n",
        ]

    def write_turn(self, question: str) -> str:
        """Continue the same template."""
        return f"<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def video_grids(self, pixels: Tensor, inputs: Mapping[str, Any]) -> list[VideoGrid]:
        """Return the grids as they are given."""
        return [(int(t), int(h), int(w)) for t, h, w in inputs["video_grid_thw"].tolist()]

    def locate(self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any]) -> list[VideoTokens]:
        """Find the placeholders of each video, T * rows * cols of them, in one run or one run per frame."""
        runs = placeholder_runs(input_ids, self.config.video_token_id)
        if not runs:
            return []
        if inputs.get("mm_token_type_ids") is None:
            raise ConfigError(
                "mm_token_type_ids are missing, without which positions are wrong; pass those of the processor or of "
                "compress.models.inputs.prompt.prepare (0 text, 1 image, 2 video)"
            )
        given = inputs.get("video_grid_thw")
        if not grids and given is not None:
            grids = [(int(t), int(h), int(w)) for t, h, w in given.tolist()]
        if not grids:
            raise ShapeError(
                "the prompt has video placeholders, but nothing says how many patches each video has; pass "
                "pixel_values_videos, or features that core.get_video_features() returned inside this `with` block"
            )
        return [self._place(grid, mine, input_ids) for grid, mine in self._share(runs, grids)]

    def _share(
        self, runs: Sequence[tuple[int, int, int]], grids: Sequence[VideoGrid]
    ) -> list[tuple[VideoGrid, Sequence[tuple[int, int, int]]]]:
        """Share out the runs among the videos, in order; rows that repeat a prompt take its grids again."""
        whole = sum(map(self._runs, grids))
        if len(runs) % whole:
            raise ShapeError(f"the prompt has {len(runs)} runs of video placeholders; grids {list(grids)} take {whole}")
        repeats = len(runs) // whole
        first: dict[int, int] = {}
        entry = number = 0
        shared = []
        while number < len(runs):
            row = runs[number][0]
            if number == 0 or runs[number - 1][0] != row:
                ahead = first.setdefault(row // repeats, max(entry, *first.values()) if first else 0)
                entry = ahead
            grid = grids[entry % len(grids)]
            shared.append((grid, runs[number : number + self._runs(grid)]))
            number += self._runs(grid)
            entry += 1
        return shared

    def _place(self, grid: VideoGrid, mine: Sequence[tuple[int, int, int]], input_ids: Tensor) -> VideoTokens:
        """Locate the video whose placeholders are these runs."""
        frames, tokens = grid[0], (grid[1] // self.merge_size, grid[2] // self.merge_size)
        index = torch.cat([torch.arange(start, stop, device=input_ids.device) for _, start, stop in mine])
        if len(index) != frames * tokens[0] * tokens[1] or len({row for row, _, _ in mine}) != 1:
            raise ShapeError(
                f"a video of grid {grid} takes {frames * tokens[0] * tokens[1]} placeholders in one prompt; "
                f"it has {len(index)}"
            )
        row, begin, _ = mine[0]
        return VideoTokens(
            row=row,
            frames=frames,
            grid=tokens,
            patches=(grid[1], grid[2]),
            index=index,
            begin=begin,
            stop=mine[-1][2],
            start=begin if len(mine) == 1 else None,
        )

    def _runs(self, grid: VideoGrid) -> int:
        """Return the runs of placeholders of a video."""
        return grid[0] if self.runs_per_frame else 1
