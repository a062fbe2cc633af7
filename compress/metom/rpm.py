"""RPM: merging of connected patches of low residual density before the vision encoder (MeToM)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.budget import round_half_up
from compress.errors import ConfigError, ShapeError
from compress.ops.regions import Connectivity, label_regions, split_regions
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import Compression

DEFAULT_TARGET_KEEP = 0.87
"""MeToM's vision tower time of 450 of 525 ms, through the cost of a SigLIP layer: 633 of 729 tokens."""

FLAT = 1e-12
"""A frame whose densities differ by no more has no usable map: it is left whole, never merged into one
token."""


@dataclass(frozen=True, kw_only=True)
class RPM(Attachable):
    """Residual-guided patch merging: one token per connected region of patches with density S < tau.

    The threshold is given, or searched for so that the kept share of the whole video comes nearest to
    ``target_keep`` (ties: more tokens). The count falls monotonically as tau rises. Frames with a constant
    map stay whole.

    Attributes:
        tau: threshold in [0, 1]; None to search for it.
        target_keep: share of tokens to keep, in (0, 1]; None for 0.87 unless ``tau`` is given.
        connectivity: 4 or 8 neighbours.
        max_region: largest number of patches of a region; larger regions are cut; None for no bound.

    Raises:
        ConfigError: both or none of threshold and target, or one outside its range.
    """

    tau: float | None = None
    target_keep: float | None = None
    connectivity: Connectivity = 4
    max_region: int | None = None

    def __post_init__(self) -> None:
        if self.tau is not None and self.target_keep is not None:
            raise ConfigError(f"tau is {self.tau} and target_keep {self.target_keep}; give one of them")
        if self.tau is not None and not 0 <= self.tau <= 1:
            raise ConfigError(f"tau is {self.tau}; densities and their threshold lie in [0, 1]")
        if self.target_keep is not None and not 0 < self.target_keep <= 1:
            raise ConfigError(f"target_keep is {self.target_keep}; allowed is (0, 1]")
        if self.connectivity not in (4, 8):
            raise ConfigError(f"connectivity is {self.connectivity}; choose from 4 and 8")
        if self.max_region is not None and self.max_region < 1:
            raise ConfigError(f"max_region is {self.max_region}; it must be at least 1 patch, or None for any size")

    @property
    def nominal_keep(self) -> float:
        """Share of the patches that is asked for, 1 where a threshold decides."""
        return 1.0 if self.tau is not None else self.target_keep or DEFAULT_TARGET_KEEP

    @planned
    def before_encoder(self, density: Tensor | NDArray[np.float32]) -> Compression:
        """Merge the patches of a video.

        Args:
            density: (T, rows, cols), S_t of each patch in [0, 1].

        Returns:
            A plan over T * rows * cols patches; a region's anchor is its first patch in raster order.
            ``plan.broadcast`` gives every patch its region's token back after the encoder.

        Raises:
            ShapeError: density does not have three dimensions, is empty, or exceeds [0, 1].
        """
        maps = density.detach().cpu().numpy() if isinstance(density, Tensor) else np.asarray(density)
        if maps.ndim != 3 or not maps.size:
            raise ShapeError(f"density has shape {maps.shape}; allowed is (T, rows, cols), not empty")
        if not (np.isfinite(maps).all() and maps.min() >= 0 and maps.max() <= 1):
            raise ShapeError(
                "density has values outside [0, 1] or NaN; pass VideoMeta.density(grid), whose values lie in [0, 1]"
            )
        flat = maps.max(axis=(1, 2)) - maps.min(axis=(1, 2)) <= FLAT
        maps = np.where(flat[:, None, None], 1, maps)
        if self.tau is None:
            nominal = max(1, round_half_up(self.nominal_keep * maps.size))
            tau = self._search(maps, nominal)
        else:
            tau = self.tau
        labels, regions = self._label(maps < tau)
        plan = _plan_regions(labels.ravel(), regions)
        return Compression(
            method="rpm",
            plan=plan,
            frames=len(maps),
            nominal=plan.count_out if self.tau is not None else nominal,
            kind=(plan.sizes > 1).to(torch.uint8),
            kinds=("patch", "region"),
            diagnostics={"tau": float(tau), "flat_frames": np.flatnonzero(flat)},
        )

    def _label(self, below: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
        """Label and count the regions of patches to merge; the count falls as patches join, also with bounded sizes."""
        labels, regions = label_regions(below, connectivity=self.connectivity)
        return (labels, regions) if self.max_region is None else split_regions(labels, regions, largest=self.max_region)

    def _search(self, maps: NDArray[np.floating], target: int) -> float:
        """Search the threshold whose token count is nearest to ``target``, among the densities that occur.

        Two steps of false position, then one of bisection: a count costs a labelling of all patches.
        """
        levels = np.sort(maps, axis=None)

        def count(level: int) -> int:
            below = maps < levels[level]
            return int(maps.size - below.sum()) + self._label(below)[1]

        # At most ``level`` patches lie below levels[level], and all others stay.
        enough, fewer = maps.size - target, maps.size
        most, least = count(enough), 0
        step = 0
        while fewer - enough > 1:
            step += 1
            share = (most - target) / (most - least) if step % 3 else 0.5
            middle = min(max(enough + int(share * (fewer - enough)), enough + 1), fewer - 1)
            found = count(middle)
            if found >= target:
                enough, most = middle, found
            else:
                fewer, least = middle, found
        if fewer < maps.size and target - least < most - target:
            enough = fewer
        return float(levels[enough])


def _plan_regions(labels: NDArray[np.int32], regions: int) -> MergePlan:
    """Build the plan that averages each region (label > 0) at its first patch and keeps every other patch."""
    patch = np.arange(labels.size)
    first = np.empty(regions + 1, np.int64)
    first[labels[::-1]] = patch[::-1]  # of several values for one place the last one stays
    return MergePlan.from_anchors(np.where(labels > 0, first[labels], patch))
