"""Moments of a picture's residual on 4x4 luma cells, from which the `carried` map is followed between pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.record.energy import BlockEnergy, Residual
from codecmeta.record.energy_kernels import fill_cell_moments, interleave


@dataclass(frozen=True, kw_only=True)
class CellMoments:
    """Residual moments of the cells of one picture, h4 = ⌈H/4⌉ and w4 = ⌈W/4⌉.

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

    @classmethod
    def from_energy(cls, energy: BlockEnergy) -> CellMoments:
        """Return the moments of a picture that was measured in blocks of 4x4 samples."""
        moments = np.empty((*energy.energy.shape, 2, 3), np.float32)
        interleave(energy.power, energy.mean, moments)
        return cls(moments=moments)


def measure_cells(planes: Residual) -> CellMoments:
    """Measure the moments of residual planes.

    Args:
        planes: int16 Y (H, W), Cb, Cr in 4:2:0, 4:2:2, 4:4:4, or (0, 0) for monochrome.

    Raises:
        UsageError: the shapes of the planes do not match.
    """
    height, width = planes[0].shape
    moments = np.zeros((-(-height // 4), -(-width // 4), 2, 3), np.float32)
    for channel, plane in enumerate(planes):
        if plane.size:
            fill_cell_moments(plane, *cell_size(planes[0].shape, plane.shape), channel, moments)
    return CellMoments(moments=moments)


def cell_size(luma: tuple[int, ...], plane: tuple[int, ...]) -> tuple[int, int]:
    """Return the rows and columns of a plane's samples in a cell.

    Raises:
        UsageError: a plane of that shape does not match the luma plane.
    """
    if any(part not in (full, (full + 1) // 2) for full, part in zip(luma, plane, strict=True)):
        raise UsageError(f"a plane of {plane} does not match luma of {luma}")
    return 4 if plane[0] == luma[0] else 2, 4 if plane[1] == luma[1] else 2
