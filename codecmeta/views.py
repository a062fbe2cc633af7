"""Array views that compiled code passes around without counting references.

numba counts references to an array with an atomic operation each time it enters a tuple, a call or a variable, which
for blocks of a few hundred samples costs more than the arithmetic. A borrowed view carries no owner; the array
must stay alive while it is in use. An argument of the outermost kernel does; a local variable does not, since numba
gives an array up after its last mention.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numba.core import types
from numba.extending import intrinsic


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.uintp), generate


@nb.njit(cache=True, nogil=True, inline="always")
def borrow(array):  # type: ignore[no-untyped-def]
    """Borrowed view of a flat, contiguous array."""
    return nb.carray(_pointer(np.uintp(array.ctypes.data)), array.size, array.dtype)


@nb.njit(cache=True, nogil=True, inline="always")
def borrow_at(address, like):  # type: ignore[no-untyped-def]
    """Borrowed view of as many samples at an address as ``like`` has, of its type."""
    return nb.carray(_pointer(address), like.size, like.dtype)
