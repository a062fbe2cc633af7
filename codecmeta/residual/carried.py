"""Carried energy: residual of everything on screen, not only of what this picture adds.

Each 4x4 luma cell holds the means of r² and of r of the residual last coded for what it shows. Where a picture codes a
residual or predicts intra, a cell takes the picture's own residual; every other cell takes the state of the cell it is
predicted from, along its motion vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.prediction.compensation import MotionField
from codecmeta.record.cell_moments import CellMoments, cell_size
from codecmeta.record.energy import EnergyMap
from codecmeta.record.energy_kernels import standardise
from codecmeta.residual.carried_kernels import (
    carry_moments,
    fill_energy,
    sum_channel,
)

MOST = 17
"""References of a picture that are distinguished: the sixteen that H.264 allows, and the picture itself."""


_BY_POWER: NDArray[np.bool_] = np.zeros((0, 0, 0), np.bool_)


def carry(
    references: Sequence[CellMoments],
    field: MotionField,
    own: CellMoments,
    *,
    coded: NDArray[np.bool_] | None = None,
) -> CellMoments:
    """Return the state of a picture from its own residual and the states of its references.

    Args:
        references: states of the references that ``field`` indexes, at most `MOST`.
        field: where each cell is predicted from.
        own: residual moments of the picture.
        coded: bool (h4, w4) or (3, h4, w4), where the picture codes a residual; None takes the cells and channels
            whose own power is not 0.

    Raises:
        UsageError: shapes differ, or the field indexes a reference that is not given.
    """
    rows, cols = own.moments.shape[:2]
    if field.reference.shape != (2, rows, cols) or any(r.moments.shape != own.moments.shape for r in references):
        raise UsageError(
            f"a field of {field.reference.shape[1:]} cells, references of "
            f"{[r.moments.shape[:2] for r in references]} and a picture of {(rows, cols)} differ in shape"
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
    carry_moments(
        tuple(np.ascontiguousarray(state).reshape(-1) for state in states),
        np.ascontiguousarray(field.reference),
        np.ascontiguousarray(field.displacement),
        mask,
        np.ascontiguousarray(own.moments).reshape(-1),
        moments.reshape(-1),
    )
    return CellMoments(moments=moments)


def carried_energy(state: CellMoments, *, luma: tuple[int, int], chroma: tuple[int, int], block: int) -> EnergyMap:
    """Return the energy of a state: `codecmeta.record.energy` from cell moments.

    Per channel the mean and standard deviation are taken over the picture, E of a cell is
    ``Σ_c w_c (power_c - 2 mean_c μ_c + μ_c²)``, and cells cut by the picture edge are weighted by the area inside.

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
        raise UsageError(f"block is {block}; choose from 4, 8")
    if state.moments.shape[0] < rows or state.moments.shape[1] < cols or height < 1 or width < 1:
        raise UsageError(f"a state of {state.moments.shape[:2]} cells does not cover a picture of {height} x {width}")
    moments = np.ascontiguousarray(state.moments[:rows, :cols])
    means = np.zeros(3)
    weights = np.zeros(3)
    for channel in range(3):
        size = luma if channel == 0 else chroma
        if size[0] == 0 or size[1] == 0:
            continue
        step_y, step_x = cell_size(luma, size)
        total, square_total = sum_channel(moments, channel, step_y, step_x, size[0], size[1])
        means[channel], weights[channel] = standardise(total, square_total, size[0] * size[1])
    energy = np.zeros((-(-height // block), -(-width // block)), np.float32)
    extent = np.zeros(2, np.float32)
    fill_energy(moments, means, weights, height, width, block // 4, energy, extent)
    return EnergyMap(energy=energy, range=extent)
