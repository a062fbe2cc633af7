"""Inverse transforms of whole blocks, as vector code that the compiler does not find by itself (8.5.12.2, 8.5.13).

All functions take arrays and an index, and rely on the caller that the samples lie inside.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from codecmeta.simd.vector_ir import I64, Lanes, pick, saturate, shuffle, splat


def _butterfly_4(builder: Any, d: list[Any]) -> list[Any]:
    """Return one direction of the 4x4 inverse transform (8-338 to 8-345), lane by lane."""
    one = splat(d[0].type, 1)
    e, f = builder.add(d[0], d[2]), builder.sub(d[0], d[2])
    g = builder.sub(builder.ashr(d[1], one), d[3])
    h = builder.add(d[1], builder.ashr(d[3], one))
    return [builder.add(e, h), builder.add(f, g), builder.sub(f, g), builder.sub(e, h)]


def _butterfly_8(builder: Any, d: list[Any]) -> list[Any]:
    """Return one direction of the 8x8 inverse transform (8.5.13), lane by lane."""

    def half(value: Any, bits: int = 1) -> Any:
        return builder.ashr(value, splat(value.type, bits))

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
    """Transpose a square of lanes, by interleaving halves log2(n) times."""
    n = len(rows)
    low = [lane for i in range(n // 2) for lane in (i, n + i)]
    high = [lane for i in range(n // 2, n) for lane in (i, n + i)]
    step = n // 2
    while step:
        rows = [pick(builder, rows[i], rows[i + n // 2], lanes) for i in range(n // 2) for lanes in (low, high)]
        step //= 2
    return rows


def _inverse(n: int, butterfly: Any) -> Any:
    @intrinsic
    def inverse(typingctx: Any, coefficients: Any, samples: Any, place: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source = Lanes(context, builder, signature.args[0], args[0], n)
            target = Lanes(context, builder, signature.args[1], args[1], 4)
            zero, one, length = (ir.Constant(I64, value) for value in (0, 1, n))
            wide = source.vector
            rows = [source.load(zero, length, y) for y in range(n)]
            for y in range(n):
                source.store(splat(wide, 0), zero, length, y)
            # first along the rows, then along the columns: the order matters, because halves are rounded
            columns = butterfly(builder, _transpose(builder, rows))
            rows = butterfly(builder, _transpose(builder, columns))
            for y, row in enumerate(rows):
                line = saturate(builder, builder.ashr(builder.add(row, splat(wide, 32)), splat(wide, 6)))
                for x in range(0, n, 4):
                    where = ((y >> 2) * 2 + (x >> 2)) * 16 + (y & 3) * 4
                    target.store(shuffle(builder, line, list(range(x, x + 4))), args[2], one, where)
            return context.get_dummy_value()

        return types.void(coefficients, samples, types.int64), codegen

    return inverse


inverse_4x4 = _inverse(4, _butterfly_4)
"""(coefficients, samples, place): transform 16 int32 in raster order (8.5.12.2), round, store as int16, clear them."""

inverse_8x8 = _inverse(8, _butterfly_8)
"""(coefficients, samples, place): the same for 64 (8.5.13), stored as four 4x4 blocks in raster order."""
