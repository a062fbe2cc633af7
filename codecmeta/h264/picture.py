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
from codecmeta.record.picture_reading import PictureMaps, ResidualCells, ResidualMoments, ResidualPlanes
from codecmeta.simd.numba_compile import entry

Structure = Literal["frame", "field", "mbaff"]


@dataclass(frozen=True, kw_only=True)
class PictureFacts(PictureMaps):
    """What the headers and macroblocks of a picture say.

    A cell describes the macroblock that holds its upper left sample; in field pictures and field macroblock pairs,
    even rows describe the top field, odd rows the bottom field.

    Attributes:
        structure: "frame", "field" (two field pictures) or "mbaff" (frame of frame and field macroblock pairs).
        ref_idc: nal_ref_idc, 0 where no other picture refers to this one.
        cbp: uint16, CodedBlockPatternLuma + 16 * CodedBlockPatternChroma; 47 for I_PCM, whose QP is the lowest value.
    """

    structure: Structure
    ref_idc: int
    cbp: NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class PictureResidual(PictureFacts, ResidualPlanes):
    """One picture with its residual samples."""


@dataclass(frozen=True, kw_only=True)
class PictureMoments(PictureFacts, ResidualMoments):
    """One picture with block means of its residual."""


@dataclass(frozen=True, kw_only=True)
class PictureCells(PictureFacts, ResidualCells):
    """One picture with the means of 4x4 blocks of its residual."""


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
