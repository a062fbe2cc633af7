"""Memory of this process as an object store, `memory://` of fsspec: for tests and examples."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from fsspec.implementations.memory import MemoryFileSystem

from codecmeta.errors import ConflictError, SourceError
from codecmeta.storage.object_store import ListedObject, ObjectState

_PART = 1 << 20
_WRITING = threading.Lock()


class MemoryStore:
    """Objects in the memory of this process, see `ObjectStore`."""

    def __init__(self) -> None:
        self._files = MemoryFileSystem()

    def stat(self, key: str) -> ObjectState:
        """Return the properties of an object, see `ObjectStore`."""
        file = self._files.store.get(f"/{key}")
        if file is None:
            raise SourceError("not_a_file", "no such object in the memory of this process")
        stamp = file.modified
        return ObjectState(file.getbuffer().nbytes, int(stamp.timestamp() * 1e6) * 1000, stamp.isoformat())

    def read(self, key: str, begin: int, end: int, state: ObjectState) -> bytes:
        """Return bytes of an object, see `ObjectStore`."""
        if self.stat(key) != state:
            raise SourceError("changed_while_reading", "the object was replaced while it was read")
        return bytes(self._files.store[f"/{key}"].getbuffer()[begin:end])

    def stream(self, key: str, state: ObjectState) -> Iterator[bytes]:
        """Yield the content of an object, see `ObjectStore`."""
        for begin in range(0, state.size, _PART):
            yield self.read(key, begin, min(begin + _PART, state.size), state)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects below a prefix, see `ObjectStore`."""
        for path in sorted(self._files.store):
            if path.startswith(f"/{prefix}"):
                yield ListedObject(path[1:], self.stat(path[1:]))

    def put_new(self, key: str, data: bytes) -> ObjectState:
        """Write a new object, see `ObjectStore`."""
        with _WRITING:
            if f"/{key}" in self._files.store:
                raise ConflictError(None, f"memory://{key} exists already")
            self._files.pipe_file(f"/{key}", data)
            return self.stat(key)

    def delete_if(self, key: str, version: str) -> None:
        """Remove an object, see `ObjectStore`."""
        with _WRITING:
            if f"/{key}" not in self._files.store or self.stat(key).version != version:
                raise ConflictError(None, f"memory://{key} was replaced since it was read")
            self._files.rm_file(f"/{key}")

    def replace_if(self, key: str, data: bytes, version: str) -> ObjectState:
        """Replace an object, see `ObjectStore`."""
        with _WRITING:
            if f"/{key}" not in self._files.store or self.stat(key).version != version:
                raise ConflictError(None, f"memory://{key} was replaced since it was read")
            self._files.pipe_file(f"/{key}", data)
            return self.stat(key)
