"""Block rows, four at a time: their prediction, and how far the samples are from it.

Memory is referred to by addresses (int64), rows are ``stride`` samples apart, and the caller guarantees that all
addresses are valid. ``kind`` is any number of the sample type, uint8 or uint16 (up to 14 bits).

A prediction is read from ``points``, four row addresses that are equally far apart: the mean of the first two is one
prediction, the mean of the last two the other. Whole-sample positions are given twice, a single prediction is given as
both. ``weights`` are (w0, w1, shift, offset, largest sample value) of weighted prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic

from codecmeta.simd.vector_ir import I16, I32, I64, ROWS, Rows, clamp, reduce, shuffle, splat, spread

BLOCK = 16
"""Largest side of a block, and the row length of blocks in a buffer of their own."""

_PLACE = types.int64
_PAIR, _POINTS, _WEIGHTS = UniTuple(_PLACE, 2), UniTuple(_PLACE, 4), UniTuple(_PLACE, 5)


def _average(builder: Any, first: Any, second: Any) -> Any:
    """Average ``(first + second + 1) >> 1`` (8-250, 8-273)."""
    wide = ir.VectorType(ir.IntType(2 * first.type.element.width), first.type.count)
    total = builder.add(builder.zext(first, wide), builder.zext(second, wide))
    return builder.trunc(builder.lshr(builder.add(total, splat(wide, 1)), splat(wide, 1)), first.type)


def _weigh(builder: Any, first: Any, second: Any, weights: list[Any]) -> Any:
    """Return ``((w0 first + w1 second + half) >> shift) + offset`` clipped to 0..largest value (8-298, 8-299)."""
    wide = ir.VectorType(I32, first.type.count)
    w0, w1, shift, offset, top = (spread(builder, weight, wide) for weight in weights)
    half = builder.lshr(builder.shl(splat(wide, 1), shift), splat(wide, 1))
    total = builder.add(builder.mul(w0, builder.zext(first, wide)), builder.mul(w1, builder.zext(second, wide)))
    value = builder.add(builder.ashr(builder.add(total, half), shift), offset)
    return builder.trunc(clamp(builder, value, top), first.type)


def _predict(builder: Any, bits: int, points: Any, stride: Any, weights: Any, *, count: int) -> list[Any]:
    places = [Rows(builder, bits, address, stride, count=count) for address in cgutils.unpack_tuple(builder, points)]
    lines = []
    for row in range(ROWS):
        a0, b0, a1, b1 = (place.load(row) for place in places)
        first, second = _average(builder, a0, b0), _average(builder, a1, b1)
        if weights is None:
            lines.append(_average(builder, first, second))
        else:
            lines.append(_weigh(builder, first, second, cgutils.unpack_tuple(builder, weights)))
    return lines


def _differences(builder: Any, bits: int, current: Any, predictions: list[Any], *, count: int) -> list[Any]:
    address, stride = cgutils.unpack_tuple(builder, current)
    samples = Rows(builder, bits, address, stride, count=count)
    narrow = ir.VectorType(I16, count)

    def widen(value: Any) -> Any:
        return value if value.type == narrow else builder.zext(value, narrow)

    return [builder.sub(widen(samples.load(row)), widen(line)) for row, line in enumerate(predictions)]


def _squares(builder: Any, lines: list[Any]) -> Any:
    """Return sums of squares of neighbouring lanes over all rows; eight squares of 14 bits fit a uint32 lane."""
    count = lines[0].type.count
    wide = ir.VectorType(I32, count // 2)
    total: Any = None
    for line in lines:
        even, odd = (builder.sext(shuffle(builder, line, list(range(first, count, 2))), wide) for first in (0, 1))
        squares = builder.add(builder.mul(even, even), builder.mul(odd, odd))
        total = squares if total is None else builder.add(total, squares)
    return total


def _error(count: int, *, weighted: bool) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = signature.args[0].bitwidth
        lines = _predict(builder, bits, args[2], args[3], args[4] if weighted else None, count=count)
        total = _squares(builder, _differences(builder, bits, args[1], lines, count=count))
        return reduce(builder, "add", builder.zext(total, ir.VectorType(I64, count // 2)))

    if weighted:

        @intrinsic
        def weighted_error(typingctx: Any, kind: Any, current: Any, points: Any, stride: Any, weights: Any) -> Any:
            return _PLACE(kind, _PAIR, _POINTS, _PLACE, _WEIGHTS), codegen

        return weighted_error

    @intrinsic
    def error(typingctx: Any, kind: Any, current: Any, points: Any, stride: Any) -> Any:
        return _PLACE(kind, _PAIR, _POINTS, _PLACE), codegen

    return error


error_16, error_8 = _error(16, weighted=False), _error(8, weighted=False)
"""(kind, (address, stride) of the samples, points, stride): sum of squared differences from the prediction."""

weighted_error_16, weighted_error_8 = _error(16, weighted=True), _error(8, weighted=True)
"""The same, followed by the weights."""


def _subtract(count: int, *, weighted: bool) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = signature.args[0].bitwidth
        predictions = _predict(builder, bits, args[2], args[3], args[6] if weighted else None, count=count)
        lines = _differences(builder, bits, args[1], predictions, count=count)
        total = _squares(builder, lines)
        # the sum of squares of a 4x4 block, in both of its lanes
        total = builder.add(total, shuffle(builder, total, [lane ^ 1 for lane in range(count // 2)]))
        coded = builder.icmp_unsigned(">=", total, spread(builder, args[5], total.type))
        coded = builder.and_(coded, builder.icmp_unsigned("!=", total, splat(total.type, 0)))
        kept = builder.bitcast(builder.sext(coded, total.type), lines[0].type)
        address, stride = cgutils.unpack_tuple(builder, args[4])
        target = Rows(builder, 16, address, stride, count=count)
        for row, line in enumerate(lines):
            target.store(builder.and_(line, kept), row)
        return builder.zext(reduce(builder, "or", coded), I64)

    if weighted:

        @intrinsic
        def weighted_subtract(
            typingctx: Any, kind: Any, current: Any, points: Any, stride: Any, out: Any, limit: Any, weights: Any
        ) -> Any:
            return _PLACE(kind, _PAIR, _POINTS, _PLACE, _PAIR, _PLACE, _WEIGHTS), codegen

        return weighted_subtract

    @intrinsic
    def subtract(typingctx: Any, kind: Any, current: Any, points: Any, stride: Any, out: Any, limit: Any) -> Any:
        return _PLACE(kind, _PAIR, _POINTS, _PLACE, _PAIR, _PLACE), codegen

    return subtract


subtract_16, subtract_8, subtract_4 = (_subtract(count, weighted=False) for count in (16, 8, 4))
"""(kind, (address, stride) of the samples, points, stride, (address, stride) of int16, limit): differences; those of a
4x4 block whose sum of squares is below the limit (at most 32 bits) are 0. Returns whether any is not 0."""

weighted_subtract_16, weighted_subtract_8, weighted_subtract_4 = (_subtract(n, weighted=True) for n in (16, 8, 4))
"""The same, followed by the weights."""


def _put(count: int, parameters: int, fill: Callable[..., list[Any]]) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = signature.args[0].bitwidth
        source = Rows(builder, bits, args[1], args[2], count=count)
        wide = ir.VectorType(ir.IntType(2 * bits), count)
        target = Rows(builder, bits, args[3], ir.Constant(I64, BLOCK), count=count)
        for row, line in enumerate(fill(builder, source, wide, args[2], cgutils.unpack_tuple(builder, args[4]))):
            target.store(builder.trunc(line, target.vector), row)
        return context.get_dummy_value()

    @intrinsic
    def put(typingctx: Any, kind: Any, at: Any, stride: Any, out: Any, how: Any) -> Any:
        return types.void(kind, _PLACE, _PLACE, _PLACE, UniTuple(_PLACE, parameters)), codegen

    return put


def _bilinear(builder: Any, source: Rows, wide: Any, stride: Any, fractions: list[Any]) -> list[Any]:
    eight, one = ir.Constant(I64, 8), ir.Constant(I64, 1)
    down, across = (spread(builder, fraction, wide) for fraction in fractions)
    up, back = (spread(builder, builder.sub(eight, fraction), wide) for fraction in fractions)
    lines = []
    for row in range(ROWS + 1):
        left, right = (builder.zext(source.load(row, ahead), wide) for ahead in (None, one))
        lines.append(builder.add(builder.mul(back, left), builder.mul(across, right)))
    totals = [builder.add(builder.mul(up, above), builder.mul(down, below)) for above, below in pairwise(lines)]
    return [builder.lshr(builder.add(total, splat(wide, 32)), splat(wide, 6)) for total in totals]


put_bilinear_16, put_bilinear_8, put_bilinear_4 = (_put(count, 2, _bilinear) for count in (16, 8, 4))
"""(kind, address, stride, address to write to, (fy, fx) in eighths): bilinear interpolation (8-270). Reads one row and
one column more than it writes."""


def _mean_of_four(builder: Any, source: Rows, wide: Any, stride: Any, how: list[Any]) -> list[Any]:
    down, across, bias = how
    below = builder.mul(down, stride)
    corners = (None, across, below, builder.add(below, across))
    lines = []
    for row in range(ROWS):
        total = spread(builder, bias, wide)
        for corner in corners:
            total = builder.add(total, builder.zext(source.load(row, corner), wide))
        lines.append(builder.lshr(total, splat(wide, 2)))
    return lines


put_mean_of_four_16, put_mean_of_four_8, put_mean_of_four_4 = (_put(count, 3, _mean_of_four) for count in (16, 8, 4))
"""(kind, address, stride, address to write to, (rows down, columns across, bias)): a quarter of the sum of four
samples and the bias."""


@intrinsic
def fetch(typingctx: Any, address: Any) -> Any:
    """Prefetch the cache line at an address; any address is allowed."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data = (ir.Constant(I32, value) for value in (0, 3, 1))
        builder.call(function, [builder.inttoptr(args[0], byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(_PLACE), codegen


@intrinsic
def size_of(typingctx: Any, kind: Any) -> Any:
    """Return the bytes per sample, as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(I64, signature.args[0].bitwidth // 8)

    return _PLACE(kind), codegen


@intrinsic
def sample_at(typingctx: Any, kind: Any, address: Any) -> Any:
    """Return the sample at an address, as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[1], ir.IntType(signature.args[0].bitwidth).as_pointer())
        return builder.zext(builder.load(place), I64)

    return _PLACE(kind, _PLACE), codegen
