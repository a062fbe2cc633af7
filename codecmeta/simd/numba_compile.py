"""Compilation settings of this package's functions.

numba recompiles a function for every literal integer that it is called with. Most calls here pass context numbers and
block sizes as literals, so arguments are widened to int64: one machine-code version per function, in half the compile
time. Nothing here allocates, so reference counting is disabled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core.registry import CPUDispatcher
from numba.core.types import unliteral  # type: ignore[attr-defined]

from codecmeta.simd.numba_cache import keep


class _Dispatcher(CPUDispatcher):  # type: ignore[misc]
    def get_call_template(self, args: Any, kws: Any) -> Any:
        return super().get_call_template(tuple(unliteral(arg) for arg in args), kws)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled code calls."""
    return _dispatcher(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into each of its callers."""
    return _dispatcher(function, forceinline=True)


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls; cache its machine code, including all it calls, on disk."""
    dispatcher = _dispatcher(function)
    keep(dispatcher)
    return dispatcher


def _dispatcher(function: Callable[..., Any], **options: Any) -> _Dispatcher:
    options |= {"nopython": True, "nogil": True, "error_model": "numpy", "_nrt": False}
    return _Dispatcher(function, targetoptions=options)
