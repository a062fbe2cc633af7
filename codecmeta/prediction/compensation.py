"""Motion compensation, the `motion` residual: decoded samples minus their motion-compensated prediction.

FFmpeg exports vectors but no reference index, weights or sub-8x8 partitions, so for H.264 each block is predicted from
every candidate reference picture and the prediction with the smallest luma error is kept. Blocks without a vector
are intra blocks; they get the residual of `texture`. In MPEG-1/2, MPEG-4 part 2 and H.263 the reference is known, and
the residual of inter blocks is what the stream codes (up to clipping).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codecmeta.decoding.side_data import Planes, Samples
from codecmeta.errors import UsageError
from codecmeta.prediction.block_kernels import COLUMNS, compensate
from codecmeta.prediction.block_records import (
    Compensated,
    DeadZones,
    Interpolation,
    Picture,
    ReferenceLists,
    Workspace,
)
from codecmeta.prediction.dead_zone import dead_zones
from codecmeta.prediction.h264_halfpel import BAND
from codecmeta.prediction.padded_reference import MARGIN, ReferenceSamples
from codecmeta.prediction.reference_selection import FUTURE, PAST
from codecmeta.prediction.standards import H264, Standard, filter_of
from codecmeta.record.energy import Residual
from codecmeta.simd.block_rows import BLOCK
from codecmeta.simd.intra_4x4 import intra_residual
from codecmeta.simd.numba_cache import kernel


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Decoded reference picture.

    Attributes:
        samples: its samples; created once per picture, so that its half samples serve all pictures that refer to it.
        distance: pictures between its display and that of the current picture, plus one; 1 is a neighbour.
            Implicit weights of H.264 follow from it.
    """

    samples: ReferenceSamples
    distance: int = 1


@dataclass(frozen=True, kw_only=True)
class MotionField:
    """References of the cells of a picture: n x n luma samples, h = ⌈H/n⌉ rows, w = ⌈W/n⌉ columns.

    Attributes:
        reference: int8 (2, h, w), per list the index into past + future references, -1 for none; -1 in both lists
            is an intra block.
        displacement: int16 (2, h, w, 2), dx and dy in quarter luma samples.
    """

    reference: NDArray[np.int8]
    displacement: NDArray[np.int16]

    @property
    def inter(self) -> NDArray[np.bool_]:
        """Bool (h, w): cells with a prediction from another picture."""
        return np.asarray((self.reference >= 0).any(axis=0))


