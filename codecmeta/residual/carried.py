"""The `carried` map: residual that is on screen, not only what this picture adds.

Each 4x4 luma cell holds the mean of r² and of r of the residual last coded for what it shows. A picture puts its own
residual where it codes something or predicts intra; every other cell takes the state of the cell it is predicted
from, along its motion vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.prediction.compensation import MotionField
from codecmeta.record.energy import Residual, standardisation
from codecmeta.simd.numba_cache import kernel

MOST = 17
"""References of a picture that are told apart: the sixteen that H.264 allows, and the picture itself."""


@dataclass(frozen=True, kw_only=True)
class CarriedState:
    """Residual moments of the cells of one picture.

    Attributes:
        moments: float32 (h4, w4, 2, 3): per 4x4 luma cell the means of r² and of r, for Y, Cb, Cr, each over
            the cell's own samples (2x2 chroma samples in 4:2:0).
    """

    moments: NDArray[np.float32]

    @property
    def power(self) -> NDArray[np.float32]:
        """(3, h4, w4) view: means of r²."""
        return np.moveaxis(self.moments[:, :, 0], 2, 0)

    @property
    def mean(self) -> NDArray[np.float32]:
        """(3, h4, w4) view: means of r."""
        return np.moveaxis(self.moments[:, :, 1], 2, 0)


@dataclass(frozen=True, kw_only=True)
class CarriedEnergy:
    """Energy of a state, standardised over its picture.

    Attributes:
        energy: float32 (⌈H/b⌉, ⌈W/b⌉), block means of E.
        range: float32 (2,), smallest and largest E of any 4x4 cell.
    """

    energy: NDArray[np.float32]
    range: NDArray[np.float32]


def innovation(planes: Residual) -> CarriedState:
    """Moments of a picture's own residual.

    Args:
        planes: int16 Y (H, W), Cb, Cr in 4:2:0, 4:2:2, 4:4:4, or (0, 0) for monochrome.
    """
    height, width = planes[0].shape
    moments = np.zeros((-(-height // 4), -(-width // 4), 2, 3), np.float32)
    for channel, plane in enumerate(planes):
        if plane.size:
            _cell_moments(plane, *_cell_size(planes[0].shape, plane.shape), channel, moments)
    return CarriedState(moments=moments)


_BY_POWER: NDArray[np.bool_] = np.zeros((0, 0, 0), np.bool_)


def from_block_means(power: NDArray[np.float32], mean: NDArray[np.float32]) -> CarriedState:
    """State of a picture whose residual is known as block means.

    Args:
        power: float32 (3, h4, w4), means of r² on 4x4 luma cells.
        mean: float32 (3, h4, w4), means of r.
    """
    moments = np.empty((*power.shape[1:], 2, 3), np.float32)
    _interleave(power, mean, moments)
    return CarriedState(moments=moments)


@kernel()
def _interleave(power, mean, moments):  # type: ignore[no-untyped-def]
    for row in range(moments.shape[0]):
        for col in range(moments.shape[1]):
            for channel in range(3):
                moments[row, col, 0, channel] = power[channel, row, col]
                moments[row, col, 1, channel] = mean[channel, row, col]


def carry(
    references: Sequence[CarriedState],
    field: MotionField,
    own: CarriedState,
    *,
    coded: NDArray[np.bool_] | None = None,
) -> CarriedState:
    """State of a picture from its own residual and the states of its references.

    Args:
        references: states of the references that ``field`` indexes, at most `MOST`.
        field: where each cell is predicted from.
        own: `innovation` of the picture.
        coded: bool (h4, w4) or (3, h4, w4), where the picture codes a residual; None takes the cells and channels
            whose own power is not 0.

    Raises:
        UsageError: shapes differ, or the field indexes a reference that is not given.
    """
    rows, cols = own.moments.shape[:2]
    if field.reference.shape != (2, rows, cols) or any(r.moments.shape != own.moments.shape for r in references):
        raise UsageError(
            f"a field of {field.reference.shape[1:]} cells, references of "
            f"{[r.moments.shape[:2] for r in references]} and a picture of {(rows, cols)} do not go together"
        )
    if len(references) > MOST or field.reference.max(initial=-1) >= len(references):
        raise UsageError(
            f"{len(references)} reference states given; the field needs {int(field.reference.max(initial=-1)) + 1}, "
            f"at most {MOST} are allowed"
        )
    if coded is not None and coded.shape not in ((rows, cols), (3, rows, cols)):
        raise UsageError(f"coded has shape {coded.shape}, not {(rows, cols)} or {(3, rows, cols)}")
    mask = _BY_POWER if coded is None else np.ascontiguousarray(np.broadcast_to(coded, (3, rows, cols)))
    if not references:
        return own
    states = [state.moments for state in references]
    states += [states[0]] * (MOST - len(states))
    moments = np.empty(own.moments.shape, np.float32)
    _carry(
        tuple(np.ascontiguousarray(state).reshape(-1) for state in states),
        np.ascontiguousarray(field.reference),
        np.ascontiguousarray(field.displacement),
        mask,
        np.ascontiguousarray(own.moments).reshape(-1),
        moments.reshape(-1),
    )
    return CarriedState(moments=moments)


def carried_energy(state: CarriedState, *, luma: tuple[int, int], chroma: tuple[int, int], block: int) -> CarriedEnergy:
    """Energy of a state: `codecmeta.record.energy` from cell moments.

    Per channel the mean and standard deviation are taken over the picture, E of a cell is
    ``Σ_c w_c (power_c - 2 mean_c μ_c + μ_c²)``, and cells cut by the picture edge count with the area inside.

    Args:
        state: moments of the picture, at its coded size or at ``luma``.
        luma: height and width of the picture to cover.
        chroma: height and width of its chroma planes, (0, 0) for monochrome.
        block: luma samples per block side, 4 or 8.

    Raises:
        UsageError: the state does not cover the picture, or the block is neither 4 nor 8.
    """
    height, width = luma
    rows, cols = -(-height // 4), -(-width // 4)
    if block not in (4, 8):
        raise UsageError(f"block must be 4 or 8, got {block}")
    if state.moments.shape[0] < rows or state.moments.shape[1] < cols or height < 1 or width < 1:
        raise UsageError(f"a state of {state.moments.shape[:2]} cells does not cover a picture of {height} x {width}")
    moments = np.ascontiguousarray(state.moments[:rows, :cols])
    means = np.zeros(3)
    weights = np.zeros(3)
    for channel in range(3):
        size = luma if channel == 0 else chroma
        if size[0] == 0 or size[1] == 0:
            continue
        step_y, step_x = _cell_size(luma, size)
        total, square_total = _totals(moments, channel, step_y, step_x, size[0], size[1])
        means[channel], weights[channel] = standardisation(total, square_total, size[0] * size[1])
    energy = np.zeros((-(-height // block), -(-width // block)), np.float32)
    extent = np.zeros(2, np.float32)
    _energy(moments, means, weights, height, width, block // 4, energy, extent)
    return CarriedEnergy(energy=energy, range=extent)


def _cell_size(luma: tuple[int, ...], plane: tuple[int, ...]) -> tuple[int, int]:
    if any(part not in (full, (full + 1) // 2) for full, part in zip(luma, plane, strict=True)):
        raise UsageError(f"a plane of {plane} does not go with luma of {luma}")
    return 4 if plane[0] == luma[0] else 2, 4 if plane[1] == luma[1] else 2


@kernel()
def _cell_moments(plane, step_y, step_x, channel, moments):  # type: ignore[no-untyped-def]
    height, width = plane.shape
    sums = np.empty(width, np.int32)
    squares = np.empty(width, np.int64)
    for row in range(moments.shape[0]):
        y0, y1 = min(row * step_y, height - 1), min(row * step_y + step_y, height)
        sums[:] = 0
        squares[:] = 0
        for y in range(y0, y1):
            line = plane[y]
            for x in range(width):
                r = np.int32(line[x])
                sums[x] = np.int32(sums[x] + r)
                squares[x] += np.int64(np.int32(r * r))
        for col in range(moments.shape[1]):
            x0, x1 = min(col * step_x, width - 1), min(col * step_x + step_x, width)
            total = np.int64(0)
            square_total = np.int64(0)
            for x in range(x0, x1):
                total += np.int64(sums[x])
                square_total += squares[x]
            samples = (y1 - y0) * (x1 - x0)
            moments[row, col, 0, channel] = square_total / samples
            moments[row, col, 1, channel] = total / samples


@kernel(_nrt=False, inline="always")
def _source(row, col, displacement, side, rows, cols):  # type: ignore[no-untyped-def]
    """First of the six moments of the cell that a cell is predicted from."""
    # vectors count quarter samples, so a cell is sixteen steps; the nearest cell is taken
    y = min(max(row + ((np.int64(displacement[side, row, col, 1]) + 8) >> 4), 0), rows - 1)
    x = min(max(col + ((np.int64(displacement[side, row, col, 0]) + 8) >> 4), 0), cols - 1)
    return np.uintp((y * cols + x) * 6)


@kernel(_nrt=False)
def _carry(states, reference, displacement, mask, own, out):  # type: ignore[no-untyped-def]
    """Moments of all cells; states, own and out are flat, six moments per cell."""
    rows, cols = reference.shape[1:]
    by_power = mask.size == 0
    half = np.float32(0.5)
    for row in range(rows):
        for col in range(cols):
            at = np.uintp((row * cols + col) * 6)
            slot0, slot1 = np.int64(reference[0, row, col]), np.int64(reference[1, row, col])
            if slot0 < 0 and slot1 < 0:
                for k in range(6):
                    out[at + np.uintp(k)] = own[at + np.uintp(k)]
                continue
            i = _source(row, col, displacement, 0 if slot0 >= 0 else 1, rows, cols)
            first = states[slot0 if slot0 >= 0 else slot1]
            if slot0 >= 0 and slot1 >= 0:
                j = _source(row, col, displacement, 1, rows, cols)
                second = states[slot1]
                for k in range(6):
                    m = np.uintp(k)
                    out[at + m] = half * first[i + m] + half * second[j + m]
            else:
                for k in range(6):
                    out[at + np.uintp(k)] = first[i + np.uintp(k)]
            for channel in range(3):
                power, mean = at + np.uintp(channel), at + np.uintp(channel + 3)
                if own[power] > 0 if by_power else mask[channel, row, col]:
                    out[power] = own[power]
                    out[mean] = own[mean]


@kernel()
def _totals(moments, channel, step_y, step_x, height, width):  # type: ignore[no-untyped-def]
    total = 0.0
    square_total = 0.0
    for row in range(moments.shape[0]):
        tall = max(min(step_y, height - row * step_y), 0)
        for col in range(moments.shape[1]):
            area = tall * max(min(step_x, width - col * step_x), 0)
            total += area * np.float64(moments[row, col, 1, channel])
            square_total += area * np.float64(moments[row, col, 0, channel])
    return total, square_total


@kernel()
def _energy(moments, means, weights, height, width, side, energy, extent):  # type: ignore[no-untyped-def]
    low = np.inf
    high = -np.inf
    for block_row in range(energy.shape[0]):
        for block_col in range(energy.shape[1]):
            total = 0.0
            total_area = 0
            for row in range(block_row * side, min(block_row * side + side, moments.shape[0])):
                for col in range(block_col * side, min(block_col * side + side, moments.shape[1])):
                    e = 0.0
                    for channel in range(3):
                        power = np.float64(moments[row, col, 0, channel])
                        mean = np.float64(moments[row, col, 1, channel])
                        e += weights[channel] * (power - 2.0 * mean * means[channel] + means[channel] ** 2)
                    e = max(e, 0.0)
                    area = min(4, height - 4 * row) * min(4, width - 4 * col)
                    total += area * e
                    total_area += area
                    low = min(low, e)
                    high = max(high, e)
            energy[block_row, block_col] = total / total_area
    extent[0] = low
    extent[1] = high
