"""Connected regions of patches, per frame."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Connectivity = Literal[4, 8]


def label_regions(mask: NDArray[np.bool_], *, connectivity: Connectivity = 4) -> tuple[NDArray[np.int32], int]:
    """Number the connected regions of a stack of masks; regions never reach across frames.

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
