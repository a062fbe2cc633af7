"""Sums and extremes of int16 samples that are stored as consecutive 4x4 blocks.

All functions take an array and an index, and rely on the caller that the samples lie inside.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic

from codecmeta.simd.vector_ir import I16, I32, I64, Lanes, reduce, shuffle, splat


def _pairs(builder: Any, narrow: Any) -> tuple[Any, Any]:
    """Return the even and the odd lanes of 16 int16, as int32."""
    wide = ir.VectorType(I32, 8)
    even = shuffle(builder, narrow, list(range(0, 16, 2)))
    odd = shuffle(builder, narrow, list(range(1, 16, 2)))
    return builder.sext(even, wide), builder.sext(odd, wide)


@intrinsic
def run_sums(typingctx: Any, samples: Any, place: Any, blocks: Any) -> Any:
    """Return sum, sum of squares, and square of the largest magnitude of the int16 `samples` of a run of 4x4 blocks.

    The run begins at `place` and has 1 to 2^11 blocks.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow, wide, long = ir.VectorType(I16, 16), ir.VectorType(I32, 8), ir.VectorType(I64, 8)
        source = Lanes(context, builder, signature.args[0], args[0], 16)
        zero, before = ir.Constant(I64, 0), builder.block
        loop, after = (builder.append_basic_block(name) for name in ("blocks", "sums"))
        builder.branch(loop)
        builder.position_at_end(loop)
        number = builder.phi(I64)
        states = [builder.phi(kind) for kind in (wide, long, narrow, narrow)]
        for phi, start in zip(states, (wide, long, narrow, narrow), strict=True):
            phi.add_incoming(splat(start, 0), before)
        number.add_incoming(zero, before)
        values = source.load(builder.add(args[1], builder.mul(number, ir.Constant(I64, 16))), zero, 0)
        even, odd = _pairs(builder, values)
        # two squares of int16 fit an unsigned 32-bit lane
        squares = builder.zext(builder.add(builder.mul(even, even), builder.mul(odd, odd)), long)
        least = builder.select(builder.icmp_signed("<", values, states[2]), values, states[2])
        most = builder.select(builder.icmp_signed(">", values, states[3]), values, states[3])
        results = [builder.add(states[0], builder.add(even, odd)), builder.add(states[1], squares), least, most]
        following = builder.add(number, ir.Constant(I64, 1))
        for phi, result in zip((number, *states), (following, *results), strict=True):
            phi.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, args[2]), loop, after)
        builder.position_at_end(after)
        total = builder.sext(reduce(builder, "add", results[0]), I64)
        square = reduce(builder, "add", results[1])
        low, high = (builder.sext(reduce(builder, *pair), I64) for pair in (("smin", least), ("smax", most)))
        far = builder.neg(low)
        largest = builder.select(builder.icmp_signed(">", far, high), far, high)
        return context.make_tuple(builder, signature.return_type, [total, square, builder.mul(largest, largest)])

    return UniTuple(types.int64, 3)(samples, types.int64, types.int64), codegen


@intrinsic
def block_extremes(typingctx: Any, samples: Any, place: Any) -> Any:
    """Return minimum and maximum of the 16 int16 `samples` from `place` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = Lanes(context, builder, signature.args[0], args[0], 16).load(args[1], ir.Constant(I64, 0), 0)
        results = [builder.sext(reduce(builder, name, values), I64) for name in ("smin", "smax")]
        return context.make_tuple(builder, signature.return_type, results)

    return UniTuple(types.int64, 2)(samples, types.int64), codegen
