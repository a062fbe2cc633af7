"""A motion field from exported vectors alone, where nothing says which reference picture a vector means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codecmeta.compensation import MotionField
from codecmeta.kernels import kernel


def nearest_field(vectors: NDArray[np.int16] | None, *, width: int, height: int, past: int, future: int) -> MotionField:
    """Take every vector of list 0 for one into the nearest past reference, of list 1 into the nearest future one.

    Args:
        vectors: int16 (n, 7) as `motion.vectors` gives them, None for an intra picture.
        width: luma samples per row of the picture.
        height: luma rows of the picture.
        past: past references that there are, the nearest at index 0.
        future: future references, the nearest at index `past`.
    """
    rows, cols = -(-height // 4), -(-width // 4)
    reference = np.full((2, rows, cols), -1, np.int8)
    displacement = np.zeros((2, rows, cols, 2), np.int16)
    if vectors is not None and past + future:
        slots = np.array([0 if past else past, past if future else 0], np.int8)
        _fill(vectors, slots, reference, displacement)
    return MotionField(reference=reference, displacement=displacement)


@kernel()
def _fill(vectors, slots, reference, displacement):  # type: ignore[no-untyped-def]
    _, rows, cols = reference.shape
    for i in range(len(vectors)):
        side = 0 if vectors[i, 6] < 0 else 1
        top = max(np.int64(vectors[i, 1]) >> 2, 0)
        left = max(np.int64(vectors[i, 0]) >> 2, 0)
        bottom = min((np.int64(vectors[i, 1]) + vectors[i, 3] + 3) >> 2, rows)
        right = min((np.int64(vectors[i, 0]) + vectors[i, 2] + 3) >> 2, cols)
        for row in range(top, bottom):
            for col in range(left, right):
                reference[side, row, col] = slots[side]
                displacement[side, row, col, 0] = vectors[i, 4]
                displacement[side, row, col, 1] = vectors[i, 5]
