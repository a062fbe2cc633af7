"""LLaVA-Video: LLaVA-OneVision's modules with its own video layout: 2 x 2 average pooling, a newline per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionModel
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionPreTrainedModel

from compress.errors import ShapeError
from compress.models.adapters.adapter import Clip, VideoGrid, VideoTokens, placeholder_runs
from compress.models.adapters.llava_onevision import LlavaOnevision

POOL = 2
"""Patches per side that one token averages; a last odd row or column is dropped, 27 -> 13."""


class LlavaVideoModel(LlavaOnevisionModel):  # type: ignore[misc]
    """The core of LLaVA-Video."""

    def get_video_features(self, pixel_values_videos: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Encode, project and pool videos.

        Args:
            pixel_values_videos: (B, T, 3, H, W).
            args: see ``LlavaOnevisionModel``.
            kwargs: likewise.

        Returns:
            Features as ``pooler_output``, (B, T * rows * (cols + 1), D).
        """
        output = super().get_video_features(pixel_values_videos, *args, **{**kwargs, "return_dict": True})
        # Whichever side the parent appends its closing newline on, before or after it returns, one is too many:
        # the last row's own newline is the last token already.
        output.pooler_output = output.pooler_output[:, :-1]
        return output

    def apply_pooling(self, image_features: Tensor) -> Tensor:
        """Pool (frames, patches, D) -> (frames, rows * (cols + 1), D), with a newline at the end of each row."""
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        frames, _, width = image_features.shape
        planes = image_features.view(frames, side, side, width).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(planes, POOL).permute(0, 2, 3, 1)
        newline = self.image_newline.to(pooled).expand(*pooled.shape[:2], 1, width)
        return torch.cat((pooled, newline), dim=2).flatten(1, 2)


class LlavaVideoForConditionalGeneration(LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-Video with its language head; `inputs.checkpoint.load_llava_next` reads published weights."""

    def __init__(self, config: LlavaOnevisionConfig) -> None:
        LlavaOnevisionPreTrainedModel.__init__(self, config)
        self.model = LlavaVideoModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


class LlavaVideo(LlavaOnevision):
    """See `compress.models.adapters.adapter.Adapter`."""

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of a frame, newlines not counted."""
        return self.patch_grid[0] // POOL, self.patch_grid[1] // POOL

    def pool(self, maps: Tensor) -> Tensor:
        """Pool (T, rows, cols) -> (T, N): means of 2 x 2."""
        return F.avg_pool2d(maps[:, None], POOL).flatten(1)

    def placeholders(self, frames: int) -> int:
        """Count the placeholders of a video, newlines included."""
        rows, cols = self.token_grid
        return frames * rows * (cols + 1)

    def write_prompt(self, question: str, clip: Clip) -> list[str | None]:
        """Write the published conversation with its instruction on time."""
        times = ",".join(f"{second:.2f}s" for second in clip.seconds)
        instruction = (
            f"The video lasts for {clip.duration:.2f} seconds, and {len(clip.frames)} frames are uniformly sampled "
            f"from it. These frames are located at {times}.Please answer the following questions related to this video."
        )
        return [
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
            None,
            f"\n{instruction}\n{question}<|im_end|>\n<|im_start|>assistant\n",
        ]

    def write_turn(self, question: str) -> str:
        """Continue the same conversation."""
        return f"<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def locate(self, input_ids: Tensor, grids: Sequence[VideoGrid], inputs: Mapping[str, Any]) -> list[VideoTokens]:
        """Find one run of placeholders per video: T times rows of tokens, each with its newline."""
        rows, cols = self.token_grid
        per_frame = rows * (cols + 1)
        videos = []
        for row, start, stop in placeholder_runs(input_ids, self.config.video_token_id):
            frames, rest = divmod(stop - start, per_frame)
            if rest:
                raise ShapeError(
                    f"row {row} has {stop - start} video placeholders in a row; a video of T frames takes {per_frame} T"
                )
            place = torch.arange(start, stop, device=input_ids.device).view(frames, rows, cols + 1)
            videos.append(
                VideoTokens(
                    row=row,
                    frames=frames,
                    grid=(rows, cols),
                    patches=self.patch_grid,
                    index=place[..., :-1].flatten(),
                    begin=start,
                    stop=stop,
                    newlines=place[..., -1].contiguous(),
                )
            )
        return videos
