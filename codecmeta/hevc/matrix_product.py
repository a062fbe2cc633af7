"""Matrix products of 16-bit numbers, row by row, as vector code that the compiler does not find by itself.

Memory is referred to by addresses (int64); the caller guarantees that they are valid.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from codecmeta.simd.vector_ir import I16, I32, I64, saturate, shuffle, splat, spread


def _row_product(count: int) -> Any:
    @intrinsic
    def row_product(
        typingctx: Any, row: Any, matrix: Any, stride: Any, pairs: Any, rounding: Any, shift: Any, target: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            row, matrix, stride, pairs, rounding, shift, target = args
            wide, narrow = ir.VectorType(I32, count), ir.VectorType(I16, 2 * count)
            even, odd = list(range(0, 2 * count, 2)), list(range(1, 2 * count, 2))
            before = builder.block
            loop, after = (builder.append_basic_block(name) for name in ("pairs", "sums"))
            builder.branch(loop)
            builder.position_at_end(loop)
            number, total, here = builder.phi(I64), builder.phi(wide), builder.phi(I64)
            factor = builder.load(builder.gep(builder.inttoptr(row, I32.as_pointer()), [number]), align=2)
            factors = builder.bitcast(spread(builder, factor, wide), narrow)
            values = builder.load(builder.inttoptr(here, narrow.as_pointer()), align=2)
            products = [
                builder.mul(
                    builder.sext(shuffle(builder, factors, lanes), wide),
                    builder.sext(shuffle(builder, values, lanes), wide),
                )
                for lanes in (even, odd)
            ]
            more = builder.add(total, builder.add(*products))
            following = builder.add(number, ir.Constant(I64, 1))
            for phi, start, value in (
                (number, ir.Constant(I64, 0), following),
                (total, splat(wide, 0), more),
                (here, matrix, builder.add(here, stride)),
            ):
                phi.add_incoming(start, before)
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
            builder.position_at_end(after)
            value = builder.ashr(builder.add(more, spread(builder, rounding, wide)), spread(builder, shift, wide))
            line = saturate(builder, value)
            builder.store(line, builder.inttoptr(target, line.type.as_pointer()), align=2)
            return context.get_dummy_value()

        number = types.int64
        return types.void(number, number, number, number, number, number, number), codegen

    return row_product


row_product_8, row_product_4 = _row_product(8), _row_product(4)
"""(row, matrix, stride, pairs, rounding, shift, target): eight or four int16 of the product of a row with a matrix.

The row has `pairs` pairs of int16; the matrix has its rows 2 k and 2 k + 1 interleaved, `stride` bytes from pair to
pair. The sums, with `rounding` added and shifted right, are clipped to int16 and stored at the target.
"""
