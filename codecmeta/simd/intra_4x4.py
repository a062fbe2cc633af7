"""Intra prediction of a whole 4x4 block at a time, in the manner of `strips`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from codecmeta.simd.vector_ir import Lanes, clamp, shuffle, spread

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_SIDE = 4
_WIDE = ir.VectorType(_I32, _SIDE * _SIDE)


def _join(builder: Any, first: Any, second: Any) -> Any:
    lanes = list(range(2 * first.type.count))
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


def _sum(builder: Any, vector: Any) -> Any:
    """Sum of the lanes, by halves."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        low, high = (shuffle(builder, vector, list(range(start, start + half))) for start in (0, half))
        vector = builder.add(low, high)
    return builder.extract_element(vector, ir.Constant(_I32, 0))


@intrinsic
def subtract_best_of_four(typingctx, plane, at, row, out, o, out_row, top):  # type: ignore[no-untyped-def]
    """Residual of a 4x4 block that has neighbours above and left.

    (samples, index, row length, out, index, row length, largest sample): the prediction by mean, column above, row
    left or gradient with the smallest sum of squared differences is subtracted; of equal ones the first.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target = (Lanes(context, builder, signature.args[k], args[k], _SIDE) for k in (0, 3))
        line = ir.VectorType(_I32, _SIDE)
        rows = [builder.zext(source.load(args[1], args[2], k), line) for k in range(_SIDE)]
        values = _join(builder, _join(builder, rows[0], rows[1]), _join(builder, rows[2], rows[3]))
        above = builder.zext(source.load(args[1], args[2], -1), line)
        above = shuffle(builder, above, list(range(_SIDE)) * _SIDE)
        before = builder.sub(args[1], ir.Constant(_I64, 1))
        # the first lane of a row that begins one sample earlier
        sides = [builder.zext(source.load(before, args[2], k), line) for k in range(-1, _SIDE)]
        corner, *lefts = (shuffle(builder, side, [0] * _SIDE) for side in sides)
        left = _join(builder, _join(builder, lefts[0], lefts[1]), _join(builder, lefts[2], lefts[3]))
        # each of the eight neighbours is there four times
        total = _sum(builder, builder.add(above, left))
        mean = builder.lshr(builder.add(total, ir.Constant(_I32, 16)), ir.Constant(_I32, 5))
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
                squares = builder.zext(squares, ir.VectorType(_I64, _WIDE.count))
            error = _sum(builder, squares)
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
