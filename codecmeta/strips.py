"""Four rows of a block at a time: vector code that the compiler does not find by itself.

Every function takes flat arrays, the index of the first sample and the length of a row, and trusts that what it names
lies inside. It exists for blocks of 16, 8 and 4 columns and for the sample types uint8 and uint16 (up to 14 bits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

ROWS = 4
"""Rows of a strip."""

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def splat(kind: Any, value: int) -> Any:
    """A constant in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def shuffle(builder: Any, vector: Any, lanes: list[int]) -> Any:
    """The named lanes in their order."""
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


def _sum(builder: Any, vector: Any) -> Any:
    element = vector.type.element
    kind = ir.FunctionType(element, [vector.type])
    name = f"llvm.vector.reduce.add.v{vector.type.count}i{element.width}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [vector])


class Lanes:
    """An array argument, read and written in rows of ``count`` samples."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any, count: int) -> None:
        self._builder = builder
        self._data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
        self._size = kind.dtype.bitwidth // 8
        self.vector = ir.VectorType(ir.IntType(kind.dtype.bitwidth), count)

    def _address(self, start: Any, stride: Any, row: int) -> Any:
        builder = self._builder
        place = builder.add(start, builder.mul(stride, ir.Constant(_I64, row)))
        return builder.bitcast(builder.gep(self._data, [place]), self.vector.as_pointer())

    def load(self, start: Any, stride: Any, row: int) -> Any:
        """The samples ``row`` rows after index ``start``."""
        return self._builder.load(self._address(start, stride, row), align=self._size)

    def store(self, value: Any, start: Any, stride: Any, row: int) -> None:
        """Write a row of samples."""
        self._builder.store(value, self._address(start, stride, row), align=self._size)


def _average(builder: Any, first: Any, second: Any) -> Any:
    """``(first + second + 1) >> 1`` (8-250, 8-273)."""
    wide = ir.VectorType(ir.IntType(2 * first.type.element.width), first.type.count)
    total = builder.add(builder.zext(first, wide), builder.zext(second, wide))
    return builder.trunc(builder.lshr(builder.add(total, splat(wide, 1)), splat(wide, 1)), first.type)


def spread(builder: Any, value: Any, vector: Any) -> Any:
    """An int64 in every lane."""
    element = builder.trunc(value, vector.element) if value.type != vector.element else value
    seed = builder.insert_element(ir.Constant(vector, ir.Undefined), element, ir.Constant(_I32, 0))
    return shuffle(builder, seed, [0] * vector.count)


def clamp(builder: Any, value: Any, top: Any) -> Any:
    """Between 0 and ``top``, lane by lane."""
    zero = splat(value.type, 0)
    value = builder.select(builder.icmp_signed("<", value, zero), zero, value)
    return builder.select(builder.icmp_signed(">", value, top), top, value)


def _weigh(builder: Any, first: Any, second: Any, weight: Any, top: Any) -> Any:
    """``((64 - weight) first + weight second + 32) >> 6`` between 0 and ``top`` (8-299)."""
    wide = ir.VectorType(_I32, first.type.count)
    other = builder.sub(ir.Constant(_I64, 64), weight)
    a = builder.mul(spread(builder, other, wide), builder.zext(first, wide))
    b = builder.mul(spread(builder, weight, wide), builder.zext(second, wide))
    value = builder.ashr(builder.add(builder.add(a, b), splat(wide, 32)), splat(wide, 6))
    return builder.trunc(clamp(builder, value, spread(builder, top, wide)), first.type)


def _difference(builder: Any, current: Any, prediction: Any) -> Any:
    narrow = ir.VectorType(_I16, current.type.count)
    wide = [value if value.type == narrow else builder.zext(value, narrow) for value in (current, prediction)]
    return builder.sub(*wide)


def _squares(builder: Any, difference: Any) -> Any:
    """Sums of the squares of neighbouring lanes, half as many lanes of 32 bits."""
    count = difference.type.count
    wide = ir.VectorType(_I32, count // 2)
    even, odd = (builder.sext(shuffle(builder, difference, list(range(first, count, 2))), wide) for first in (0, 1))
    return builder.add(builder.mul(even, even), builder.mul(odd, odd))


def _error_of(count: int, combine: Callable[..., Any], parameters: int) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        current, first, second = (Lanes(context, builder, kinds[i], args[i], count) for i in (0, 3, 5))
        total: Any = None
        for row in range(ROWS):
            a = first.load(args[4], args[7], row)
            b = second.load(args[6], args[7], row)
            prediction = combine(builder, a, b, *args[8 : 8 + parameters])
            squares = _squares(builder, _difference(builder, current.load(args[1], args[2], row), prediction))
            total = squares if total is None else builder.add(total, squares)
        # eight squares of 14 bits fit an unsigned lane of 32
        return _sum(builder, builder.zext(total, ir.VectorType(_I64, count // 2)))

    return codegen


def _average_error(count: int) -> Any:
    @intrinsic
    def average_error(typingctx, current, at, stride, first, i, second, j, row):  # type: ignore[no-untyped-def]
        place = types.int64
        return types.int64(current, place, place, first, place, second, place, place), _error_of(count, _average, 0)

    return average_error


def _weighted_error(count: int) -> Any:
    @intrinsic
    def weighted_error(typingctx, current, at, stride, first, i, second, j, row, weight, top):  # type: ignore[no-untyped-def]
        place = types.int64
        kind = types.int64(current, place, place, first, place, second, place, place, place, place)
        return kind, _error_of(count, _weigh, 2)

    return weighted_error


average_error_16, average_error_8 = _average_error(16), _average_error(8)
"""(current, index, row length, first, index, second, index, row length of both): sum of squared differences between
the samples and the mean of two predictions."""

weighted_error_16, weighted_error_8 = _weighted_error(16), _weighted_error(8)
"""The same, followed by the weight of the second prediction in 1/64 and the largest sample value."""


def _put_average(count: int) -> Any:
    @intrinsic
    def put_average(typingctx, first, i, second, j, row, out, o, out_row):  # type: ignore[no-untyped-def]
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, b, target = (Lanes(context, builder, signature.args[k], args[k], count) for k in (0, 2, 5))
            for line in range(ROWS):
                value = _average(builder, a.load(args[1], args[4], line), b.load(args[3], args[4], line))
                target.store(value, args[6], args[7], line)
            return context.get_dummy_value()

        place = types.int64
        return types.void(first, place, second, place, place, out, place, place), codegen

    return put_average


put_average_16, put_average_8 = _put_average(16), _put_average(8)
"""(first, index, second, index, row length of both, out, index, row length): mean of two predictions."""


def _put_bilinear(count: int) -> Any:
    @intrinsic
    def put_bilinear(typingctx, samples, at, stride, fy, fx, out, o, out_row):  # type: ignore[no-untyped-def]
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source, target = (Lanes(context, builder, signature.args[k], args[k], count) for k in (0, 5))
            wide = ir.VectorType(ir.IntType(2 * signature.args[0].dtype.bitwidth), count)
            eight, one = ir.Constant(_I64, 8), ir.Constant(_I64, 1)
            down, across = spread(builder, args[3], wide), spread(builder, args[4], wide)
            up, back = (spread(builder, builder.sub(eight, args[k]), wide) for k in (3, 4))
            lines = []
            for row in range(ROWS + 1):
                left = builder.zext(source.load(args[1], args[2], row), wide)
                right = builder.zext(source.load(builder.add(args[1], one), args[2], row), wide)
                lines.append(builder.add(builder.mul(back, left), builder.mul(across, right)))
            for row in range(ROWS):
                total = builder.add(builder.mul(up, lines[row]), builder.mul(down, lines[row + 1]))
                value = builder.lshr(builder.add(total, splat(wide, 32)), splat(wide, 6))
                target.store(builder.trunc(value, target.vector), args[6], args[7], row)
            return context.get_dummy_value()

        place = types.int64
        return types.void(samples, place, place, place, place, out, place, place), codegen

    return put_bilinear


put_bilinear_16, put_bilinear_8, put_bilinear_4 = _put_bilinear(16), _put_bilinear(8), _put_bilinear(4)
"""(samples, index, row length, fy, fx in eighths, out, index, row length): bilinear interpolation (8-270). One row and
one column more are read than written."""


def _put_mean_of_four(count: int) -> Any:
    @intrinsic
    def put_mean_of_four(typingctx, samples, at, stride, down, across, bias, out, o, out_row):  # type: ignore[no-untyped-def]
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source, target = (Lanes(context, builder, signature.args[k], args[k], count) for k in (0, 6))
            wide = ir.VectorType(ir.IntType(2 * signature.args[0].dtype.bitwidth), count)
            right, below = builder.add(args[1], args[4]), builder.add(args[1], args[3])
            corners = (args[1], right, below, builder.add(below, args[4]))
            bias = spread(builder, args[5], wide)
            for row in range(ROWS):
                total = bias
                for corner in corners:
                    total = builder.add(total, builder.zext(source.load(corner, args[2], row), wide))
                target.store(builder.trunc(builder.lshr(total, splat(wide, 2)), target.vector), args[7], args[8], row)
            return context.get_dummy_value()

        place = types.int64
        return types.void(samples, place, place, place, place, place, out, place, place), codegen

    return put_mean_of_four


put_mean_of_four_16, put_mean_of_four_8, put_mean_of_four_4 = (_put_mean_of_four(count) for count in (16, 8, 4))
"""(samples, index, row length, steps down and across, bias, out, index, row length): a quarter of the sum of four
samples and the bias."""


def _subtract(count: int) -> Any:
    @intrinsic
    def subtract(typingctx, current, at, stride, prediction, p, row, out, o, out_row, limit):  # type: ignore[no-untyped-def]
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            samples, predicted, target = (Lanes(context, builder, signature.args[k], args[k], count) for k in (0, 3, 6))
            lines = [
                _difference(builder, samples.load(args[1], args[2], row), predicted.load(args[4], args[5], row))
                for row in range(ROWS)
            ]
            wide = ir.VectorType(_I32, count)
            total = splat(wide, 0)
            for line in lines:
                value = builder.sext(line, wide)
                total = builder.add(total, builder.mul(value, value))
            for step in (1, 2):
                total = builder.add(total, shuffle(builder, total, [lane ^ step for lane in range(count)]))
            kept = builder.icmp_unsigned(">=", total, spread(builder, args[9], wide))
            nothing = splat(lines[0].type, 0)
            for row, line in enumerate(lines):
                target.store(builder.select(kept, line, nothing), args[7], args[8], row)
            return context.get_dummy_value()

        place = types.int64
        return types.void(current, place, place, prediction, place, place, out, place, place, place), codegen

    return subtract


subtract_16, subtract_8, subtract_4 = _subtract(16), _subtract(8), _subtract(4)
"""(current, index, row length, prediction, index, row length, out, index, row length, limit): differences as int16;
those of a 4x4 block whose sum of squares is below the limit (at most 32 bits) are 0."""
