from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codecmeta.errors import UsageError
from codecmeta.prediction.compensation import MotionField
from codecmeta.record.cell_moments import CellMoments, measure_cells
from codecmeta.record.energy import measure_energy
from codecmeta.residual.carried import carried_energy, carry


def residual(seed: int, luma: tuple[int, int], chroma: tuple[int, int]) -> Any:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(-40, 41, shape).astype(np.int16) for shape in (luma, chroma, chroma))


def random_state(seed: int, rows: int, cols: int) -> CellMoments:
    return CellMoments(moments=np.random.default_rng(seed).random((rows, cols, 2, 3)).astype(np.float32))


def field(rows: int, cols: int) -> MotionField:
    return MotionField(
        reference=np.full((2, rows, cols), -1, np.int8),
        displacement=np.zeros((2, rows, cols, 2), np.int16),
    )


SIZES = [
    ((48, 64), (24, 32)),
    ((45, 61), (23, 31)),
    ((48, 64), (48, 32)),
    ((48, 64), (48, 64)),
    ((33, 34), (0, 0)),
]


@pytest.mark.parametrize(("luma", "chroma"), SIZES)
def test_moments_of_cells_are_those_of_the_energy(luma: tuple[int, int], chroma: tuple[int, int]) -> None:
    planes = residual(0, luma, chroma)
    state = measure_cells(planes)
    expected = measure_energy(planes, block=4)
    np.testing.assert_allclose(state.power, expected.power, rtol=1e-6)
    np.testing.assert_allclose(state.mean, expected.mean, rtol=1e-6)


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize(("luma", "chroma"), SIZES)
def test_energy_from_moments_is_that_of_the_samples(luma: tuple[int, int], chroma: tuple[int, int], block: int) -> None:
    planes = residual(0, luma, chroma)
    got = carried_energy(measure_cells(planes), luma=luma, chroma=chroma, block=block)
    expected = measure_energy(planes, block=block)
    # where the picture is odd, the last chroma sample stands for one luma sample, not two
    odd = luma[0] % 2 or luma[1] % 2
    np.testing.assert_allclose(got.energy, expected.energy, rtol=0.05 if odd and chroma[0] else 1e-5)
    cells = measure_energy(planes, block=4).energy
    np.testing.assert_allclose(got.range, [cells.min(), cells.max()], rtol=0.05 if odd and chroma[0] else 1e-5)


def test_border_cells_count_with_their_area() -> None:
    luma, chroma = (20, 18), (10, 9)
    planes = residual(3, luma, chroma)
    planes[0][:, 16:] = 500  # a cell of two columns
    got = carried_energy(measure_cells(planes), luma=luma, chroma=chroma, block=8)
    np.testing.assert_allclose(got.energy, measure_energy(planes, block=8).energy, rtol=1e-5)
    # counted as whole cells, the border would weigh twice as much
    padded = tuple(
        np.pad(plane, ((0, 0), (0, width)), mode="edge") for plane, width in zip(planes, (2, 1, 1), strict=True)
    )
    other = carried_energy(measure_cells(padded), luma=(20, 20), chroma=(10, 10), block=8)
    assert not np.allclose(got.energy, other.energy, rtol=1e-2)


def test_a_state_at_coded_size_is_cut_to_the_display() -> None:
    planes = residual(0, (64, 64), (32, 32))
    state = measure_cells(planes)
    got = carried_energy(state, luma=(56, 64), chroma=(28, 32), block=8)
    cut = (planes[0][:56], planes[1][:28], planes[2][:28])
    np.testing.assert_allclose(got.energy, measure_energy(cut, block=8).energy, rtol=1e-5)


def test_a_still_picture_without_residual_keeps_its_state() -> None:
    before = random_state(0, 6, 8)
    nothing = CellMoments(moments=np.zeros((6, 8, 2, 3), np.float32))
    still = field(6, 8)
    still.reference[0] = 0
    np.testing.assert_array_equal(carry([before], still, nothing).moments, before.moments)
    # an intra picture starts again from zero
    np.testing.assert_array_equal(carry([before], field(6, 8), nothing).moments, nothing.moments)


