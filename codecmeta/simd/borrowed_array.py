"""Array views of memory that compiled code knows by its address."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import DTypeLike


@intrinsic
def borrow_at(typingctx, address, like):  # type: ignore[no-untyped-def]
    """Flat view of the samples at an address, of the type and length of ``like``.

    It owns nothing: what is at the address must stay alive while the view is in use, and be as long as what is read.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        view = context.make_array(kind)(context, builder)
        length = context.make_array(signature.args[1])(context, builder, args[1]).nitems
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        data = builder.inttoptr(args[0], view.data.type)
        arrayobj.populate_array(
            view,
            data=data,
            shape=cgutils.pack_array(builder, [length]),
            strides=cgutils.pack_array(builder, [size]),
            itemsize=size,
            meminfo=None,
        )
        return view._getvalue()

    return types.Array(like.dtype, 1, "C")(types.uintp, like), codegen


def array_at(dtype: DTypeLike) -> Any:
    """An intrinsic (address, count) -> array of ``dtype`` there, which owns nothing."""
    kind = types.Array(from_dtype(np.dtype(dtype)), 1, "C")

    @intrinsic
    def view_at(typingctx, address, count):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            array = context.make_array(kind)(context, builder)
            size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
            data = builder.inttoptr(args[0], array.data.type)
            arrayobj.populate_array(array, data, [args[1]], [size], size, None)
            return array._getvalue()

        return kind(types.int64, types.int64), codegen

    return view_at
