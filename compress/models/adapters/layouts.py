"""Layouts of visual tokens: how features of patches become tokens, for whatever runs the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MergedLayout:
    """See `compress.models.adapters.adapter.TokenLayout`: Qwen-VL, in which a square of patches is a token.

    Attributes:
        merge_size: rows and columns of patches of a token.
    """

    merge_size: int
    temporal: int
    patch_unit: int = 1
    covered: float = 1.0
    multi_axis: bool = True
    saliency_source: str = "attention received in the encoder's last block"

    def pool(self, maps: Tensor) -> Tensor:
        """Average the patches of each token, (T, rows, cols) -> (T, N)."""
        return F.avg_pool2d(maps[:, None], self.merge_size).flatten(1)


@dataclass(frozen=True, kw_only=True)
class PooledLayout:
    """See `compress.models.adapters.adapter.TokenLayout`: LLaVA-OneVision, whose features are halved by interpolation.

    Attributes:
        side: rows and columns of patches.
    """

    side: int
    covered: float
    temporal: int = 1
    patch_unit: int = 1
    multi_axis: bool = False
    saliency_source: str = "attention received in the tower's last layer"

    @staticmethod
    def of(image_size: int, patch_size: int) -> PooledLayout:
        """Return the layout of a SigLIP tower."""
        side = image_size // patch_size
        return PooledLayout(side=side, covered=side * patch_size / image_size)

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of a frame."""
        return math.ceil(self.side / 2), math.ceil(self.side / 2)

    def pool(self, maps: Tensor) -> Tensor:
        """Pool (T, rows, cols) -> (T, N): bilinear, corners not aligned, no antialiasing."""
        pooled: Tensor = F.interpolate(maps[:, None], size=self.token_grid, mode="bilinear", align_corners=False)
        return pooled.flatten(1)
