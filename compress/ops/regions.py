"""Connected regions of patches, per frame."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Connectivity = Literal[4, 8]


def label_regions(mask: NDArray[np.bool_], *, connectivity: Connectivity = 4) -> tuple[NDArray[np.int32], int]:
    """Label the connected regions of a stack of masks; regions never reach across frames.

    Args:
        mask: bool (T, rows, cols).
        connectivity: 4 (edges) or 8 (edges and corners).

    Returns:
        Labels int32 (T, rows, cols), 0 outside the mask and 1... inside; and the number of regions.
    """
    neighbours = np.zeros((3, 3, 3), dtype=bool)
    neighbours[1] = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    labels = np.empty(mask.shape, np.int32)
    count = ndimage.label(mask, structure=neighbours, output=labels)
    return labels, int(count)


def split_regions(labels: NDArray[np.int32], count: int, *, largest: int) -> tuple[NDArray[np.int32], int]:
    """Cut regions of more than ``largest`` patches into as few parts as it takes, which differ by at most one patch.

    A part is a run of its region's patches in raster order.

    Args:
        labels: from `label_regions`.
        count: number of regions.
        largest: at least 1.

    Returns:
        Labels and their number, as `label_regions` gives them.
    """
    flat = labels.ravel()
    size = np.bincount(flat, minlength=count + 1)
    parts = -(-size // largest)
    parts[0] = 0
    order = np.argsort(flat, kind="stable")
    label = flat[order]
    place = np.arange(flat.size) - (np.cumsum(size) - size)[label]
    split = np.empty_like(flat)
    split[order] = np.where(label > 0, (np.cumsum(parts) - parts)[label] + place * parts[label] // size[label] + 1, 0)
    return split.reshape(labels.shape), int(parts.sum())
