"""Preprocessing of frames for vision encoders, without torchvision; resizing is bit-identical to that of the published
processors (uint8, bicubic, antialiased)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ConfigError, ShapeError
from compress.ops.transfer import on_device

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

SETTINGS_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
LARGEST_RATIO = 200
"""Longest side over shortest that the Qwen encoders were made for."""


@dataclass(frozen=True, kw_only=True)
class PixelSettings:
    """Settings of a checkpoint for its pixels.

    Attributes:
        mean: per channel, of values in [0, 1].
        std: per channel.
        min_pixels: least pixels of a frame, for encoders of dynamic resolution.
        max_pixels: most pixels of a frame, likewise.
    """

    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    min_pixels: int = 0
    max_pixels: int = 0

    def scale(self, pixels: Tensor) -> Tensor:
        """Return levels of 255 per unit of normalised pixels, (3,), in their dtype on their device."""
        return on_device(255 * np.array(self.std), pixels.device).to(pixels.dtype)

    def from_checkpoint(self, path: str) -> PixelSettings:
        """Return these settings with the mean and deviation of a checkpoint, where it gives them.

        The classes of some processors default to other constants than their models were trained with, so that only
        a checkpoint's own file is read.

        Args:
            path: folder or name of the checkpoint; empty for none.

        Raises:
            ConfigError: the checkpoint's file cannot be read.
        """
        file = _settings_file(path)
        if file is None:
            return self
        try:
            said = json.loads(file.read_text())
            mean, std = said.get("image_mean"), said.get("image_std")
            return replace(
                self,
                mean=self.mean if mean is None else tuple(float(value) for value in mean),
                std=self.std if std is None else tuple(float(value) for value in std),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file} is not a processor configuration: {error}") from error


def _settings_file(path: str) -> Path | None:
    if not path:
        return None
    if Path(path).is_dir():
        return next((Path(path, name) for name in SETTINGS_FILES if Path(path, name).is_file()), None)
    return _repository_file(path)


@cache
def _repository_file(path: str) -> Path | None:
    """Return the settings of a repository, which is asked once, not for every prompt."""
    from transformers.utils import cached_file

    for name in SETTINGS_FILES:
        found = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            return Path(found)
    return None


def check_frames(frames: NDArray[np.uint8]) -> Tensor:
    """Check frames and return them as a tensor, uint8 (T, 3, h, w).

    Raises:
        ShapeError: they are not uint8 (T, h, w, 3), or empty.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ShapeError(f"frames are {frames.dtype} {frames.shape}; allowed is uint8 (T, height, width, 3), not empty")
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (T, 3, h, w) to uint8 (T, 3, *size); interpolating in float and rounding gives other bits."""
    if frames.shape[2:] == size:
        return frames
    return F.interpolate(frames, size=size, mode="bicubic", antialias=True)


def normalise(frames: Tensor, settings: PixelSettings) -> Tensor:
    """Normalise uint8 (T, 3, h, w) to float32, ``(x / 255 - mean) / std``."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    return (frames.float() / 255 - mean) / std


def square_pixels(frames: NDArray[np.uint8], side: int, settings: PixelSettings) -> Tensor:
    """Resize frames to a square, whatever their aspect, as SigLIP takes them.

    Returns:
        float32 (T, 3, side, side).
    """
    return normalise(resize(check_frames(frames), (side, side)), settings)


def fit_size(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Find the size nearest to an aspect whose sides are multiples of a factor and whose area is within bounds.

    Raises:
        ShapeError: one side is more than 200 times the other.
    """
    if max(height, width) > LARGEST_RATIO * min(height, width):
        raise ShapeError(f"frames of {width}x{height} are too narrow; the sides may differ by {LARGEST_RATIO} times")

    def fit(side: float) -> int:
        return max(factor, round(side / factor) * factor)

    rows, cols = fit(height), fit(width)
    if rows * cols > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, cols = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif rows * cols < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, cols = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return rows, cols


def patch_pixels(
    frames: NDArray[np.uint8], *, patch: int, temporal: int, merge: int, settings: PixelSettings
) -> tuple[Tensor, Tensor]:
    """Convert frames to what the Qwen encoders take: rows of pixels, one per temporal patch, in order of the tokens.

    Args:
        frames: uint8 (T, h, w, 3); the last one is repeated to fill the last temporal patch.
        patch: pixels per side.
        temporal: frames per patch.
        merge: patches per side of a token.
        settings: of the checkpoint.

    Returns:
        float32 (t * rows * cols, 3 * temporal * patch * patch), and int64 (1, 3): t, rows, cols.
    """
    size = fit_size(
        frames.shape[1],
        frames.shape[2],
        factor=patch * merge,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
    )
    pixels = normalise(resize(check_frames(frames), size), settings)
    missing = -len(pixels) % temporal
    pixels = torch.cat((pixels, pixels[-1:].expand(missing, -1, -1, -1)))
    t, rows, cols = len(pixels) // temporal, size[0] // patch, size[1] // patch
    blocks: Any = pixels.view(t, temporal, 3, rows // merge, merge, patch, cols // merge, merge, patch)
    blocks = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return blocks.reshape(t * rows * cols, -1), torch.tensor([[t, rows, cols]])