@dataclass(frozen=True, kw_only=True)
class MotionResidual:
    """Residual of one picture from motion compensation.

    Attributes:
        samples: int16 Y, Cb, Cr: decoded minus predicted samples in inter blocks, intra residual elsewhere; undefined
            in blocks that are not coded.
        blocks: the vectors and references that were used, on 8x8 blocks.
        coded: uint8 (3, ⌈H/8⌉, ⌈W/8⌉), per channel 0 for an 8x8 luma block whose residual is all 0, else 1.
    """

    samples: Residual
    blocks: MotionField
    coded: NDArray[np.uint8]

    @cached_property
    def planes(self) -> Residual:
        """The residual, int16 Y, Cb, Cr: `samples` with blocks that are not coded set to 0."""
        for plane, coded in zip(self.samples, self.coded, strict=True):
            if plane.size:
                shifts = (int(plane.shape[axis] != self.samples[0].shape[axis]) for axis in range(2))
                _clear(plane, coded, *shifts)
        return self.samples

    @property
    def field(self) -> MotionField:
        """The same on 4x4 cells."""
        height, width = self.planes[0].shape
        rows, cols = -(-height // 4), -(-width // 4)
        reference, displacement = (
            np.repeat(np.repeat(part, 2, axis=1), 2, axis=2)[:, :rows, :cols]
            for part in (self.blocks.reference, self.blocks.displacement)
        )
        return MotionField(reference=reference, displacement=displacement)


@kernel()
def _clear(plane: NDArray[np.int16], coded: NDArray[np.uint8], shift_y: int, shift_x: int) -> None:
    for row in range(coded.shape[0]):
        for col in range(coded.shape[1]):
            if not coded[row, col]:
                top, left = row << 3 >> shift_y, col << 3 >> shift_x
                plane[top : top + (8 >> shift_y), left : left + (8 >> shift_x)] = 0


_EVEN = 32


def implicit_weight(before: int, after: int) -> int:
    """Return the weight of the list 1 prediction in 1/64 for references ``before`` and ``after`` pictures away.

    Rec. ITU-T H.264, 8.4.1.2.3 (DistScaleFactor) and 8.4.2.3.1, with two order counts per picture.
    """
    tb = min(max(2 * before, -128), 127)
    td = min(max(2 * (before + after), -128), 127)
    if td == 0:
        return _EVEN
    tx = int((16384 + abs(td) // 2) / td)
    scale = min(max((tb * tx + 32) >> 6, -1024), 1023) >> 2
    return scale if -64 <= scale <= 128 else _EVEN


def motion_residual(
    current: Planes,
    vectors: NDArray[np.int16] | None,
    past: Sequence[Reference],
    future: Sequence[Reference] = (),
    *,
    standard: Standard,
    qp: NDArray[np.int8] | None = None,
    bit_depth: int = 8,
    rounding: int = 0,
    out: Residual | None = None,
) -> MotionResidual:
    """Return decoded samples minus motion-compensated prediction.

    Args:
        current: Y, Cb, Cr of the picture, at its coded size where the decoder gives it (`apply_cropping=0`).
        vectors: (n, 7) int16 as `side_data.vectors` returns them, or None for an intra picture. Blocks that are not 8
            or 16 samples wide and high, not on the 8x8 grid or outside the picture are ignored.
        past: candidate references shown before the picture, nearest first, at most `PAST`. Only the nearest is used
            unless the standard is H.264.
        future: candidate references shown after it, nearest first, at most `FUTURE`, likewise.
        standard: standard whose interpolation applies.
        qp: (⌈H/16⌉, ⌈W/16⌉) quantisers; H.264 only: a 4x4 block whose mean square is below (Qstep/8)² is zeroed,
            because what is left there is mostly the loop filter. None switches the dead zone off.
        bit_depth: 8 to 14.
        rounding: vop_rounding_type of a P picture of MPEG-4 (RTYPE of H.263), 0 elsewhere.
        out: planes of an earlier picture that may be overwritten; None allocates new ones.

    Raises:
        UsageError: the planes do not match, too many references, or an option that the standard does not have.
    """
    code = filter_of(standard)
    _check(current, past, future, standard, qp, bit_depth, rounding)
    shapes = [plane.shape for plane in current]
    height, width = shapes[0]
    rows, cols = -(-height // 8), -(-width // 8)
    if out is None or [plane.shape for plane in out] != shapes:
        out = (np.empty(shapes[0], np.int16), np.empty(shapes[1], np.int16), np.empty(shapes[2], np.int16))
    reference = np.full((2, rows, cols), -1, np.int8)
    displacement = np.zeros((2, rows, cols, 2), np.dtype("<i2"))
    coded = np.zeros((3, rows, cols), np.uint8)
    top = (1 << bit_depth) - 1
    shifts = int(shapes[1][0] not in (0, height)), int(shapes[1][1] not in (0, width))
    if vectors is not None and len(vectors) and (past or future):
        if code != H264:
            past, future = past[:1], future[:1]
        distances = (tuple(one.distance for one in side) for side in (past, future))
        compensate(
            Picture(
                like=np.empty(1, current[0].dtype),
                samples=_addresses(current),
                slots=np.stack([one.samples.addresses for one in (*past, *future)], axis=1),
                luma=shapes[0],
                chroma=shapes[1],
                shifts=shifts,
            ),
            _guess_lists(*distances, top, code == H264),
            np.ascontiguousarray(vectors, np.int16),
            DeadZones(
                qp=np.zeros((0, 0), np.int8) if qp is None else np.ascontiguousarray(qp), limits=dead_zones(bit_depth)
            ),
            Interpolation(code=code, rounding=rounding, top=top),
            _workspace(code, current[0]),
            Compensated(
                planes=_addresses(out),
                coded=coded,
                reference=reference,
                displacement=displacement.view(np.dtype("<i4"))[..., 0],
            ),
        )
    blocks = MotionField(reference=reference, displacement=displacement)
    inter = blocks.inter
    if not inter.all():
        coded[:, ~inter] = 1
        for channel, plane in enumerate(current):
            intra_residual(plane, inter, *(shifts if channel else (0, 0)), top, (top + 1) >> 1, out[channel])
    return MotionResidual(samples=out, blocks=blocks, coded=coded)


@lru_cache(maxsize=64)
def _guess_lists(past: tuple[int, ...], future: tuple[int, ...], top: int, guessed: bool) -> ReferenceLists:
    """Return both reference lists for references given by their distances.

    List 0 holds past and list 1 future references, unless one side has none.
    """
    behind, ahead = list(range(len(past))), list(range(len(past), len(past) + len(future)))
    chosen = behind or ahead, ahead or behind
    counts = len(chosen[0]), len(chosen[1])
    slots = np.zeros((2, max(counts)), np.int64)
    for side, entries in enumerate(chosen):
        slots[side, : len(entries)] = entries
    singles = np.empty((2, max(counts), 3, 5), np.int64)
    singles[:] = (*_MEAN, top)
    pairs = np.empty((*counts, 3, 5), np.int64)
    pairs[:] = (*_MEAN, top)
    if past and future:
        for i, before in enumerate(past):
            for j, after in enumerate(future):
                weight = implicit_weight(before, after)
                pairs[i, j, :, :2] = np.array([64 - weight, weight])
    return ReferenceLists(slots=slots, counts=counts, singles=singles, pairs=pairs, guessed=guessed)


_MEAN = (32, 32, 6, 0)


def _addresses(planes: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return int64 (3, 2): addresses of planes, and the length of their rows."""
    return np.array([(plane.ctypes.data, plane.strides[0] // plane.itemsize) for plane in planes], np.int64)


def _workspace(code: int, luma: Samples) -> Workspace:
    (height, width), dtype = luma.shape, luma.dtype
    rows, cols = -(-height // 8), -(-width // 8)
    columns = width + 2 * MARGIN if code == H264 else 0
    return Workspace(
        first=np.full((2, rows, cols), -1, np.int32),
        table=np.empty((2 * cols, COLUMNS), np.int32),
        sums=np.empty((BAND + 5) * columns, np.int16 if dtype == np.uint8 else np.int32),
        lines=np.empty((BLOCK + 1) * BLOCK, np.int32),
        blocks=np.empty(2 * BLOCK * BLOCK, dtype),
    )


def _check(
    current: Planes,
    past: Sequence[Reference],
    future: Sequence[Reference],
    standard: Standard,
    qp: NDArray[np.int8] | None,
    bit_depth: int,
    rounding: int,
) -> None:
    if len(past) > PAST or len(future) > FUTURE:
        raise UsageError(
            f"{len(past)} past and {len(future)} future references given; at most {PAST} and {FUTURE} are allowed"
        )
    if not 8 <= bit_depth <= 14:
        raise UsageError(f"bit_depth is {bit_depth}; 8 to 14 are allowed")
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    height, width = current[0].shape
    chroma = {(0, 0)} | {(-(-height // v), -(-width // u)) for v in (1, 2) for u in (1, 2)}
    if height == 0 or width == 0 or current[1].shape != current[2].shape or current[1].shape not in chroma:
        raise UsageError(f"planes of shapes {[plane.shape for plane in current]} do not form a picture")
    shapes = [plane.shape for plane in current]
    if any(plane.dtype != dtype or plane.strides[1:] != (plane.itemsize,) for plane in current):
        raise UsageError(f"planes of {bit_depth} bit samples must be {np.dtype(dtype)} with contiguous rows")
    for one in (*past, *future):
        if list(one.samples.shapes) != shapes or one.samples.dtype != dtype:
            raise UsageError(
                f"a reference of {one.samples.dtype} samples and shapes {list(one.samples.shapes)} does not match a "
                f"picture of {np.dtype(dtype)} and {shapes}"
            )
    if qp is not None:
        if standard != "h264":
            raise UsageError(f"a dead zone (qp) is defined for h264 only, not for {standard}; omit qp")
        if qp.shape != (-(-height // 16), -(-width // 16)):
            raise UsageError(f"qp has shape {qp.shape}; a picture of {height} x {width} needs one value per 16x16")
    if rounding not in (0, 1) or (rounding and standard not in ("mpeg4", "mpeg4_qpel", "h263")):
        raise UsageError(f"rounding is {rounding} for {standard}; allowed are 0, and 1 for mpeg4 and h263")
