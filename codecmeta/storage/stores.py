"""Stores that URLs lead to, each imported when it is needed: its packages may be missing, and take time to load."""

from __future__ import annotations

from codecmeta.errors import UsageError
from codecmeta.storage.address import Address, parse_url
from codecmeta.storage.object_store import ObjectStore


def open_store(url: str) -> tuple[ObjectStore, str]:
    """Return the store of a URL and the key in it.

    Raises:
        UsageError: there is no store for the URL, or the package that reaches it is not installed.
    """
    return store_of(parse_url(url))


def store_of(address: Address) -> tuple[ObjectStore, str]:
    """Return the store of an address and the key in it, see `open_store`."""
    try:
        if address.scheme == "s3":
            from codecmeta.storage.s3 import S3Store

            return S3Store(address.bucket), address.key
        if address.scheme == "gs":
            from codecmeta.storage.google import GoogleStore

            return GoogleStore(address.bucket), address.key
        if address.scheme == "memory":
            from codecmeta.storage.memory import MemoryStore

            return MemoryStore(), address.key
        from codecmeta.storage.web import WebStore

        return WebStore(f"{address.scheme}://{address.bucket}"), address.key
    except ImportError as error:
        raise UsageError(f"{address.scheme}:// needs {error.name}: pip install 'codecmeta[cloud]'") from error
