"""Picture data from a bitstream reader, common to all codecs: maps of the blocks, and the residual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codecmeta.record.cell_moments import CellMoments
from codecmeta.record.energy import BlockEnergy
from codecmeta.record.picture_bits import picture_type


@dataclass(frozen=True, kw_only=True)
class PictureMaps:
    """Maps of every picture; shapes are (⌈H/16⌉, ⌈W/16⌉) of the display size (H, W).

    Attributes:
        size: H and W.
        slice_types: types of the picture's slices in order of first appearance, of "I", "P", "B".
        bit_depth: bits per luma and chroma sample.
        chroma_format: chroma_format_idc, 0 to 3 for 4:0:0, 4:2:0, 4:2:2, 4:4:4.
        mb_type: uint8, see `codecmeta.record.macroblock_types`.
        qp: int8, QpY at each cell's upper left sample: -6 * (bit depth - 8) to 51.
        mb_bits: uint16, bits of slice data that the cell took, 65535 for more.
    """

    size: tuple[int, int]
    slice_types: tuple[str, ...]
    bit_depth: tuple[int, int]
    chroma_format: int
    mb_type: NDArray[np.uint8]
    qp: NDArray[np.int8]
    mb_bits: NDArray[np.uint16]

    @property
    def type(self) -> str:
        """I, P or B: the most general of its slices."""
        return picture_type(self.slice_types)


@dataclass(frozen=True, kw_only=True)
class ResidualPlanes:
    """Residual samples of one picture.

    Attributes:
        y: int16 (H, W), inverse-transformed residual, before prediction is added. PCM samples, which have no
            prediction, minus mid-grey.
        cb: int16 (⌈H/v⌉, ⌈W/u⌉) for chroma subsampling v, u; (0, 0) for monochrome.
        cr: like `cb`.
    """

    y: NDArray[np.int16]
    cb: NDArray[np.int16]
    cr: NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class ResidualMoments:
    """Block means of one picture's residual.

    Attributes:
        energy: result of `codecmeta.record.energy.measure_energy` for the residual planes; None if not requested.
        cells: moments on 4x4 cells; None if not requested.
    """

    energy: BlockEnergy | None = None
    cells: CellMoments | None = None
