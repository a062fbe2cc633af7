from __future__ import annotations

import numpy as np
import pytest

from codecmeta.h264.motion import MotionArrays
from codecmeta.residual.motion_field import motion_field, nearest_field


@pytest.mark.parametrize(("width", "height", "hidden"), [(32, 16, 0), (30, 21, 0), (17, 33, 0), (30, 21, 32)])
def test_cells_have_the_slot_of_their_picture_and_its_vector(width: int, height: int, hidden: int) -> None:
    rng = np.random.default_rng(0)
    columns, rows = -(-(width + hidden) // 16) * 4, -(-height // 16) * 4
    numbers = rng.integers(-1, 6, (2, rows // 2, columns // 2))
    vectors = rng.integers(-(2**15), 2**15, (2, rows, columns, 2)).astype(np.int16)
    arrays = MotionArrays(
        reference=np.zeros((2, rows * columns), np.int8),
        vector=vectors.view(np.int32).reshape(2, -1),
        picture=numbers.astype(np.int32).reshape(2, -1),
    )
    known = [5, 1, 4, 0]
    field = motion_field(arrays, known, columns=columns, width=width, height=height)
    shown = -(-height // 4), -(-width // 4)
    assert field.reference.shape == (2, *shown)
    for side in range(2):
        for row in range(shown[0]):
            for col in range(shown[1]):
                number = int(numbers[side, row // 2, col // 2])
                slot = known.index(number) if number in known else -1
                assert field.reference[side, row, col] == slot
                expected = vectors[side, row, col] if slot >= 0 else (0, 0)
                assert tuple(field.displacement[side, row, col]) == tuple(expected)
    assert (motion_field(arrays, [], columns=columns, width=width, height=height).reference == -1).all()


def test_vectors_that_do_not_say_their_reference_mean_the_nearest() -> None:
    vectors = np.array([[0, 0, 8, 8, 3, -5, -1], [0, 0, 8, 8, 7, 9, 1], [8, 8, 4, 4, 1, 2, 1]], np.int16)
    field = nearest_field(vectors, width=16, height=16, past=2, future=1)
    assert field.reference[0, :2, :2].tolist() == [[0, 0], [0, 0]]
    assert field.reference[1, :3, :3].tolist() == [[2, 2, -1], [2, 2, -1], [-1, -1, 2]]
    assert field.displacement[1, 2, 2].tolist() == [1, 2]
    assert (nearest_field(None, width=16, height=16, past=2, future=1).reference == -1).all()
