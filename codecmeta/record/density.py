"""Density S_t on any patch grid of any crop, from block energies (MeToM, RPM).

Min-max normalisation and patch means are affine in E, so S_t follows from stored block means by area-weighted
averaging: exactly where patch edges coincide with block edges, otherwise with E taken as constant within a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codecmeta.record.orientation import UPRIGHT, Orientation, display_size

FLAT = 1e-12
"""Range of E up to which a map is flat: it does not locate any information."""

Box = tuple[float, float, float, float]


def overlap_shares(bounds: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each interval that each block covers.

    Args:
        bounds: rising limits of n intervals, float64 (n + 1,).
        edges: rising limits of m blocks that cover the intervals, float64 (m + 1,).

    Returns:
        float64 (n, m), rows sum to 1.
    """
    overlap = np.minimum(bounds[1:, None], edges[None, 1:]) - np.maximum(bounds[:-1, None], edges[None, :-1])
    overlap = np.maximum(overlap, 0.0)
    shares: NDArray[np.float64] = overlap / overlap.sum(axis=1, keepdims=True)
    return shares


def _block_edges(size: int, block: int) -> NDArray[np.float64]:
    """Return the limits of blocks; the last one covers only samples inside the picture."""
    return np.minimum(np.arange(-(-size // block) + 1) * block, size).astype(np.float64)


def patch_density(
    energy: NDArray[np.float32],
    extent: NDArray[np.float32],
    *,
    width: int,
    height: int,
    block: int,
    grid: tuple[int, int],
    box: Box | None,
    orientation: Orientation = UPRIGHT,
    sample_aspect: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Return the mean of the min-max normalised energy over every patch.

    Args:
        energy: block means of E, float32 (T, ⌈height/block⌉, ⌈width/block⌉), coded orientation.
        extent: smallest and largest E of each frame, float32 (T, 2).
        width: picture width in luma samples, coded orientation.
        height: picture height, likewise.
        block: block size in luma samples.
        grid: rows and columns of patches on the displayed picture.
        box: left, top, right, bottom of the region that the grid covers, in square pixels of the displayed picture, see
            `orientation.display_size`; None is the picture.
        orientation: in which the picture is displayed.
        sample_aspect: width and height of a sample; None for square ones.

    Returns:
        float32 (T, rows, cols) in [0, 1]; all ones for a frame whose map is flat, which merges nothing.

    Raises:
        ValueError: the grid is empty or the box lies outside the picture.
    """
    rows, cols = grid
    shown_w, shown_h = display_size(width, height, orientation=orientation, sample_aspect=sample_aspect)
    left, top, right, bottom = (0.0, 0.0, float(shown_w), float(shown_h)) if box is None else box
    if rows < 1 or cols < 1:
        raise ValueError(f"grid is {grid}; at least one row and one column are needed")
    if not (0 <= left < right <= shown_w and 0 <= top < bottom <= shown_h):
        raise ValueError(f"box {box} must lie inside the displayed picture of {shown_w}x{shown_h} and not be empty")
    x, y = (sampled / shown for sampled, shown in zip(orientation.swap(width, height), (shown_w, shown_h), strict=True))
    samples = left * x, top * y, right * x, bottom * y
    left, top, right, bottom = orientation.coded_box(samples, width=width, height=height)
    cols, rows = orientation.swap(cols, rows)
    down = overlap_shares(np.linspace(top, bottom, rows + 1), _block_edges(height, block))
    across = overlap_shares(np.linspace(left, right, cols + 1), _block_edges(width, block))
    means = down @ energy.astype(np.float64) @ across.T
    low = extent[:, 0].astype(np.float64)[:, None, None]
    span = extent[:, 1].astype(np.float64)[:, None, None] - low
    flat = span <= FLAT
    density = np.where(flat, 1.0, np.clip((means - low) / np.where(flat, 1.0, span), 0.0, 1.0))
    return np.ascontiguousarray(orientation.turn(density.astype(np.float32), rows=1))
