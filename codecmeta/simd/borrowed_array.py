"""Array views of memory at an address, for compiled code.

A view owns nothing: the caller keeps the memory alive while the view is in use, and large enough for what is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype
from numba.core import types
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import DTypeLike


def _view(context: Any, builder: Any, kind: Any, address: Any, count: Any) -> Any:
    view = context.make_array(kind)(context, builder)
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    arrayobj.populate_array(view, builder.inttoptr(address, view.data.type), [count], [size], size, None)
    return view._getvalue()


@intrinsic
def borrow_at(typingctx: Any, address: Any, like: Any) -> Any:
    """Return a flat view of the samples at an address, of the type and length of ``like``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        length = context.make_array(signature.args[1])(context, builder, args[1]).nitems
        return _view(context, builder, signature.return_type, args[0], length)

    return types.Array(like.dtype, 1, "C")(types.uintp, like), codegen


def array_at(dtype: DTypeLike) -> Any:
    """Return an intrinsic (address, count) -> flat view of ``count`` elements of ``dtype``."""
    kind = types.Array(from_dtype(np.dtype(dtype)), 1, "C")

    @intrinsic
    def view_at(typingctx: Any, address: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _view(context, builder, kind, *args)

        return kind(types.int64, types.int64), codegen

    return view_at
