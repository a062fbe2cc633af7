"""Object store: objects by key, read in parts, listed by prefix, and written whole if what is there is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

CONNECT_SECONDS, READ_SECONDS, TRIES = 10, 30, 3
"""Seconds to wait for a connection and for the next bytes, and how often a request is tried."""

LEAST_RATE = 1 << 16
"""Bytes per second below which a transfer is given up."""


def seconds_for(length: int) -> float:
    """Return the time after which a request for so many bytes is given up."""
    return TRIES * (CONNECT_SECONDS + READ_SECONDS) + length / LEAST_RATE


class ObjectState(NamedTuple):
    """Properties of one version of an object.

    Attributes:
        size: length in bytes; -1 where the server does not give it.
        mtime_ns: when it was written, in nanoseconds since 1970; 0 where that is unknown.
        version: changes whenever the content does; "" where nothing tells versions apart.
        ranges: whether parts of it can be read, each certain to be of this version.
    """

    size: int
    mtime_ns: int
    version: str
    ranges: bool = True


class ListedObject(NamedTuple):
    """Object of a listing."""

    key: str
    state: ObjectState


class ObjectStore(Protocol):
    """Store of objects.

    All methods raise `SourceError`: `not_a_file` where there is no such object, `permission_denied`,
    `changed_while_reading` where it is no longer of the version given, and `network` where the store cannot be reached,
    takes too long, or answers with something else than was requested.
    """

    def stat(self, key: str) -> ObjectState:
        """Return the properties of an object."""
        ...

    def read(self, key: str, begin: int, end: int, state: ObjectState) -> bytes:
        """Return all bytes between two positions of one version of an object."""
        ...

    def stream(self, key: str, state: ObjectState) -> Iterator[bytes]:
        """Yield the content of one version of an object in parts."""
        ...

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects whose keys begin with a prefix, in the order of their keys, as the store gives them."""
        ...

    def put_new(self, key: str, data: bytes) -> ObjectState:
        """Write an object whole, if there is none.

        Raises:
            ConflictError: there is one.
            OutputError: it cannot be written.
        """
        ...

    def replace_if(self, key: str, data: bytes, version: str) -> ObjectState:
        """Replace an object whole, if it is still of the version that was read.

        Raises:
            ConflictError: it is not.
            OutputError: it cannot be written.
        """
        ...

    def delete_if(self, key: str, version: str) -> None:
        """Remove an object, if it is still of the version that was read.

        Raises:
            ConflictError: it is not, or there is none.
        """
        ...
