"""Intra prediction of 4x4 blocks by the best of four modes, a whole block at a time where it has all neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from codecmeta.simd.numba_cache import kernel
from codecmeta.simd.vector_ir import I32, I64, Lanes, clamp, join, reduce, shuffle, spread

_SIDE = 4
_WIDE = ir.VectorType(I32, _SIDE * _SIDE)


@intrinsic
def subtract_best_of_four(
    typingctx: Any, plane: Any, at: Any, row: Any, out: Any, o: Any, out_row: Any, top: Any
) -> Any:
    """Return the residual of a 4x4 block that has neighbours above and left.

    (samples, index, row length, out, index, row length, largest sample): subtracts the prediction with the smallest sum
    of squared differences: mean, column above, row left or gradient; among equal ones the first.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (Lanes(context, builder, signature.args[k], args[k], _SIDE) for k in (0, 3))
        line = ir.VectorType(I32, _SIDE)
        rows = [builder.zext(source.load(args[1], args[2], k), line) for k in range(_SIDE)]
        values = join(builder, join(builder, rows[0], rows[1]), join(builder, rows[2], rows[3]))
        above = builder.zext(source.load(args[1], args[2], -1), line)
        above = shuffle(builder, above, list(range(_SIDE)) * _SIDE)
        before = builder.sub(args[1], ir.Constant(I64, 1))
        # the first lane of a row that begins one sample earlier
        sides = [builder.zext(source.load(before, args[2], k), line) for k in range(-1, _SIDE)]
        corner, *lefts = (shuffle(builder, side, [0] * _SIDE) for side in sides)
        left = join(builder, join(builder, lefts[0], lefts[1]), join(builder, lefts[2], lefts[3]))
        # the lanes hold each of the eight neighbours four times
        total = reduce(builder, "add", builder.add(above, left))
        mean = builder.lshr(builder.add(total, ir.Constant(I32, 16)), ir.Constant(I32, 5))
        corners = shuffle(builder, corner, [0] * _SIDE * _SIDE)
        gradient = builder.sub(builder.add(above, left), corners)
        predictions = [
            spread(builder, mean, _WIDE),
            above,
            left,
            clamp(builder, gradient, spread(builder, args[6], _WIDE)),
        ]
        best = cost = None
        for prediction in predictions:
            difference = builder.sub(values, prediction)
            squares = builder.mul(difference, difference)
            if signature.args[0].dtype.bitwidth > 8:
                squares = builder.zext(squares, ir.VectorType(I64, _WIDE.count))
            error = reduce(builder, "add", squares)
            if best is None:
                best, cost = difference, error
            else:
                better = builder.icmp_unsigned("<", error, cost)
                best, cost = builder.select(better, difference, best), builder.select(better, error, cost)
        for k in range(_SIDE):
            part = shuffle(builder, best, list(range(k * _SIDE, (k + 1) * _SIDE)))
            target.store(builder.trunc(part, target.vector), args[4], args[5], k)
        return context.get_dummy_value()

    place = types.int64
    return types.void(plane, place, place, out, place, place, place), codegen


OWN_MEAN = -1
"""Value of ``grey`` at which `intra_residual` predicts a block without neighbours by its own mean."""


@kernel()
def intra_residual(
    plane: NDArray[Any],
    covered: NDArray[np.bool_],
    shift_y: int,
    shift_x: int,
    top: int,
    grey: int,
    out: NDArray[np.int16],
) -> None:
    """Fill ``out`` with the residual of every 4x4 block of a plane except those that are covered.

    Each row of ``plane`` is contiguous, the rows may not be; ``out`` is contiguous. ``covered`` marks 8x8 luma blocks
    that have an inter prediction; an empty array covers nothing. ``shift_y``, ``shift_x`` are the plane's subsampling.
    ``grey`` predicts the block that has no neighbours; below 0, its mean does.
    """
    height, width = plane.shape
    room = (np.empty(4, np.int32), np.empty(4, np.int32), np.empty((4, 4), np.int32))
    some = covered.size > 0
    stride = plane.strides[0] // plane.itemsize
    for y in range(0, height, 4):
        rows = min(4, height - y)
        for x in range(0, width, 4):
            if some and covered[(y << shift_y) >> 3, (x << shift_x) >> 3]:
                continue
            cols = min(4, width - x)
            if y and x and rows == 4 and cols == 4:
                subtract_best_of_four(plane, y * stride + x, stride, out, y * width + x, width, top)
            else:
                _block_residual(plane, (y, x, rows, cols), top, grey, room, out)


@kernel()
def _block_residual(
    plane: NDArray[Any],
    area: tuple[int, int, int, int],
    top: int,
    grey: int,
    room: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
    out: NDArray[np.int16],
) -> None:
    """Compute the residual of any block; ``area`` is its y, x, rows and columns."""
    y, x, rows, cols = area
    above, left, block = room
    total = np.int32(0)
    known = np.int32(0)
    if y > 0:
        for col in range(cols):
            above[col] = plane[y - 1, x + col]
            total += above[col]
        known += np.int32(cols)
    if x > 0:
        for row in range(rows):
            left[row] = plane[y + row, x - 1]
            total += left[row]
        known += np.int32(rows)
    if known == 0 and grey >= 0:
        total = np.int32(grey)
        known = np.int32(1)
    elif known == 0:
        for row in range(rows):
            for col in range(cols):
                total += np.int32(plane[y + row, x + col])
        known = np.int32(rows * cols)
    dc = np.int32((total + (known >> 1)) // known)
    corner = np.int32(plane[y - 1, x - 1]) if y > 0 and x > 0 else np.int32(0)
    cost_dc = np.int64(0)
    cost_v = np.int64(0)
    cost_h = np.int64(0)
    cost_g = np.int64(0)
    for row in range(rows):
        for col in range(cols):
            value = np.int32(plane[y + row, x + col])
            block[row, col] = value
            d = np.int64(value - dc)
            cost_dc += d * d
            if y > 0:
                d = np.int64(value - above[col])
                cost_v += d * d
            if x > 0:
                d = np.int64(value - left[row])
                cost_h += d * d
                if y > 0:
                    d = np.int64(value - min(max(above[col] + left[row] - corner, 0), top))
                    cost_g += d * d
    mode = 0
    best = cost_dc
    if y > 0 and cost_v < best:
        mode, best = 1, cost_v
    if x > 0 and cost_h < best:
        mode, best = 2, cost_h
    if y > 0 and x > 0 and cost_g < best:
        mode = 3
    for row in range(rows):
        for col in range(cols):
            if mode == 0:
                p = dc
            elif mode == 1:
                p = above[col]
            elif mode == 2:
                p = left[row]
            else:
                p = min(max(above[col] + left[row] - corner, np.int32(0)), np.int32(top))
            out[y + row, x + col] = block[row, col] - p
