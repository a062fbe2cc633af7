"""Motion fields of 4x4 cells, from vectors and their reference pictures, or from vectors only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codecmeta.h264.motion import MotionArrays
from codecmeta.prediction.compensation import MotionField
from codecmeta.simd.numba_cache import kernel


def motion_field(arrays: MotionArrays, numbers: Sequence[int], *, columns: int, width: int, height: int) -> MotionField:
    """Return the motion of an H.264 frame relative to some others.

    Args:
        arrays: its motion.
        numbers: of the frames that count, at most 127; a prediction from any other is ignored.
        columns: 4x4 blocks per row of the frame, which may be wider than the displayed part.
        width: luma samples per row of the picture.
        height: luma rows of the picture.
    """
    rows, cols = -(-height // 4), -(-width // 4)
    reference = np.empty((2, rows, cols), np.int8)
    displacement = np.empty((2, rows, cols, 2), np.int16)
    _place(arrays.picture, arrays.vector, np.array(numbers, np.int64), columns, reference, displacement)
    return MotionField(reference=reference, displacement=displacement)


@kernel()
def _place(
    picture: NDArray[np.int32],
    vector: NDArray[np.int32],
    numbers: NDArray[np.int64],
    columns: int,
    reference: NDArray[np.int8],
    displacement: NDArray[np.int16],
) -> None:
    _, rows, cols = reference.shape
    for side in range(2):
        number, slot = -1, -1
        for row in range(rows):
            for col in range(0, cols, 2):
                found = picture[side, np.uintp((row >> 1) * (columns >> 1) + (col >> 1))]
                if found != number:
                    number, slot = found, -1
                    for i in range(numbers.size):
                        if numbers[i] == number:
                            slot = i
                for x in range(col, min(col + 2, cols)):
                    stored = vector[side, np.uintp(row * columns + x)] if slot >= 0 else np.int32(0)
                    reference[side, np.uintp(row), np.uintp(x)] = slot
                    displacement[side, np.uintp(row), np.uintp(x), 0] = np.int16(stored)
                    displacement[side, np.uintp(row), np.uintp(x), 1] = stored >> 16


def nearest_field(vectors: NDArray[np.int16] | None, *, width: int, height: int, past: int, future: int) -> MotionField:
    """Return the motion of a picture whose vectors do not state their reference.

    Every vector of list 0 is assumed to point into the nearest past reference, of list 1 into the nearest future one.

    Args:
        vectors: int16 (n, 7) as `side_data.vectors` returns them, None for an intra picture.
        width: luma samples per row of the picture.
        height: luma rows of the picture.
        past: number of past references, the nearest at index 0.
        future: number of future references, the nearest at index `past`.
    """
    rows, cols = -(-height // 4), -(-width // 4)
    reference = np.full((2, rows, cols), -1, np.int8)
    displacement = np.zeros((2, rows, cols, 2), np.int16)
    if vectors is not None and past + future:
        slots = np.array([0 if past else past, past if future else 0], np.int8)
        _fill(vectors, slots, reference, displacement)
    return MotionField(reference=reference, displacement=displacement)


@kernel()
def _fill(
    vectors: NDArray[np.int16],
    slots: NDArray[np.int8],
    reference: NDArray[np.int8],
    displacement: NDArray[np.int16],
) -> None:
    _, rows, cols = reference.shape
    for i in range(len(vectors)):
        side = 0 if vectors[i, 6] < 0 else 1
        top = max(np.int64(vectors[i, 1]) >> 2, np.int64(0))
        left = max(np.int64(vectors[i, 0]) >> 2, np.int64(0))
        bottom = min((np.int64(vectors[i, 1]) + vectors[i, 3] + 3) >> 2, rows)
        right = min((np.int64(vectors[i, 0]) + vectors[i, 2] + 3) >> 2, cols)
        for row in range(top, bottom):
            for col in range(left, right):
                reference[side, row, col] = slots[side]
                displacement[side, row, col, 0] = vectors[i, 4]
                displacement[side, row, col, 1] = vectors[i, 5]
