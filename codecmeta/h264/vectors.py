"""Sixteen samples at a time: reductions that the compiler does not find by itself."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic
def block_moments(typingctx, samples, base):  # type: ignore[no-untyped-def]
    """Sum, sum of squares, minimum and maximum of the 16 int16 `samples` from `base` on, which must lie inside."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        i16, i32, i64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
        array = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0])
        address = builder.bitcast(builder.gep(array.data, [args[1]]), ir.VectorType(i16, 16).as_pointer())
        narrow = builder.load(address, align=2)
        values = builder.sext(narrow, ir.VectorType(i32, 16))
        squares = builder.zext(builder.mul(values, values), ir.VectorType(i64, 16))

        def reduce(name, vector, element):  # type: ignore[no-untyped-def]
            kind = ir.FunctionType(element, [vector.type])
            function = f"llvm.vector.reduce.{name}.v16i{element.width}"
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, function), [vector])

        results = [
            builder.sext(reduce("add", values, i32), i64),
            reduce("add", squares, i64),
            builder.sext(reduce("smin", narrow, i16), i64),
            builder.sext(reduce("smax", narrow, i16), i64),
        ]
        return context.make_tuple(builder, signature.return_type, results)

    return types.UniTuple(types.int64, 4)(samples, types.int64), codegen
