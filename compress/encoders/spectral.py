"""Embedded vision encoder: patch spectra instead of learned features.

It takes the place of SigLIP in LLaVA-OneVision and has its geometry: frames resized to 384x384, patches of
14x14 pixels on a 27x27 grid (the last 6 rows and columns of pixels stay unused), pooled bilinearly to 14x14
tokens. A patch feature is made of

    * a constant, so that flat grey patches have a direction too,
    * the lowest orthonormal DCT-II coefficients of luma and chroma: what the patch looks like,
    * the amplitude of luma in nine bands (three octaves by three orientations): its texture, wherever it lies
      within the patch, which hardly moves under small shifts,
    * the mean of all that over the 3x3 patches around it: its surroundings.

Similar patches get similar features, equal patches in equal surroundings equal ones. Nothing is learned, so a
feature says nothing about meaning: the encoder serves to run, test and draw compression on any machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ConfigError, ShapeError
from compress.ops.saliency import distance_to_frame_mean

SIDE = 384
"""Pixels per side of a frame as the encoder sees it (SigLIP-so400m/14-384)."""
PATCH = 14
GRID = (SIDE // PATCH, SIDE // PATCH)
"""Rows and columns of patches, 27 x 27."""
TOKEN_GRID = (math.ceil(GRID[0] / 2), math.ceil(GRID[1] / 2))
"""Rows and columns of pooled tokens, 14 x 14."""
COVERED = GRID[0] * PATCH / SIDE
"""Share of the picture's width and height that patches cover."""

LUMA_ORDERS, CHROMA_ORDERS = 6, 3
"""DCT orders kept per direction: 6x6 coefficients of luma, 3x3 of each chroma channel."""
OCTAVES = ((1, 2), (2, 5), (5, PATCH))
"""Bounds of the texture bands in DCT orders: half-open intervals of the larger of the two orders."""
LAYOUT = 3
"""A frame feature keeps the mean token of each cell of a 3x3 layout."""


