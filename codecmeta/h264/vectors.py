"""Whole blocks at a time: vector code that the compiler does not find by itself.

Every function here takes arrays and a place, and trusts that what it names lies inside.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any, vector: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [place]), vector.as_pointer())


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


def _reduce(builder: Any, name: str, vector: Any) -> Any:
    element = vector.type.element
    kind = ir.FunctionType(element, [vector.type])
    function = f"llvm.vector.reduce.{name}.v{vector.type.count}i{element.width}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, function), [vector])


def _splat(vector: Any, value: int) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _pairs(builder: Any, narrow: Any) -> tuple[Any, Any]:
    """The even and the odd lanes of 16 int16, as int32."""
    wide = ir.VectorType(_I32, 8)
    even = _shuffle(builder, narrow, narrow, list(range(0, 16, 2)))
    odd = _shuffle(builder, narrow, narrow, list(range(1, 16, 2)))
    return builder.sext(even, wide), builder.sext(odd, wide)


@intrinsic
def run_sums(typingctx, samples, place, blocks):  # type: ignore[no-untyped-def]
    """Sum, sum of squares, and square of the largest magnitude of the int16 `samples` of a run of 4x4 blocks.

    The run begins at `place` and has 1 to 2^11 blocks.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        narrow, wide, long = ir.VectorType(_I16, 16), ir.VectorType(_I32, 8), ir.VectorType(_I64, 8)
        first = _address(context, builder, signature.args[0], args[0], args[1], narrow)
        before = builder.block
        loop, after = (builder.append_basic_block(name) for name in ("blocks", "sums"))
        builder.branch(loop)
        builder.position_at_end(loop)
        number = builder.phi(_I64)
        states = [builder.phi(kind) for kind in (wide, long, narrow, narrow)]
        for phi, start in zip(states, (wide, long, narrow, narrow), strict=True):
            phi.add_incoming(_splat(start, 0), before)
        number.add_incoming(ir.Constant(_I64, 0), before)
        values = builder.load(builder.gep(first, [number]), align=2)
        even, odd = _pairs(builder, values)
        # two squares of int16 fit an unsigned 32-bit lane
        squares = builder.zext(builder.add(builder.mul(even, even), builder.mul(odd, odd)), long)
        least = builder.select(builder.icmp_signed("<", values, states[2]), values, states[2])
        most = builder.select(builder.icmp_signed(">", values, states[3]), values, states[3])
        results = [builder.add(states[0], builder.add(even, odd)), builder.add(states[1], squares), least, most]
        following = builder.add(number, ir.Constant(_I64, 1))
        for phi, result in zip((number, *states), (following, *results), strict=True):
            phi.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, args[2]), loop, after)
        builder.position_at_end(after)
        total = builder.sext(_reduce(builder, "add", results[0]), _I64)
        square = _reduce(builder, "add", results[1])
        low, high = (builder.sext(_reduce(builder, *pair), _I64) for pair in (("smin", least), ("smax", most)))
        far = builder.neg(low)
        largest = builder.select(builder.icmp_signed(">", far, high), far, high)
        return context.make_tuple(builder, signature.return_type, [total, square, builder.mul(largest, largest)])

    return types.UniTuple(types.int64, 3)(samples, types.int64, types.int64), codegen


