"""Qwen2.5-VL: Qwen2-VL with attention in windows of the vision encoder, so that only whole tokens' patches merge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from compress.models.adapters.adapter import Clip, VisualInputs, part
from compress.models.adapters.qwen2_vl import Qwen2VL


class Qwen25VL(Qwen2VL):
    """See `compress.models.adapters.adapter.Adapter`."""

    windowed = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        for path in ("window_size", "patch_size", "fullatt_block_indexes"):
            part(model, f"model.visual.{path}")
        self.patch_unit = self.merge_size

    def encode_pixels(self, clip: Clip) -> VisualInputs:
        """Convert as Qwen2-VL does, and add the seconds between temporal patches, which scale the positions in time."""
        visual = super().encode_pixels(clip)
        spacing = float(np.diff(clip.seconds).mean()) if len(clip.seconds) > 1 else 1.0
        seconds = torch.tensor([spacing * self.temporal])
        return replace(visual, tensors={**visual.tensors, "second_per_grid_ts": seconds})
