"""Bits spent on the parts of a picture, common to all codecs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PictureBits:
    """Bits of one picture; the coded size is H x W luma samples, including cropped ones.

    Attributes:
        type: "I", "P" or "B": the most general of its slices.
        size: H and W.
        log2_unit: log2 of the side of a macroblock (4) or coding tree unit (4 to 6).
        cells: int32 (⌈H/16⌉, ⌈W/16⌉), bits of slice data of each 16x16 cell; those of a larger coding unit are split
            evenly.
    """

    type: str
    size: tuple[int, int]
    log2_unit: int
    cells: NDArray[np.int32]

    def units(self) -> NDArray[np.int32]:
        """Return the bits of macroblocks or coding tree units: int32 (⌈H/n⌉, ⌈W/n⌉) for units of n x n samples."""
        side = 1 << (self.log2_unit - 4)
        rows, columns = (np.arange(0, count, side) for count in self.cells.shape)
        return np.add.reduceat(np.add.reduceat(self.cells, rows, 0), columns, 1).astype(np.int32)

    def small_blocks(self) -> NDArray[np.float32]:
        """Return the bits of 4x4 blocks, those of a cell spread evenly over it: float32 (⌈H/4⌉, ⌈W/4⌉)."""
        height, width = (-(-side // 4) for side in self.size)
        spread = self.cells.astype(np.float32).repeat(4, 0).repeat(4, 1)[:height, :width]
        tall, wide = (np.minimum(count - np.arange(count) // 4 * 4, 4) for count in (height, width))
        return np.asarray(spread / (tall[:, None] * wide), np.float32)


def picture_type(slice_types: tuple[str, ...]) -> str:
    """Return the most general of some slice types."""
    return "B" if "B" in slice_types else "P" if "P" in slice_types else "I"
