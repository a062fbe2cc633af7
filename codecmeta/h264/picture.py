"""One picture: its buffers while slices are read, and the planes and macroblock maps made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codecmeta.h264.parameter_sets import SequenceParameters
from codecmeta.h264.records import MACROBLOCK, MOTION
from codecmeta.h264.residual_data import LUMA_SAMPLES, chroma_samples
from codecmeta.h264.transform import block_place
from codecmeta.record.energy import BlockEnergy
from codecmeta.simd.numba_compile import entry

Structure = Literal["frame", "field", "mbaff"]
Planes = tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """What the headers and macroblocks of a picture say; shapes are (⌈H/16⌉, ⌈W/16⌉) of the display size (H, W).

    A cell describes the macroblock that holds its upper left sample; in field pictures and field macroblock pairs,
    even rows describe the top field, odd rows the bottom field.

    Attributes:
        slice_types: types of the picture's slices in order of first appearance, of "I", "P", "B".
        bit_depth: bits per luma and chroma sample.
        chroma_format: chroma_format_idc, 0 to 3 for 4:0:0, 4:2:0, 4:2:2, 4:4:4.
        structure: "frame", "field" (two field pictures) or "mbaff" (frame of frame and field macroblock pairs).
        ref_idc: nal_ref_idc, 0 where no other picture refers to this one.
        mb_type: uint8, see `codecmeta.record.macroblock_types`.
        qp: int8, QPY of each macroblock: -6 * (bit depth - 8) to 51; the lowest value for I_PCM.
        cbp: uint16, CodedBlockPatternLuma + 16 * CodedBlockPatternChroma; 47 for I_PCM.
        mb_bits: uint16, bits of slice data that the macroblock took, 65535 for any more.
    """

    slice_types: tuple[str, ...]
    bit_depth: tuple[int, int]
    chroma_format: int
    structure: Structure
    ref_idc: int
    mb_type: NDArray[np.uint8]
    qp: NDArray[np.int8]
    cbp: NDArray[np.uint16]
    mb_bits: NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class PictureResidual(PictureFacts):
    """Residual samples of one picture.

    Attributes:
        y: int16 (H, W), inverse-transformed residual, before prediction is added (8.5). The samples of I_PCM
            macroblocks, which have no prediction, minus mid-grey.
        cb: int16 (⌈H/v⌉, ⌈W/u⌉) for chroma subsampling v, u; (0, 0) for monochrome.
        cr: like `cb`.
    """

    y: NDArray[np.int16]
    cb: NDArray[np.int16]
    cr: NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class PictureMoments(PictureFacts):
    """Block means of one picture's residual.

    Attributes:
        energy: what `codecmeta.record.energy.measure_energy` returns for the residual planes.
        cells: its `power` and `mean` on 4x4 blocks, float32 (2, 3, ⌈H/4⌉, ⌈W/4⌉); None if not asked for.
    """

    energy: BlockEnergy
    cells: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class PictureCells(PictureFacts):
    """Block means of one picture's residual on 4x4 blocks, without its energy.

    Attributes:
        cells: as those of `PictureMoments`.
    """

    cells: NDArray[np.float32]


class Buffers:
    """Macroblock records and samples of one colour plane set of a frame or field; reused for every picture.

    Attributes:
        macroblocks: records of type `MACROBLOCK`, by macroblock address.
        motion: records of type `MOTION`, likewise; empty if motion is not kept.
        samples: int16, the coded 4x4 blocks of the picture.
        coded, room: int64 (macroblocks, 4) and (3, 256), where moments.py works.
        used: samples in use.
        covered: macroblocks that the slices read so far have coded.
    """

    def __init__(self, sequence: SequenceParameters, field: bool, *, motion: bool = False) -> None:
        self.count = sequence.width_mbs * sequence.height_mbs >> field
        chroma = sequence.chroma_array_type
        self.used = self.covered = 0
        self.macroblocks = np.zeros(self.count, MACROBLOCK)
        self.motion = np.zeros(self.count if motion else 0, MOTION)
        self.coded = np.empty((self.count, 4), np.int64)
        self.room = np.empty((3, 256), np.int64)
        self.samples = np.empty(self.count * (LUMA_SAMPLES + 2 * chroma_samples.py_func(chroma)), np.int16)


def macroblock_order(sequence: SequenceParameters, structure: Structure) -> NDArray[np.int32]:
    """Where the macroblock of each display cell is: int32 (⌈H/16⌉, ⌈W/16⌉) addresses.

    In field pictures the macroblocks of the bottom field are counted after those of the top field.
    """
    left, _, top, _ = sequence.crop
    height, width = sequence.display_size
    rows = (top + 16 * np.arange(-(-height // 16))) // 16
    columns = (left + 16 * np.arange(-(-width // 16))) // 16
    if structure == "frame":
        address = rows[:, None] * sequence.width_mbs + columns
    else:
        pair = (rows[:, None] >> 1) * sequence.width_mbs + columns
        bottom = rows[:, None] & 1
        if structure == "mbaff":
            address = pair * 2 + bottom
        else:
            address = pair + bottom * (sequence.width_mbs * sequence.height_mbs // 2)
    return address.astype(np.int32)


@entry
def first_uncovered(mbs, first_number):  # type: ignore[no-untyped-def]
    """Address of the first macroblock that no slice of the picture coded, -1 if all are."""
    for mb in range(mbs.size):
        if mbs[mb].slice < first_number:
            return mb
    return -1


@entry
def fill_maps(mbs, order, mb_type, qp, cbp, bits):  # type: ignore[no-untyped-def]
    """Lay out what the macroblocks say."""
    for y in range(order.shape[0]):
        for x in range(order.shape[1]):
            m = mbs[order[y, x]]
            mb_type[y, x] = m.kind
            qp[y, x] = m.qp
            cbp[y, x] = m.cbp
            bits[y, x] = min(max(m.bits, 0), 65535)


@entry
def fill_plane(plane, mbs, samples, source, across, down, width_mbs, mbaff, parity, top, left):  # type: ignore[no-untyped-def]
    """Copy the coded blocks of a colour plane to where they are shown; `plane` is zero elsewhere.

    Args:
        source: which of `coded` tells the blocks.
        across, down: 4x4 blocks per row and column of a macroblock.
        parity: -1 for frames; 0 or 1 to fill the lines of the top or bottom field.
        top, left: samples of the plane that are cropped away.
    """
    height, width = plane.shape
    for mb in range(mbs.size):
        coded = np.int64(mbs[mb].coded[source])
        if coded == 0:
            continue
        step = 1
        if mbaff:
            pair = mb >> 1
            column = pair % width_mbs
            y0 = (pair // width_mbs) * 8 * down
            if mbs[mb].field:
                y0 += mb & 1
                step = 2
            else:
                y0 += (mb & 1) * 4 * down
        else:
            column = mb % width_mbs
            y0 = (mb // width_mbs) * 4 * down
            if parity >= 0:
                y0 = 2 * y0 + parity
                step = 2
        base = np.int64(mbs[mb].first[source]) - 16
        for block in range(across * down):
            if not (coded >> block) & 1:
                continue
            bx, by = block_place(block, across)
            x = column * 4 * across + bx * 4 - left
            y = y0 + by * 4 * step - top
            base += 16
            for dy in range(4):
                row = y + dy * step
                if row < 0 or row >= height:
                    continue
                for dx in range(4):
                    if 0 <= x + dx < width:
                        plane[row, x + dx] = samples[base + dy * 4 + dx]


def subsampled(display_size: tuple[int, int], subsampling: tuple[int, int]) -> tuple[int, int]:
    """Shape of a chroma plane."""
    (height, width), (v, u) = display_size, subsampling
    return -(-height // v), -(-width // u)
