"""Cache of compiled functions on disk, invalidated when any source file that affects them changes.

numba compares only the time and size of a function's own file. It keeps using the machine code of callees, and of
constants, that have changed in another file, as happens in an editable install.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba as nb
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock

COMPILING = "codecmeta:compile"
"""Kind of numba event (numba.core.event) that spans the compilation of a kernel not yet in the cache."""

_locked: set[Path] = set()
_ROOT = Path(__file__).parents[2]
_IMPORT = re.compile(r"\nfrom (codecmeta[.\w]*) import (\([^)]*\)|.*)")


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function without the interpreter lock and caches its machine code.

    Args:
        options: further options of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = nb.njit(nogil=True, **options)(function)
        keep(dispatcher)
        return dispatcher

    return decorate


def keep(dispatcher: Any) -> None:
    """Cache the output of a dispatcher until a module that its own imports, directly or indirectly, changes."""
    dispatcher.enable_caching()
    dispatcher._cache._cache_file._source_stamp = source_stamp(Path(dispatcher.py_func.__code__.co_filename))
    dispatcher.compile = partial(_compile_once, dispatcher, dispatcher.compile)


def _compile_once(dispatcher: Any, compile_or_load: Callable[[Any], Any], signature: Any) -> Any:
    """Compile under a lock between processes, so that the others load what one of them compiles."""
    with global_compiler_lock:
        if _is_compiled(dispatcher, signature):
            return compile_or_load(signature)
        name, module = dispatcher.py_func.__qualname__, Path(dispatcher.py_func.__code__.co_filename).stem
        # one lock per file: imports have no circles, so no two processes wait for each other
        lock = Path(dispatcher._cache.cache_path, f"{module}.compile.lock")
        with event.trigger_event(COMPILING, data=name), _hold(lock):
            try:
                return compile_or_load(signature)
            except OSError:
                # compiled, but not cached: the disk of the cache is full, for example
                return compile_or_load(signature)


def _is_compiled(dispatcher: Any, signature: Any) -> bool:
    cache_file, key = dispatcher._cache._cache_file, dispatcher._cache._index_key
    with suppress(OSError):
        return signature in dispatcher.overloads or (
            key(signature, dispatcher.targetctx.codegen()) in cache_file._load_index()
        )
    return False


@contextmanager
def _hold(lock: Path) -> Iterator[None]:
    """Hold a lock file; where it cannot be created or locked, processes may compile the same function twice."""
    if lock in _locked:
        yield
        return
    try:
        import fcntl

        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    except (ImportError, OSError):
        yield
        return
    with file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        _locked.add(lock)
        try:
            yield
        finally:
            _locked.discard(lock)


@cache
def source_stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, modification time and size of a file of this package and of all its files that it imports."""
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
    """Return the files of this package that a file of it imports when it is loaded."""
    files = []
    for match in _IMPORT.finditer("\n" + path.read_text(encoding="utf-8")):
        module, names = match.groups()
        for name in (module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))):
            place = _ROOT.joinpath(*name.split("."))
            files += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return tuple(files)