@intrinsic
def block_extremes(typingctx, samples, place):  # type: ignore[no-untyped-def]
    """Minimum and maximum of the 16 int16 `samples` from `place` on."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address = _address(context, builder, signature.args[0], *args, ir.VectorType(_I16, 16))
        values = builder.load(address, align=2)
        results = [builder.sext(_reduce(builder, name, values), _I64) for name in ("smin", "smax")]
        return context.make_tuple(builder, signature.return_type, results)

    return types.UniTuple(types.int64, 2)(samples, types.int64), codegen


def _butterfly_4(builder: Any, d: list[Any]) -> list[Any]:
    """One direction of the 4x4 inverse transform (8-338 to 8-345), lane by lane."""
    one = _splat(d[0].type, 1)
    e, f = builder.add(d[0], d[2]), builder.sub(d[0], d[2])
    g = builder.sub(builder.ashr(d[1], one), d[3])
    h = builder.add(d[1], builder.ashr(d[3], one))
    return [builder.add(e, h), builder.add(f, g), builder.sub(f, g), builder.sub(e, h)]


def _butterfly_8(builder: Any, d: list[Any]) -> list[Any]:
    """One direction of the 8x8 inverse transform (8.5.13), lane by lane."""

    def half(value: Any, bits: int = 1) -> Any:
        return builder.ashr(value, _splat(value.type, bits))

    add, sub = builder.add, builder.sub
    e = [
        add(d[0], d[4]),
        sub(sub(sub(d[5], d[3]), d[7]), half(d[7])),
        sub(d[0], d[4]),
        sub(sub(add(d[1], d[7]), d[3]), half(d[3])),
        sub(half(d[2]), d[6]),
        add(add(sub(d[7], d[1]), d[5]), half(d[5])),
        add(d[2], half(d[6])),
        add(add(add(d[3], d[5]), d[1]), half(d[1])),
    ]
    f = [
        add(e[0], e[6]),
        add(e[1], half(e[7], 2)),
        add(e[2], e[4]),
        add(e[3], half(e[5], 2)),
        sub(e[2], e[4]),
        sub(half(e[3], 2), e[5]),
        sub(e[0], e[6]),
        sub(e[7], half(e[1], 2)),
    ]
    sums = [add(f[2 * i], f[7 - 2 * i]) for i in range(4)]
    differences = [sub(f[2 * i], f[7 - 2 * i]) for i in range(4)]
    return sums + differences[::-1]


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Exchange rows and columns of a square of lanes, by interleaving halves log2(n) times."""
    n = len(rows)
    low = [lane for i in range(n // 2) for lane in (i, n + i)]
    high = [lane for i in range(n // 2, n) for lane in (i, n + i)]
    step = n // 2
    while step:
        rows = [_shuffle(builder, rows[i], rows[i + n // 2], lanes) for i in range(n // 2) for lanes in (low, high)]
        step //= 2
    return rows


def _inverse(n: int, butterfly: Any) -> Any:
    @intrinsic
    def inverse(typingctx, coefficients, samples, place):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            wide, narrow = ir.VectorType(_I32, n), ir.VectorType(_I16, n)
            zero = ir.Constant(_I64, 0)
            source = _address(context, builder, signature.args[0], args[0], zero, wide)
            places = [builder.gep(source, [ir.Constant(_I64, i)]) for i in range(n)]
            rows = [builder.load(address, align=4) for address in places]
            for address in places:
                builder.store(_splat(wide, 0), address, align=4)
            # first along the rows, then along the columns: the order matters, halves are rounded
            columns = butterfly(builder, _transpose(builder, rows))
            rows = butterfly(builder, _transpose(builder, columns))
            target = _address(context, builder, signature.args[1], args[1], args[2], _I16)
            for y, row in enumerate(rows):
                value = builder.ashr(builder.add(row, _splat(wide, 32)), _splat(wide, 6))
                for limit, order in ((-32768, "<"), (32767, ">")):
                    edge = _splat(wide, limit)
                    value = builder.select(builder.icmp_signed(order, value, edge), edge, value)
                line = builder.trunc(value, narrow)
                for x in range(0, n, 4):
                    part = _shuffle(builder, line, line, list(range(x, x + 4)))
                    where = ((y >> 2) * 2 + (x >> 2)) * 16 + (y & 3) * 4
                    address = builder.gep(target, [ir.Constant(_I64, where)])
                    builder.store(part, builder.bitcast(address, ir.VectorType(_I16, 4).as_pointer()), align=2)
            return context.get_dummy_value()

        return types.void(coefficients, samples, types.int64), codegen

    return inverse


inverse_4x4 = _inverse(4, _butterfly_4)
"""(coefficients, samples, place): transform 16 int32 in raster order (8.5.12.2), round, store as int16, clear them."""

inverse_8x8 = _inverse(8, _butterfly_8)
"""(coefficients, samples, place): the same for 64 (8.5.13), stored as four 4x4 blocks in raster order."""
