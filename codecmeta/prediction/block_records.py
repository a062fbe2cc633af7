"""Records of the compiled block prediction, as tuples with names that numba knows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codecmeta.decoding.side_data import Samples


class Interpolation(NamedTuple):
    """Rules by which samples between samples are interpolated.

    Attributes:
        code: filter code of the standard (standards.py).
        rounding: vop_rounding_type of MPEG-4, RTYPE of H.263, else 0.
        top: largest sample value.
    """

    code: int
    rounding: int
    top: int


class Picture(NamedTuple):
    """Picture, and the reference pictures in their slots.

    Attributes:
        like: array of the sample type.
        samples: int64 (3, 2), address and row length of Y, Cb, Cr.
        slots: uintp (3, slots, 5), `ReferenceSamples.addresses` of the references, per channel.
        luma, chroma: height and width; chroma is (0, 0) for monochrome.
        shifts: log2 of the vertical and horizontal chroma subsampling.
    """

    like: Samples
    samples: NDArray[np.int64]
    slots: NDArray[np.uintp]
    luma: tuple[int, int]
    chroma: tuple[int, int]
    shifts: tuple[int, int]


class Plane(NamedTuple):
    """Plane of a picture and of its references.

    Attributes:
        like: array of the sample type.
        channel: 0, 1, 2 for Y, Cb, Cr.
        samples: address and row length.
        slots: uintp (slots, 5).
        size: height and width.
        shifts: log2 of its vertical and horizontal subsampling.
        top: largest sample value.
        out: address and row length of the int16 plane to write.
    """

    like: Samples
    channel: int
    samples: tuple[int, int]
    slots: NDArray[np.uintp]
    size: tuple[int, int]
    shifts: tuple[int, int]
    top: int
    out: tuple[int, int]


class ReferenceLists(NamedTuple):
    """Both reference lists, and the weights of their entries.

    Attributes:
        slots: int64 (2, n), slots of the entries.
        counts: number of entries; 0 only for a list that no vector uses.
        singles: int64 (2, n, 3, 5), weights of an entry used alone, per channel (`codecmeta.simd.block_rows`).
        pairs: int64 (n, n, 3, 5), weights of two entries.
        guessed: whether a pair may also have equal weights.
    """

    slots: NDArray[np.int64]
    counts: tuple[int, int]
    singles: NDArray[np.int64]
    pairs: NDArray[np.int64]
    guessed: bool


class DeadZones(NamedTuple):
    """Limits below which a residual counts as zero.

    Attributes:
        qp: int8 (rows, columns) per macroblock, (0, 0) for no dead zone.
        limits: float64 (2, 256), those of luma and chroma for each QP from -128 on.
    """

    qp: NDArray[np.int8]
    limits: NDArray[np.float64]


class Workspace(NamedTuple):
    """Scratch memory.

    Attributes:
        first: int32 (2, h8, w8), -1 everywhere.
        table: int32 (2 w8, COLUMNS), the blocks of a row of macroblocks.
        sums: of half samples (`h264_halfpel.compute_band`).
        lines: int32, of a block.
        blocks: two predicted blocks.
    """

    first: NDArray[np.int32]
    table: NDArray[np.int32]
    sums: NDArray[Any]
    lines: NDArray[np.int32]
    blocks: Samples


class Compensated(NamedTuple):
    """Residual of a picture and the references used, to write.

    Attributes:
        planes: int64 (3, 2), address and row length of int16 Y, Cb, Cr, written where `coded` says so.
        coded: uint8 (3, h8, w8), 0 on entry; 1 where a channel of an 8x8 luma block may not be 0.
        reference: int8 (2, h8, w8), -1 on entry; slots.
        displacement: int32 (2, h8, w8), dx and dy packed.
    """

    planes: NDArray[np.int64]
    coded: NDArray[np.uint8]
    reference: NDArray[np.int8]
    displacement: NDArray[np.int32]
