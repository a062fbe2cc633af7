"""Cache of compiled functions on disk, invalidated when any source file that affects them changes.

numba compares only the time and size of a function's own file. It keeps using the machine code of callees, and of
constants, that have changed in another file, as happens in an editable install; and it ignores the machine code of a
copy of the same file elsewhere. Here the content of all files counts, not their times or locations: a folder named by
NUMBA_CACHE_DIR can be filled on one machine and used on others, wherever the package is installed there.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba as nb
from numba.core import event
from numba.core.caching import IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock

COMPILING = "codecmeta:compile"
"""Kind of numba event (numba.core.event) that spans the compilation of a kernel not yet in the cache."""

_locked: set[Path] = set()
_kept: list[Any] = []
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
    source = Path(dispatcher.py_func.__code__.co_filename)
    dispatcher.enable_caching()
    cache = dispatcher._cache
    if nb.config.CACHE_DIR and source.is_relative_to(_ROOT):
        cache._cache_path = str(_chosen_folder(source))
        cache._impl._locator = _Locator(cache._cache_path)
    file = IndexDataCacheFile(
        cache_path=cache._cache_path, filename_base=cache._impl.filename_base, source_stamp=source_stamp(source)
    )
    file.save = partial(_save, file)
    cache._cache_file = file
    dispatcher.compile = partial(_compile_once, dispatcher, dispatcher.compile)
    _kept.append(dispatcher)


def _save(file: Any, key: Any, data: Any) -> None:
    """Save the machine code of one signature, which several processes may do at a time for one function.

    It is written before the index names it, so that no other process loads what the file held before.
    """
    with hold_lock(Path(f"{file._index_path}.lock")):
        overloads = file._load_index()
        taken = set(overloads.values())
        free = (name for name in map(file._data_name, itertools.count(1)) if name not in taken)
        name = overloads.get(key) or next(free)
        file._save_data(name, data)
        file._save_index(overloads | {key: name})


class _Locator:
    """Location of machine code, for numba's own cache."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def ensure_cache_path(self) -> None:
        Path(self._folder).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return self._folder


def _chosen_folder(source: Path) -> Path:
    """Return the folder below NUMBA_CACHE_DIR with the machine code of a module of this package."""
    return Path(nb.config.CACHE_DIR, *source.relative_to(_ROOT).with_suffix("").parts)


def cache_folder() -> Path:
    """Return the folder of the machine code of the whole package, or of this module where each has its own."""
    if nb.config.CACHE_DIR:
        return _chosen_folder(Path(__file__)).parents[1]
    return Path(nb.njit(cache=True)(_nothing)._cache.cache_path)


def _nothing() -> None:
    """Own a cache, which is examined."""


def list_compiled() -> dict[str, int]:
    """List the kernels of all loaded modules, with the number of signatures compiled for this processor."""
    return {
        f"{one.py_func.__module__}.{one.py_func.__qualname__}": sum(
            key[1] == one.targetctx.codegen().magic_tuple() for key in _load_index(one)
        )
        for one in _kept
    }


def _load_index(dispatcher: Any) -> dict[Any, Any]:
    with suppress(OSError):
        index: dict[Any, Any] = dispatcher._cache._cache_file._load_index()
        return index
    return {}


def _compile_once(dispatcher: Any, compile_or_load: Callable[[Any], Any], signature: Any) -> Any:
    """Compile under a lock between processes, so that the others load what one of them compiles."""
    with global_compiler_lock:
        if _is_compiled(dispatcher, signature):
            return compile_or_load(signature)
        name = dispatcher.py_func.__qualname__
        # one lock per function and signature: calls have no circles, so no two processes wait for each other
        digest = hashlib.sha256(repr(_key(dispatcher, signature)).encode()).hexdigest()[:16]
        lock = Path(dispatcher._cache.cache_path, f"{dispatcher._cache._impl.filename_base}.{digest}.lock")
        with event.trigger_event(COMPILING, data=name), hold_lock(lock):
            try:
                return compile_or_load(signature)
            except OSError:
                # compiled, but not cached: the disk of the cache is full, for example
                return compile_or_load(signature)
            finally:
                # those who wait for it find the machine code in the cache
                with suppress(OSError):
                    lock.unlink()


def _key(dispatcher: Any, signature: Any) -> Any:
    return dispatcher._cache._index_key(signature, dispatcher.targetctx.codegen())


def _is_compiled(dispatcher: Any, signature: Any) -> bool:
    return signature in dispatcher.overloads or _key(dispatcher, signature) in _load_index(dispatcher)


@contextmanager
def hold_lock(lock: Path) -> Iterator[None]:
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
def source_stamp(path: Path) -> tuple[tuple[str, str], ...]:
    """Return name and digest of a file of this package and of all its files that it imports."""
    needed, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in needed:
            needed.add(file)
            waiting += imported(file)
    return tuple((_name(file), _digest(file)) for file in sorted(needed))


def source_digest() -> str:
    """Return an identifier that differs whenever a file of this package, numba or the processor does."""
    files = [(_name(file), _digest(file)) for file in sorted((_ROOT / "codecmeta").rglob("*.py"))]
    target = nb.njit(_nothing).targetctx.codegen().magic_tuple()
    return hashlib.sha256(repr((files, target, nb.__version__)).encode()).hexdigest()[:16]


def _name(file: Path) -> str:
    return file.relative_to(_ROOT).as_posix() if file.is_relative_to(_ROOT) else file.name


@cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


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