@dataclass(frozen=True, kw_only=True)
class SpectralEncoder:
    """Frames -> patch features -> pooled tokens, in float32, deterministic, on CPU or GPU.

    Attributes:
        constant: value of the constant coordinate; luma and chroma lie in [-1, 1].
        contrast: gain of everything but the patch's mean colour.
        surroundings: gain of the mean over the 3x3 patches around.
        batch: frames per step.

    Raises:
        ConfigError: a gain is not positive, or the batch is empty.
    """

    constant: float = 0.5
    contrast: float = 2.0
    surroundings: float = 0.5
    batch: int = 16

    def __post_init__(self) -> None:
        for name in ("constant", "contrast", "surroundings", "batch"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")

    @property
    def width(self) -> int:
        """D, the length of a feature: 128."""
        own = 1 + LUMA_ORDERS**2 + 2 * CHROMA_ORDERS**2 + 3 * len(OCTAVES)
        return 2 * own

    def encode(self, frames: NDArray[np.uint8] | Tensor, *, device: torch.device | str | None = None) -> Tensor:
        """Compute features of all patches.

        Args:
            frames: uint8 (T, h, w, 3), RGB, any size.
            device: where to compute; None is where the frames are.

        Returns:
            float32 (T, 729, D).

        Raises:
            ShapeError: the frames are not uint8 (T, h, w, 3), or no frame is given.
        """
        pictures = frames if isinstance(frames, Tensor) else torch.from_numpy(np.ascontiguousarray(frames))
        if pictures.dim() != 4 or pictures.shape[3] != 3 or pictures.dtype != torch.uint8:
            raise ShapeError(
                f"frames have shape {tuple(pictures.shape)} and dtype {pictures.dtype}; allowed is uint8 (T, h, w, 3)"
            )
        if not pictures.numel():
            raise ShapeError(f"frames have shape {tuple(pictures.shape)}; at least one pixel is needed")
        target = torch.device(device) if device is not None else pictures.device
        return torch.cat([self._features(resize(part).to(target)) for part in torch.split(pictures, self.batch)])

    def pool(self, patches: Tensor) -> Tensor:
        """Pool patch features to tokens, as LLaVA-OneVision does: bilinear, corners not aligned, no antialiasing.

        Args:
            patches: float (T, 729, D), any D.

        Returns:
            (T, 196, D), same dtype.

        Raises:
            ShapeError: not 729 patches.
        """
        if patches.dim() != 3 or patches.shape[1] != GRID[0] * GRID[1]:
            raise ShapeError(f"patches have shape {tuple(patches.shape)}; allowed is (T, {GRID[0] * GRID[1]}, D)")
        planes = patches.transpose(1, 2).reshape(len(patches), -1, *GRID)
        pooled: Tensor = F.interpolate(planes, size=TOKEN_GRID, mode="bilinear", align_corners=False)
        return pooled.flatten(2).transpose(1, 2)

    def saliency(self, tokens: Tensor) -> Tensor:
        """Measure how much a token stands out from its frame: the distance to the frame's mean token.

        It replaces attention, which this encoder does not have; only its order and spread within a frame
        mean anything.

        Args:
            tokens: (T, N, D).

        Returns:
            float32 (T, N), at least 0.
        """
        return distance_to_frame_mean(tokens)

    def frame_features(self, tokens: Tensor) -> Tensor:
        """Return one global feature per frame: the mean token of each cell of a 3x3 layout.

        Args:
            tokens: (T, 196, D).

        Returns:
            float32 (T, 9 D).

        Raises:
            ShapeError: not 196 tokens per frame.
        """
        if tokens.dim() != 3 or tokens.shape[1] != TOKEN_GRID[0] * TOKEN_GRID[1]:
            raise ShapeError(
                f"tokens have shape {tuple(tokens.shape)}; allowed is (T, {TOKEN_GRID[0] * TOKEN_GRID[1]}, D)"
            )
        planes = tokens.float().transpose(1, 2).reshape(len(tokens), -1, *TOKEN_GRID)
        return F.adaptive_avg_pool2d(planes, LAYOUT).flatten(1)

    def _features(self, pictures: Tensor) -> Tensor:
        """Compute features, uint8 (T, 3, 384, 384) -> float32 (T, 729, D)."""
        covered = GRID[0] * PATCH
        pixels = pictures[:, :, :covered, :covered].float() / 127.5 - 1
        channels = torch.einsum("oc,tchw->tohw", _opponents(pixels.device), pixels)
        blocks = channels.reshape(len(pictures), 3, GRID[0], PATCH, GRID[1], PATCH)
        basis = _dct(pixels.device)
        spectra = torch.einsum("ui,tcrikj,vj->trkcuv", basis, blocks, basis) / PATCH
        luma, chroma = spectra[..., 0, :, :], spectra[..., 1:, :, :]
        gain = torch.full((PATCH, PATCH), self.contrast, dtype=torch.float32, device=pixels.device)
        gain[0, 0] = 1
        looks = (luma * gain)[..., :LUMA_ORDERS, :LUMA_ORDERS].flatten(3)
        colour = (chroma * gain)[..., :CHROMA_ORDERS, :CHROMA_ORDERS].flatten(3)
        bands = _bands(pixels.device)
        texture = self.contrast * torch.einsum("trkuv,buv->trkb", luma.square(), bands).sqrt()
        constant = torch.full_like(looks[..., :1], self.constant)
        own = torch.cat([constant, looks, colour, texture], dim=3).permute(0, 3, 1, 2)
        around = F.avg_pool2d(own, 3, stride=1, padding=1, count_include_pad=False)
        return torch.cat([own, self.surroundings * around], dim=1).flatten(2).transpose(1, 2).contiguous()


def resize(frames: Tensor) -> Tensor:
    """Resize frames as the encoder sees them: bicubic with antialiasing, aspect not kept, rounded to uint8.

    Args:
        frames: uint8 (T, h, w, 3).

    Returns:
        uint8 (T, 3, 384, 384) on the CPU, where the rounding of every step is fixed.
    """
    planes = frames.cpu().permute(0, 3, 1, 2)
    return F.interpolate(planes, size=(SIDE, SIDE), mode="bicubic", antialias=True)


def _opponents(device: torch.device) -> Tensor:
    """Convert RGB -> Y, Cb, Cr of BT.601, each in [-1, 1] for RGB in [-1, 1]."""
    red, blue = 0.299, 0.114
    green = 1 - red - blue
    return torch.tensor(
        [
            [red, green, blue],
            [-red / (2 - 2 * blue), -green / (2 - 2 * blue), 0.5],
            [0.5, -green / (2 - 2 * red), -blue / (2 - 2 * red)],
        ],
        dtype=torch.float32,
        device=device,
    )


def _dct(device: torch.device) -> Tensor:
    """Return the orthonormal DCT-II matrix, float32 (14, 14); row u is the basis function of order u."""
    order = torch.arange(PATCH, dtype=torch.float64)
    basis = torch.cos(math.pi / PATCH * order[:, None] * (order[None, :] + 0.5)) * math.sqrt(2 / PATCH)
    basis[0] /= math.sqrt(2)
    return basis.float().to(device)


def _bands(device: torch.device) -> Tensor:
    """Return masks of the texture bands, float32 (9, 14, 14): per octave vertical, horizontal, diagonal change."""
    order = torch.arange(PATCH)
    down, across = order[:, None].expand(PATCH, PATCH), order[None, :].expand(PATCH, PATCH)
    orientation = torch.stack([down > 2 * across, across > 2 * down, (down <= 2 * across) & (across <= 2 * down)])
    larger = torch.maximum(down, across)
    octave = torch.stack([(larger >= low) & (larger < high) for low, high in OCTAVES])
    return (octave[:, None] & orientation[None]).flatten(0, 1).float().to(device)
