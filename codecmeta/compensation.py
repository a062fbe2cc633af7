"""The `motion` residual: decoded samples minus their motion-compensated prediction.

FFmpeg exports vectors but no reference index, weights or sub-8x8 partitions, so for H.264 each block is predicted from
every candidate reference picture and the prediction with the smallest luma error is kept. Blocks without a vector
are intra blocks; they get the residual of `texture`. In MPEG-1/2, MPEG-4 part 2 and H.263 the reference is known, and
the residual of inter blocks is what the stream adds (up to clipping).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.interpolation import BLOCK
from codecmeta.motion import Planes
from codecmeta.prediction import H264, Standard, filter_of, scratch
from codecmeta.quantiser import dead_zone
from codecmeta.selection import EVEN, FUTURE, PAST, PREDICTIONS, compensate
from codecmeta.texture import Residual, intra_residual


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A decoded reference picture.

    Attributes:
        planes: its Y, Cb, Cr samples, as `motion.planes` gives them.
        distance: pictures between its display and that of the current picture, plus one; 1 is a neighbour.
            Implicit weights of H.264 follow from it.
    """

    planes: Planes
    distance: int = 1


@dataclass(frozen=True, kw_only=True)
class MotionField:
    """Where the cells of a picture are predicted from; 4x4 luma cells, h4 = ⌈H/4⌉ rows, w4 = ⌈W/4⌉ columns.

    Attributes:
        reference: int8 (2, h4, w4), per list the index into past + future references, -1 for none; -1 in both lists
            is an intra block.
        displacement: int16 (2, h4, w4, 2), dx and dy in quarter luma samples.
    """

    reference: NDArray[np.int8]
    displacement: NDArray[np.int16]

    @property
    def inter(self) -> NDArray[np.bool_]:
        """Bool (h4, w4): cells with a prediction from another picture."""
        return np.asarray((self.reference >= 0).any(axis=0))


@dataclass(frozen=True, kw_only=True)
class MotionResidual:
    """Residual of one picture from motion compensation.

    Attributes:
        planes: int16 Y, Cb, Cr: decoded minus predicted samples in inter blocks, intra proxy elsewhere.
        field: the vectors and references that were used.
    """

    planes: Residual
    field: MotionField


