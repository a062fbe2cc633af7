"""Density peaks as released code computes them, with the noise that it draws."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.errors import ConfigError

NOISE = 1e-6
"""Weight of a uniform number in a density."""


class Noise:
    """Uniform numbers in [0, 1) in the order in which code draws them; zeros where none are given.

    Raises:
        ConfigError: fewer are given than are drawn.
    """

    def __init__(self, drawn: Tensor | None) -> None:
        self._drawn = None if drawn is None else drawn.detach().flatten().float()
        self._used = 0

    def draw(self, like: Tensor) -> Tensor:
        """Draw as many numbers as ``like`` has elements, in its shape."""
        if self._drawn is None:
            return torch.zeros_like(like)
        part = self._drawn[self._used : self._used + like.numel()]
        if part.numel() < like.numel():
            raise ConfigError(f"noise holds {self._drawn.numel()} numbers; the code draws more")
        self._used += like.numel()
        return part.to(like.device).view(like.shape)


def released_peaks(features: Tensor, *, neighbours: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """Multiply density and distance to the nearest denser token, as FastVID, HoliTom and FlashVID do.

    The densest token gets the largest distance of its whole frame, and so does every token of equal density, which the
    noise prevents.

    Args:
        features: (F, n, D).
        neighbours: k, of the density, the token itself included.
        noise: added to densities, 1e-6 times.

    Returns:
        Scores float32 (F, n) and distances over sqrt(D), float32 (F, n, n).

    Raises:
        ConfigError: fewer than k tokens are given.
    """
    wide = features.float()
    if wide.shape[1] < neighbours:
        raise ConfigError(f"the released code fails on {wide.shape[1]} tokens for {neighbours} neighbours")
    distance = torch.cdist(wide, wide) / wide.shape[2] ** 0.5
    nearest = distance.topk(neighbours, dim=2, largest=False).values
    density = (-(nearest**2).mean(dim=2)).exp()
    density = density + noise.draw(density) * NOISE
    denser = density[:, None, :] > density[:, :, None]
    largest = distance.flatten(1).amax(dim=1)[:, None, None]
    separation = torch.where(denser, distance, largest).amin(dim=2)
    return separation * density, distance


def released_clusters(features: Tensor, count: int, *, neighbours: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """Cluster tokens around the best of `released_peaks`.

    Args:
        features: (n, D).
        count: of clusters.
        neighbours: k.
        noise: see `released_peaks`.

    Returns:
        The centres in order of their scores, int64 (count,), and the place among them of each token's nearest.
    """
    score, distance = released_peaks(features[None], neighbours=neighbours, noise=noise)
    picked = score[0].topk(count).indices
    nearest = distance[0][:, picked].argmin(dim=1)
    nearest[picked] = torch.arange(count, device=nearest.device)
    return picked, nearest
