"""Objects by URL: reading one whole, and writing one whole or not at all."""

from __future__ import annotations

from contextlib import suppress

from codecmeta.errors import ConflictError, SourceError
from codecmeta.storage.object_store import ObjectState
from codecmeta.storage.stores import open_store

_TRIES = 10


def stat_object(url: str) -> ObjectState | None:
    """Return the properties of an object; None where there is none.

    Raises:
        SourceError: its store cannot be reached.
        UsageError: there is no store for the URL.
    """
    store, key = open_store(url)
    try:
        return store.stat(key)
    except SourceError as error:
        if error.code == "not_a_file":
            return None
        raise


def read_object(url: str, *, most_bytes: int) -> bytes:
    """Read an object whole.

    Raises:
        FileNotFoundError: there is none.
        SourceError: it cannot be read, or has more than `most_bytes`.
        UsageError: there is no store for the URL.
    """
    store, key = open_store(url)
    try:
        state = store.stat(key)
    except SourceError as error:
        if error.code == "not_a_file":
            raise FileNotFoundError(None, "no such object", url) from error
        raise
    if state.size > most_bytes:
        raise SourceError("limit_exceeded", f"{url} has {state.size} bytes; allowed are {most_bytes}")
    parts: list[bytes] = []
    size = 0
    for part in store.stream(key, state) if state.size else ():
        parts.append(part)
        size += len(part)
        if size > most_bytes:
            raise SourceError("limit_exceeded", f"{url} has more than the {most_bytes} bytes that are allowed")
    return b"".join(parts)


def write_object(url: str, data: bytes, before: ObjectState | None) -> ObjectState:
    """Write an object whole, if what is there is what was seen.

    Args:
        url: of the object.
        data: its content.
        before: properties of what is to be replaced; None where there was nothing.

    Raises:
        ConflictError: another writer was first.
        OutputError: it cannot be written.
        UsageError: there is no store for the URL.
    """
    store, key = open_store(url)
    return store.put_new(key, data) if before is None else store.replace_if(key, data, before.version)


def remove_object(url: str, version: str | None = None) -> None:
    """Remove an object, unless it is gone, or no longer of the version given.

    Args:
        url: of the object.
        version: that may be removed; None for the one that is there.

    Raises:
        SourceError: it cannot be removed.
        UsageError: there is no store for the URL.
    """
    store, key = open_store(url)
    with suppress(ConflictError):
        state = stat_object(url) if version is None else None
        version = state.version if state is not None else version
        if version is not None:
            store.delete_if(key, version)


def set_object(url: str, data: bytes) -> ObjectState:
    """Write an object whole, whatever is there.

    Raises:
        OutputError: it cannot be written.
        SourceError: its store cannot be reached.
        UsageError: there is no store for the URL.
    """
    for attempt in range(_TRIES):
        try:
            return write_object(url, data, stat_object(url))
        except ConflictError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("the last attempt returns or raises")
