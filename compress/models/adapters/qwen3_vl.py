"""Qwen3-VL: time stamps between frames, and DeepStack features that the first decoder layers add to visual tokens."""

from __future__ import annotations

import numpy as np
from torch import nn

from compress.models.adapters.adapter import Clip, part
from compress.models.adapters.qwen2_vl import Qwen2VL
from compress.models.inputs.preprocess import PixelSettings


class Qwen3VL(Qwen2VL):
    """See `compress.models.adapters.adapter.Adapter`."""

    runs_per_frame = True
    pixels = PixelSettings()

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        # DeepStack adds features to visual tokens at their first places, which a merge would move.
        self.first_merge_layer = len(part(model, "model.visual.deepstack_visual_indexes"))

    def write_prompt(self, question: str, clip: Clip) -> list[str | None]:
        """Write the published chat template: every temporal patch follows the mean time of its frames."""
        missing = -len(clip.seconds) % self.temporal
        seconds = np.concatenate((clip.seconds, np.repeat(clip.seconds[-1:], missing)))
        pieces: list[str | None] = []
        text = "<|im_start|>user\n"
        for second in seconds.reshape(-1, self.temporal).mean(axis=1):
            pieces += [f"{text}<{second:.1f} seconds><|vision_start|>", None]
            text = "<|vision_end|>"
        return [*pieces, f"{text}{question}<|im_end|>\n<|im_start|>assistant\n"]