def implicit_weight(before: int, after: int) -> int:
    """Weight of the list 1 prediction in 1/64 for references ``before`` and ``after`` pictures away.

    Rec. ITU-T H.264, 8.4.1.2.3 (DistScaleFactor) and 8.4.2.3.1, with two order counts per picture.
    """
    tb = min(max(2 * before, -128), 127)
    td = min(max(2 * (before + after), -128), 127)
    if td == 0:
        return EVEN
    tx = int((16384 + abs(td) // 2) / td)
    scale = min(max((tb * tx + 32) >> 6, -1024), 1023) >> 2
    return scale if -64 <= scale <= 128 else EVEN


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
) -> MotionResidual:
    """Decoded samples minus motion-compensated prediction.

    Args:
        current: Y, Cb, Cr of the picture, at its coded size where the decoder gives it (`apply_cropping=0`).
        vectors: (n, 7) int16 as `motion.vectors` gives them, or None for an intra picture. Blocks that are not 8 or
            16 samples wide and high, not on the 8x8 grid or outside the picture are left out.
        past: candidate references shown before the picture, nearest first, at most `PAST`. Only the nearest is used
            unless the standard is H.264.
        future: candidate references shown after it, nearest first, at most `FUTURE`, likewise.
        standard: whose interpolation applies.
        qp: (⌈H/16⌉, ⌈W/16⌉) quantisers; H.264 only: a 4x4 block whose mean square is below (Qstep/8)² is zeroed,
            because what is left there is mostly the loop filter. None switches the dead zone off.
        bit_depth: 8 to 14.
        rounding: vop_rounding_type of a P picture of MPEG-4 (RTYPE of H.263), 0 elsewhere.

    Raises:
        UsageError: planes do not fit together, too many references, or an option that the standard does not have.
    """
    code = filter_of(standard)
    _check(current, past, future, standard, qp, bit_depth, rounding)
    luma, cb, cr = current
    height, width = luma.shape
    rows, cols = -(-height // 4), -(-width // 4)
    out = (np.zeros(luma.shape, np.int16), np.zeros(cb.shape, np.int16), np.zeros(cr.shape, np.int16))
    reference = np.full((2, rows, cols), -1, np.int8)
    displacement = np.zeros((2, rows, cols, 2), np.dtype("<i2"))
    inter = np.zeros((rows, cols), np.bool_)
    top = (1 << bit_depth) - 1
    shift_y = int(cb.shape[0] not in (0, height))
    shift_x = int(cb.shape[1] not in (0, width))
    if vectors is not None and len(vectors) and (past or future):
        if code != H264:
            past, future = past[:1], future[:1]
        slots = [reference.planes for reference in (*past, *future)]
        weights = np.full((PAST + FUTURE, PAST + FUTURE), EVEN, np.int64)
        for i, before in enumerate(past):
            for j, after in enumerate(future):
                weights[i, len(past) + j] = implicit_weight(before.distance, after.distance)
        compensate(
            tuple(plane.ravel() for plane in current),
            (luma.shape, cb.shape),
            np.array([[planes[channel].ctypes.data for planes in slots] for channel in range(3)], np.uintp),
            (len(past), len(future)),
            weights,
            np.ascontiguousarray(vectors, np.int16),
            dead_zone(qp, bit_depth=bit_depth) if qp is not None else np.zeros((2, 0, 0)),
            (code, rounding, np.int32(top), BLOCK),
            (shift_y, shift_x),
            (*scratch(luma.dtype), np.empty(PREDICTIONS * BLOCK * BLOCK, luma.dtype)),
            tuple(plane.reshape(-1) for plane in out),
            reference,
            displacement.view(np.dtype("<i4"))[..., 0],
            inter,
        )
    for channel, plane in enumerate(current):
        shifts = (shift_y, shift_x) if channel else (0, 0)
        intra_residual(plane, inter, *shifts, top, (top + 1) >> 1, out[channel])
    return MotionResidual(planes=out, field=MotionField(reference=reference, displacement=displacement))


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
            f"{len(past)} past and {len(future)} future references given, at most {PAST} and {FUTURE} are allowed"
        )
    if not 8 <= bit_depth <= 14:
        raise UsageError(f"bit_depth must be 8 to 14, got {bit_depth}")
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    height, width = current[0].shape
    chroma = {(0, 0)} | {(-(-height // v), -(-width // u)) for v in (1, 2) for u in (1, 2)}
    if height == 0 or width == 0 or current[1].shape != current[2].shape or current[1].shape not in chroma:
        raise UsageError(f"planes of shapes {[plane.shape for plane in current]} do not form a picture")
    shapes = [plane.shape for plane in current]
    for planes in (current, *(reference.planes for reference in (*past, *future))):
        if any(plane.dtype != dtype or not plane.flags.c_contiguous for plane in planes):
            raise UsageError(f"planes of {bit_depth} bit samples must be C-contiguous {np.dtype(dtype)}")
        if [plane.shape for plane in planes] != shapes:
            raise UsageError(
                f"a reference of shapes {[plane.shape for plane in planes]} does not go with a picture of {shapes}"
            )
    if qp is not None:
        if standard != "h264":
            raise UsageError(f"a dead zone (qp) is defined for h264 only, not for {standard}: leave qp out")
        if qp.shape != (-(-height // 16), -(-width // 16)):
            raise UsageError(f"qp has shape {qp.shape}, a picture of {height} x {width} needs one value per 16x16")
    if rounding not in (0, 1) or (rounding and standard not in ("mpeg4", "mpeg4_qpel", "h263")):
        raise UsageError(f"rounding must be 0, or 1 for mpeg4 and h263; got {rounding} for {standard}")
