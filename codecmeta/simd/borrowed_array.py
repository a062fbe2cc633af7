"""Array views of memory that compiled code knows by its address."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj


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
