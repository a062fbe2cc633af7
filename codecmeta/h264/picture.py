"""Picture buffers while slices are read, and the planes and macroblock maps built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codecmeta.h264.parameter_sets import SequenceParameters
from codecmeta.h264.records import MACROBLOCK, MOTION
from codecmeta.h264.residual_data import LUMA_SAMPLES, chroma_samples
from codecmeta.record.picture_reading import PictureMaps, ResidualMoments, ResidualPlanes

Structure = Literal["frame", "field", "mbaff"]


@dataclass(frozen=True, kw_only=True)
class MacroblockMaps(PictureMaps):
    """Maps of a picture from its headers and macroblocks.

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
class PictureResidual(MacroblockMaps, ResidualPlanes):
    """Picture with its residual samples."""


@dataclass(frozen=True, kw_only=True)
class PictureMoments(MacroblockMaps, ResidualMoments):
    """Picture with block means of its residual."""


class Buffers:
    """Macroblock records and samples of one colour plane set of a frame or field; reused for every picture.

    Attributes:
        macroblocks: records of type `MACROBLOCK`, by macroblock address.
        motion: records of type `MOTION`, likewise; empty if motion is not kept.
        samples: int16, the coded 4x4 blocks of the picture.
        coded, room: int64 (macroblocks, 4) and (3, 256), scratch memory of moments.py.
        used: number of samples in use.
        covered: number of macroblocks coded by the slices read so far.
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
    """Return the macroblock address of each display cell: int32 (⌈H/16⌉, ⌈W/16⌉).

    In field pictures the macroblocks of the bottom field are numbered after those of the top field.
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


def subsampled(display_size: tuple[int, int], subsampling: tuple[int, int]) -> tuple[int, int]:
    """Return the shape of a chroma plane."""
    (height, width), (v, u) = display_size, subsampling
    return -(-height // v), -(-width // u)
