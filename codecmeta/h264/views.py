"""The arrays of the picture, seen from the slice record, so that calls pass one pointer instead of whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype
from numba.core import types
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import DTypeLike

from codecmeta.h264.records import MACROBLOCK, MOTION


def _array_at(dtype: DTypeLike) -> Any:
    """An intrinsic (address, count) -> array of `dtype` there, which owns nothing."""
    kind = types.Array(from_dtype(np.dtype(dtype)), 1, "C")

    @intrinsic
    def array_at(typingctx, address, count):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            array = context.make_array(kind)(context, builder)
            size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
            data = builder.inttoptr(args[0], array.data.type)
            arrayobj.populate_array(array, data, [args[1]], [size], size, None)
            return array._getvalue()

        return kind(types.int64, types.int64), codegen

    return array_at


macroblocks_at = _array_at(MACROBLOCK)
"""(s.macroblocks, s.count) -> the picture's macroblocks by address: records of type `MACROBLOCK`."""

motion_at = _array_at(MOTION)
"""(s.motion, s.count) -> their motion syntax: records of type `MOTION`."""

samples_at = _array_at(np.int16)
"""(s.samples, s.sample_count) -> its residual samples: int16, see transform.py."""
