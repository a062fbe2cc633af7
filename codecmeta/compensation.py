"""The `motion` residual: decoded samples minus their motion-compensated prediction.

FFmpeg exports vectors but no reference index, weights or sub-8x8 partitions, so for H.264 each block is predicted from
every candidate reference picture and the prediction with the smallest luma error is kept. Blocks without a vector
are intra blocks; they get the residual of `texture`. In MPEG-1/2, MPEG-4 part 2 and H.263 the reference is known, and
the residual of inter blocks is what the stream adds (up to clipping).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.interpolation import average, copy, weigh
from codecmeta.motion import Planes
from codecmeta.prediction import (
    BLOCK,
    H264,
    MPEG2,
    MPEG4_QPEL,
    Standard,
    chroma_component,
    chroma_component_of_four,
    filter_of,
    predict_chroma,
    predict_luma,
    scratch,
)
from codecmeta.texture import Residual, intra_residual

PAST = 4
"""Most candidate reference pictures shown before the current one."""
FUTURE = 2
"""Most candidate reference pictures shown after it."""
EVEN = 32
"""Weight of the second prediction, in 1/64, when both count the same."""
_NO_ERROR_YET = 2**62


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


def quantiser_step(qp: NDArray[np.int64]) -> NDArray[np.float64]:
    """Qstep of H.264: 0.625 at QP 0, doubled every 6 (Rec. ITU-T H.264, 8.5.9, normAdjust over 16)."""
    return np.asarray(np.array([0.625, 0.6875, 0.8125, 0.875, 1.0, 1.125])[qp % 6] * 2.0 ** (qp // 6))


def chroma_quantiser(qp: NDArray[np.int64]) -> NDArray[np.int64]:
    """QP_C for a luma QP and a chroma offset of 0 (Rec. ITU-T H.264, Table 8-15)."""
    above = np.array([29, 30, 31, 32, 32, 33, 34, 34, 35, 35, 36, 36, 37, 37, 37, 38, 38, 38, 39, 39, 39, 39])
    return np.asarray(np.where(qp < 30, qp, above[np.clip(qp - 30, 0, 21)]))


def dead_zone(qp: NDArray[np.int8], *, bit_depth: int = 8) -> NDArray[np.float64]:
    """Sum of squares below which a 4x4 block counts as not coded: 16 (Qstep / 8)².

    Args:
        qp: (h, w) luma quantisers of macroblocks as `motion.quantisers` gives them, which include the 6 steps per
            bit beyond 8.
        bit_depth: bits per sample.

    Returns:
        float64 (2, h, w): limits for luma and for chroma.
    """
    offset = 6 * (bit_depth - 8)
    luma = qp.astype(np.int64)
    chroma = chroma_quantiser(luma - offset) + offset
    return np.stack([quantiser_step(luma), quantiser_step(chroma)]) ** 2 / 4


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
    displacement = np.zeros((2, rows, cols, 2), np.int16)
    inter = np.zeros((rows, cols), np.bool_)
    top = (1 << bit_depth) - 1
    shift_y = int(cb.shape[0] not in (0, height))
    shift_x = int(cb.shape[1] not in (0, width))
    if vectors is not None and len(vectors) and (past or future):
        if code != H264:
            past, future = past[:1], future[:1]
        slots = [reference.planes for reference in (*past, *future)]
        slots += [slots[0]] * (PAST + FUTURE - len(slots))
        weights = np.full((PAST + FUTURE, PAST + FUTURE), EVEN, np.int64)
        for i, before in enumerate(past):
            for j, after in enumerate(future):
                weights[i, len(past) + j] = implicit_weight(before.distance, after.distance)
        _compensate(
            current,
            tuple(tuple(planes[channel] for planes in slots) for channel in range(3)),
            (len(past), len(future)),
            weights,
            np.ascontiguousarray(vectors, np.int16),
            dead_zone(qp, bit_depth=bit_depth) if qp is not None else np.zeros((2, 0, 0)),
            (code, rounding, np.int32(top)),
            (shift_y, shift_x),
            out,
            reference,
            displacement,
            inter,
        )
    for channel, plane in enumerate(current):
        shifts = (shift_y, shift_x) if channel else (0, 0)
        intra_residual(plane, inter, *shifts, top, out[channel])
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


@nb.njit(cache=True, nogil=True)
def _squared_error(plane, area, prediction, bound):  # type: ignore[no-untyped-def]
    """Sum of squared differences over the part of a block inside the picture, or ``bound`` once it is reached."""
    y, x, height, width = area
    total = np.int64(0)
    for row in range(height):
        a = plane[y + row, x : x + width]
        b = prediction[row, :width]
        for col in range(width):
            d = np.int32(np.int32(a[col]) - np.int32(b[col]))
            total += np.int64(np.int32(d * d))
        if total >= bound:
            return bound
    return total


@nb.njit(cache=True, nogil=True)
def _subtract(plane, area, prediction, limit, out):  # type: ignore[no-untyped-def]
    """Residual of a block, its 4x4 blocks below ``limit`` zeroed."""
    y, x, height, width = area
    for row in range(height):
        a = plane[y + row, x : x + width]
        b = prediction[row, :width]
        target = out[y + row, x : x + width]
        for col in range(width):
            target[col] = np.int32(a[col]) - np.int32(b[col])
    if limit <= 0.0:
        return
    for y4 in range(y, y + height, 4):
        for x4 in range(x, x + width, 4):
            block = out[y4 : min(y4 + 4, y + height), x4 : min(x4 + 4, x + width)]
            total = np.int64(0)
            for row in range(block.shape[0]):
                for col in range(block.shape[1]):
                    total += np.int64(block[row, col]) * np.int64(block[row, col])
            if total * 16 < limit * block.size:
                for row in range(block.shape[0]):
                    for col in range(block.shape[1]):
                        block[row, col] = 0


@nb.njit(cache=True, nogil=True)
def _index_blocks(vectors, height, width):  # type: ignore[no-untyped-def]
    """Row of the vector table whose block starts at each 8x8 cell, per list; -1 for none."""
    first = np.full((2, (height + 7) >> 3, (width + 7) >> 3), -1, np.int32)
    for i in range(len(vectors)):
        x, y, w, h = vectors[i, 0], vectors[i, 1], vectors[i, 2], vectors[i, 3]
        if x < 0 or y < 0 or x >= width or y >= height or (x & 7) or (y & 7):
            continue
        if not ((w == 8 or w == 16) and (h == 8 or h == 16)):
            continue
        side = 0 if vectors[i, 6] < 0 else 1
        if first[side, y >> 3, x >> 3] < 0:
            first[side, y >> 3, x >> 3] = i
    return first


@nb.njit(cache=True, nogil=True)
def _chroma_vector(vectors, index, first, side, shift_y, shift_x, code):  # type: ignore[no-untyped-def]
    """dy, dx in eighths for the chroma of a block, and whether it speaks for its whole macroblock."""
    dx = np.int64(vectors[index, 4])
    dy = np.int64(vectors[index, 5])
    if code == H264 or code == MPEG2 or vectors[index, 2] != 8 or vectors[index, 3] != 8:
        return chroma_component(dy, shift_y, code), chroma_component(dx, shift_x, code), False
    row = (vectors[index, 1] >> 4) << 1
    col = (vectors[index, 0] >> 4) << 1
    total_x = 0
    total_y = 0
    for k in range(4):
        r = min(row + (k >> 1), first.shape[1] - 1)
        c = min(col + (k & 1), first.shape[2] - 1)
        i = first[side, r, c]
        if i < 0:
            i = index
        for component in range(2):
            d = np.int64(vectors[i, 4 + component])
            half = (d + 1 if d < 0 else d) >> 1 if code == MPEG4_QPEL else d >> 1
            if component == 0:
                total_x += half
            else:
                total_y += half
    return chroma_component_of_four(total_y), chroma_component_of_four(total_x), True


@nb.njit(cache=True, nogil=True)
def _choose_one(luma, slots, begin, end, block, area, vector, limit, rule, predictions, kept, work):  # type: ignore[no-untyped-def]
    """Best single reference of a block; its prediction is left in ``kept``."""
    y, x, h, w = block
    code, rounding, top = rule
    best = _NO_ERROR_YET
    chosen = -1
    for slot in range(begin, end):
        predict_luma(slots[slot], y, x, h, w, vector[1], vector[0], code, rounding, top, predictions[0], work)
        error = _squared_error(luma, area, predictions[0], best)
        if error < best:
            best = error
            chosen = slot
            copy(predictions[0], 0, 0, h, w, kept)
            if best == 0 or best < limit:
                break
    return chosen


@nb.njit(cache=True, nogil=True)
def _choose_two(  # type: ignore[no-untyped-def]
    luma, slots, spans, weights, block, area, vector0, vector1, limit, rule, predictions, kept, work
):
    """Best pair of references of a block that has a vector in both lists.

    A partition of a macroblock that mixes lists carries a zero vector for a list that it does not use, so
    next to a zero vector the other prediction alone is a candidate too.
    """
    y, x, h, w = block
    code, rounding, top = rule
    begin0, end0, begin1, end1 = spans
    mixes = code == H264 and (w < 16 or h < 16)
    alone0 = mixes and vector1[0] == 0 and vector1[1] == 0
    alone1 = mixes and vector0[0] == 0 and vector0[1] == 0
    mixed = predictions[PAST + FUTURE]
    ahead = predictions[PAST + FUTURE + 1]
    best = _NO_ERROR_YET
    slot0 = -1
    slot1 = -1
    weight = EVEN
    for b in range(begin1, end1):
        predict_luma(slots[b], y, x, h, w, vector1[1], vector1[0], code, rounding, top, ahead, work)
        if alone1:
            error = _squared_error(luma, area, ahead, best)
            if error < best:
                best, slot0, slot1, weight = error, -1, b, EVEN
                copy(ahead, 0, 0, h, w, kept)
        for a in range(begin0, end0):
            if best == 0 or best < limit:
                return slot0, slot1, weight
            if b == begin1:
                back = predictions[a]
                predict_luma(slots[a], y, x, h, w, vector0[1], vector0[0], code, rounding, top, back, work)
                if alone0:
                    error = _squared_error(luma, area, back, best)
                    if error < best:
                        best, slot0, slot1, weight = error, a, -1, EVEN
                        copy(back, 0, 0, h, w, kept)
            average(predictions[a], ahead, h, w, mixed)
            error = _squared_error(luma, area, mixed, best)
            if error < best:
                best, slot0, slot1, weight = error, a, b, EVEN
                copy(mixed, 0, 0, h, w, kept)
            if code == H264 and weights[a, b] != EVEN:
                weigh(predictions[a], ahead, weights[a, b], h, w, top, mixed)
                error = _squared_error(luma, area, mixed, best)
                if error < best:
                    best, slot0, slot1, weight = error, a, b, weights[a, b]
                    copy(mixed, 0, 0, h, w, kept)
    return slot0, slot1, weight


@nb.njit(cache=True, nogil=True)
def _subtract_chroma(  # type: ignore[no-untyped-def]
    plane, slots, block, slot0, slot1, chroma0, chroma1, weight, shifts, limit, rule, predictions, out, work
):
    """Residual of one chroma plane of a block; ``block`` in luma samples, vectors in eighths."""
    code, rounding, top = rule
    y, x, h, w = block[0] >> shifts[0], block[1] >> shifts[1], block[2] >> shifts[0], block[3] >> shifts[1]
    rows = min(h, plane.shape[0] - y)
    cols = min(w, plane.shape[1] - x)
    kept = predictions[0]
    for side in range(2):
        slot = slot0 if side == 0 else slot1
        vector = chroma0 if side == 0 else chroma1
        if slot < 0:
            continue
        target = predictions[1] if side == 1 and slot0 >= 0 else kept
        if code == H264 and shifts[0] == 0 and shifts[1] == 0:
            # chroma of 4:4:4 is interpolated like luma (8.4.2.2)
            predict_luma(slots[slot], y, x, h, w, vector[0] >> 1, vector[1] >> 1, code, rounding, top, target, work)
        else:
            predict_chroma(slots[slot], y, x, h, w, vector[0], vector[1], code, rounding, target, work)
    if slot0 >= 0 and slot1 >= 0:
        if weight == EVEN:
            average(kept, predictions[1], h, w, kept)
        else:
            weigh(kept, predictions[1], weight, h, w, top, kept)
    _subtract(plane, (y, x, rows, cols), kept, limit, out)


@nb.njit(cache=True, nogil=True)
def _compensate(  # type: ignore[no-untyped-def]
    current, slots, counts, weights, vectors, limits, rule, shifts, out, reference, displacement, inter
):
    luma, cb, cr = current
    luma_slots, cb_slots, cr_slots = slots
    past, future = counts
    code = rule[0]
    height, width = luma.shape
    first = _index_blocks(vectors, height, width)
    work = scratch(luma)
    predictions = np.empty((PAST + FUTURE + 2, BLOCK, BLOCK), luma.dtype)
    kept = np.empty((BLOCK, BLOCK), luma.dtype)
    # list 0 looks back and list 1 ahead, unless there is nothing on that side
    span0 = (0, past) if past else (0, future)
    span1 = (past, past + future) if future else (0, past)
    for index in range(len(vectors)):
        x, y = np.int64(vectors[index, 0]), np.int64(vectors[index, 1])
        side = 0 if vectors[index, 6] < 0 else 1
        if x < 0 or y < 0 or x >= width or y >= height or first[side, y >> 3, x >> 3] != index:
            continue
        i0 = first[0, y >> 3, x >> 3]
        i1 = first[1, y >> 3, x >> 3]
        if i0 >= 0 and i1 >= 0:
            if side == 1:
                continue
            if vectors[i0, 2] != vectors[i1, 2] or vectors[i0, 3] != vectors[i1, 3]:
                i1 = np.int32(-1)
        h, w = np.int64(vectors[index, 3]), np.int64(vectors[index, 2])
        block = (y, x, h, w)
        area = (y, x, min(h, height - y), min(w, width - x))
        limit = chroma_limit = 0.0
        if limits.shape[1]:
            limit, chroma_limit = limits[0, y >> 4, x >> 4], limits[1, y >> 4, x >> 4]
        slot0 = slot1 = -1
        weight = EVEN
        vector0 = (np.int64(vectors[i0, 4]), np.int64(vectors[i0, 5]))
        vector1 = (np.int64(vectors[i1, 4]), np.int64(vectors[i1, 5]))
        if i0 >= 0 and i1 >= 0:
            slot0, slot1, weight = _choose_two(
                luma,
                luma_slots,
                (span0[0], span0[1], span1[0], span1[1]),
                weights,
                block,
                area,
                vector0,
                vector1,
                limit,
                rule,
                predictions,
                kept,
                work,
            )
        elif i0 >= 0:
            slot0 = _choose_one(
                luma, luma_slots, span0[0], span0[1], block, area, vector0, limit, rule, predictions, kept, work
            )
        else:
            slot1 = _choose_one(
                luma, luma_slots, span1[0], span1[1], block, area, vector1, limit, rule, predictions, kept, work
            )
        _subtract(luma, area, kept, limit, out[0])
        for row in range(y >> 2, (y + area[2] + 3) >> 2):
            for col in range(x >> 2, (x + area[3] + 3) >> 2):
                inter[row, col] = True
                reference[0, row, col] = slot0
                reference[1, row, col] = slot1
                if slot0 >= 0:
                    displacement[0, row, col, 0], displacement[0, row, col, 1] = vector0
                if slot1 >= 0:
                    displacement[1, row, col, 0], displacement[1, row, col, 1] = vector1
        if cb.size == 0:
            continue
        chroma0 = chroma1 = (np.int64(0), np.int64(0))
        whole = False
        if slot0 >= 0:
            dy, dx, whole = _chroma_vector(vectors, i0, first, 0, shifts[0], shifts[1], code)
            chroma0 = (dy, dx)
        if slot1 >= 0:
            dy, dx, whole = _chroma_vector(vectors, i1, first, 1, shifts[0], shifts[1], code)
            chroma1 = (dy, dx)
        if whole:
            if (x & 8) or (y & 8):
                continue
            block = (y, x, 16, 16)
        for part in range(2):
            _subtract_chroma(
                cb if part == 0 else cr,
                cb_slots if part == 0 else cr_slots,
                block,
                slot0,
                slot1,
                chroma0,
                chroma1,
                weight,
                shifts,
                chroma_limit,
                rule,
                predictions,
                out[1 + part],
                work,
            )