def test_states_move_along_the_vectors() -> None:
    before = random_state(0, 6, 8)
    nothing = CellMoments(moments=np.zeros((6, 8, 2, 3), np.float32))
    moved = field(6, 8)
    moved.reference[0] = 0
    moved.displacement[0] = (16, -32)  # one cell right, two up
    got = carry([before], moved, nothing).moments
    rows = np.clip(np.arange(6) - 2, 0, 5)
    cols = np.clip(np.arange(8) + 1, 0, 7)
    np.testing.assert_array_equal(got, before.moments[np.ix_(rows, cols)])
    # to the nearest cell: 7 quarters stay, 8 move on
    moved.displacement[0] = (7, 8)
    got = carry([before], moved, nothing).moments
    np.testing.assert_array_equal(got, before.moments[np.minimum(np.arange(6) + 1, 5)])
    moved.displacement[0] = (-32768, 32767)
    np.testing.assert_array_equal(
        carry([before], moved, nothing).moments, np.broadcast_to(before.moments[5, 0], before.moments.shape)
    )


def test_against_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    rows, cols = 9, 11
    states = [random_state(i, rows, cols) for i in range(6)]
    own = random_state(9, rows, cols)
    own.moments[rng.random((rows, cols)) < 0.5] = 0
    own.moments[..., 1][rng.random((rows, cols, 2)) < 0.4] = 0
    motion = MotionField(
        reference=rng.integers(-1, 6, (2, rows, cols)).astype(np.int8),
        displacement=rng.integers(-90, 91, (2, rows, cols, 2)).astype(np.int16),
    )
    for coded in (None, rng.random((rows, cols)) < 0.3, rng.random((3, rows, cols)) < 0.3):
        got = carry(states, motion, own, coded=coded).moments
        for y in range(rows):
            for x in range(cols):
                for c in range(3):
                    if coded is None:
                        is_coded = own.moments[y, x, 0, c] > 0
                    else:
                        is_coded = coded[y, x] if coded.ndim == 2 else coded[c, y, x]
                    sources = []
                    for side in range(2):
                        slot = motion.reference[side, y, x]
                        if slot >= 0:
                            dx, dy = motion.displacement[side, y, x].astype(int)
                            r = min(max(y + (dy + 8) // 16, 0), rows - 1)
                            q = min(max(x + (dx + 8) // 16, 0), cols - 1)
                            sources.append(states[slot].moments[r, q, :, c])
                    expected = own.moments[y, x, :, c] if is_coded or not sources else np.mean(sources, axis=0)
                    np.testing.assert_allclose(got[y, x, :, c], expected, rtol=1e-6)


def test_inputs_are_not_changed() -> None:
    before, own = random_state(0, 4, 4), random_state(1, 4, 4)
    copies = before.moments.copy(), own.moments.copy()
    still = field(4, 4)
    still.reference[0] = 0
    carry([before], still, own, coded=np.zeros((4, 4), np.bool_))
    np.testing.assert_array_equal(before.moments, copies[0])
    np.testing.assert_array_equal(own.moments, copies[1])


def test_what_does_not_fit_is_refused() -> None:
    own = random_state(0, 4, 5)
    still = field(4, 5)
    still.reference[0] = 1
    with pytest.raises(UsageError, match="needs 2"):
        carry([own], still, own)
    with pytest.raises(UsageError, match="needs 2"):
        carry([], still, own)
    with pytest.raises(UsageError, match="at most 17"):
        carry([own] * 18, still, own)
    with pytest.raises(UsageError, match="differ in shape"):
        carry([random_state(0, 5, 4)], still, own)
    with pytest.raises(UsageError, match="coded"):
        carry([own, own], still, own, coded=np.zeros((5, 4), np.bool_))
    with pytest.raises(UsageError, match="does not cover"):
        carried_energy(own, luma=(17, 20), chroma=(9, 10), block=8)
    with pytest.raises(UsageError, match="block"):
        carried_energy(own, luma=(16, 20), chroma=(8, 10), block=16)
    with pytest.raises(UsageError, match="match luma"):
        carried_energy(own, luma=(16, 20), chroma=(8, 11), block=8)
