"""Compiled functions whose machine code is kept on disk until any source that went into it changes.

numba compares the time and size of a function's own file only. It goes on using the machine code of callees, and of
constants, that have changed in another file, as happens in an editable install.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba as nb

_ROOT = Path(__file__).parents[2]
_IMPORT = re.compile(r"\nfrom (codecmeta[.\w]*) import (\([^)]*\)|.*)")


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a function without the interpreter lock, and keep its machine code.

    Args:
        options: further options of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = nb.njit(nogil=True, **options)(function)
        keep(dispatcher)
        return dispatcher

    return decorate


def keep(dispatcher: Any) -> None:
    """Cache what a dispatcher compiles, until a module that its own imports, directly or not, changes."""
    dispatcher.enable_caching()
    dispatcher._cache._cache_file._source_stamp = source_stamp(Path(dispatcher.py_func.__code__.co_filename))


@cache
def source_stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, modification time and size of a file of this package and of all files of it that it needs."""
    needed, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in needed:
            needed.add(file)
            waiting += imported(file)
    status = [(str(file), file.stat()) for file in sorted(needed)]
    return tuple((name, one.st_mtime_ns, one.st_size) for name, one in status)


@cache
def imported(path: Path) -> tuple[Path, ...]:
    """The files of this package that a file of it imports when it is loaded."""
    files = []
    for match in _IMPORT.finditer("\n" + path.read_text(encoding="utf-8")):
        module, names = match.groups()
        for name in (module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))):
            place = _ROOT.joinpath(*name.split("."))
            files += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return tuple(files)
