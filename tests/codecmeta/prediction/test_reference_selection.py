"""Which references, lists and weights a block is predicted by, against brute force on small pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codecmeta.prediction.compensation import Reference, implicit_weight, motion_residual
from tests.codecmeta.prediction.test_compensation import picture, reference
from tests.oracle import interpolation as oracle


def test_best_reference_is_found_by_brute_force() -> None:
    current = picture(0)
    past = [reference(i, i) for i in range(1, 5)]
    table = np.array([[x, y, 16, 16, 5, -3, -1] for y in (0, 16, 32) for x in (0, 16, 32, 48)], np.int16)
    # make reference 2 the right one for one block
    planted = past[2].samples.planes[0].astype(np.int64)
    current[0][16:32, 32:48] = oracle.h264_luma(planted, 16, 32, 16, 16, -3, 5)
    residual = motion_residual(current, table, past, standard="h264")
    for x, y, w, h, dx, dy, _ in table.astype(int):
        predictions = [oracle.h264_luma(p.samples.planes[0].astype(np.int64), y, x, h, w, dy, dx) for p in past]
        left = [current[0][y : y + h, x : x + w].astype(int) - p for p in predictions]
        winner = int(np.argmin([(d**2).sum() for d in left]))
        assert residual.field.reference[0, y // 4, x // 4] == winner
        np.testing.assert_array_equal(residual.planes[0][y : y + h, x : x + w], left[winner])
        for channel in (1, 2):
            part = current[channel][y // 2 : y // 2 + 8, x // 2 : x // 2 + 8].astype(int)
            chroma = oracle.h264_chroma(
                past[winner].samples.planes[channel].astype(np.int64), y // 2, x // 2, 8, 8, dy, dx
            )
            np.testing.assert_array_equal(
                residual.planes[channel][y // 2 : y // 2 + 8, x // 2 : x // 2 + 8], part - chroma
            )
    assert residual.field.reference[0, 4, 8] == 2
    assert not residual.planes[0][16:32, 32:48].any()
    assert (residual.field.reference[1] == -1).all()
    assert (residual.field.displacement[0] == (5, -3)).all()


def pair_hypotheses(
    past: list[Reference], future: list[Reference], row0: Any, row1: Any
) -> dict[tuple[int, int, int], Any]:
    """Predictions of a block by every pair of references, even and implicit weights."""
    x, y, w, h = (int(v) for v in row0[:4])
    sides = [
        [oracle.h264_luma(r.samples.planes[0].astype(np.int64), y, x, h, w, int(row[5]), int(row[4])) for r in side]
        for side, row in ((past, row0), (future, row1))
    ]
    found = {}
    for a, first in enumerate(sides[0]):
        for b, second in enumerate(sides[1]):
            found[a, b, 32] = (first + second + 1) >> 1
            weight = implicit_weight(past[a].distance, future[b].distance)
            found[a, b, weight] = np.clip(((64 - weight) * first + weight * second + 32) >> 6, 0, 255)
    return found


@pytest.mark.parametrize("planted", [(0, 0, 32), (2, 1, 32), (0, 1, 21), (1, 0, 42)])
def test_best_pair_and_weight_are_found_by_brute_force(planted: tuple[int, int, int]) -> None:
    current = picture(0)
    past = [reference(1, 1), reference(2, 2), reference(3, 3)]
    future = [reference(4, 1), reference(5, 2)]
    rows = np.array([[16, 16, 16, 16, -7, 9, -1], [16, 16, 16, 16, 2, 6, 1]], np.int16)
    hypotheses = pair_hypotheses(past, future, rows[0], rows[1])
    current[0][16:32, 16:32] = hypotheses[planted]
    residual = motion_residual(current, rows, past, future, standard="h264")
    assert not residual.planes[0][16:32, 16:32].any()
    assert residual.field.reference[:, 4, 4].tolist() == [planted[0], len(past) + planted[1]]
    # without that pair it cannot be met
    fewer = motion_residual(current, rows, past[:1], [reference(9)], standard="h264")
    assert fewer.planes[0][16:32, 16:32].any()


def test_zero_vector_beside_a_partition_may_mean_the_list_is_not_used() -> None:
    current = picture(0)
    past, future = [reference(1)], [reference(2)]
    rows = np.array([[16, 16, 8, 8, -6, 4, -1], [16, 16, 8, 8, 0, 0, 1]], np.int16)
    current[0][16:24, 16:24] = oracle.h264_luma(past[0].samples.planes[0].astype(np.int64), 16, 16, 8, 8, 4, -6)
    residual = motion_residual(current, rows, past, future, standard="h264")
    assert not residual.planes[0][16:24, 16:24].any()
    assert residual.field.reference[:, 4, 4].tolist() == [0, -1]
    # a whole macroblock exports only lists that it uses
    whole = rows.copy()
    whole[:, 2:4] = 16
    residual = motion_residual(current, whole, past, future, standard="h264")
    assert residual.planes[0][16:24, 16:24].any()
    assert residual.field.reference[:, 4, 4].tolist() == [0, 1]


def test_both_lists_may_look_at_the_same_side() -> None:
    current = picture(0)
    past = [reference(1), reference(2)]
    rows = np.array([[0, 0, 16, 16, -6, 4, -1], [0, 0, 16, 16, 8, 8, 1]], np.int16)
    first = oracle.h264_luma(past[1].samples.planes[0].astype(np.int64), 0, 0, 16, 16, 4, -6)
    second = oracle.h264_luma(past[0].samples.planes[0].astype(np.int64), 0, 0, 16, 16, 8, 8)
    current[0][:16, :16] = (first + second + 1) >> 1
    residual = motion_residual(current, rows, past, standard="h264")
    assert not residual.planes[0][:16, :16].any()
    assert residual.field.reference[:, 0, 0].tolist() == [1, 0]
