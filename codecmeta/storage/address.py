"""Address of a stored object: a local path, or a URL."""

from __future__ import annotations

import os
import re
from typing import NamedTuple, TypeAlias, TypeGuard
from urllib.parse import unquote, urlsplit

from codecmeta.errors import UsageError

Place: TypeAlias = "str | os.PathLike[str]"

READ = ("s3", "gs", "memory", "http", "https")
"""Schemes of URLs that can be read."""

WRITTEN = ("s3", "gs", "memory")
"""Schemes of URLs that can be written."""

_SHORT_URL = re.compile(rf"({'|'.join(READ)}):/(?!/)", re.IGNORECASE)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)


class Address(NamedTuple):
    """URL of an object or of a prefix that objects share.

    Attributes:
        scheme: in lower case.
        bucket: bucket of a store, host of a web server, "" in memory.
        key: the rest: path, and of a web address the query.
    """

    scheme: str
    bucket: str
    key: str


def is_url(place: Place) -> TypeGuard[str]:
    """Return whether a place is a URL; a local path that contains :// is written ./name."""
    return isinstance(place, str) and "://" in place and _URL.match(place) is not None


def check_slashes(place: str) -> None:
    """Refuse a local path that is a URL without one of its slashes, as pathlib.Path makes it.

    Raises:
        UsageError: it is.
    """
    if match := _SHORT_URL.match(place):
        raise UsageError(
            f"{place!r} has one slash of {match[1]}://; pathlib.Path drops the other: give a URL as a string, and a "
            f"folder of this name as {f'./{place}'!r}"
        )


def parse_url(url: str) -> Address:
    """Split a URL.

    Raises:
        UsageError: its scheme is none of `READ`, or it names no bucket or host.
    """
    match = _URL.match(url)
    scheme = "" if match is None else match[1].lower()
    if match is None or scheme not in READ:
        raise UsageError(
            f"{url!r}; allowed are local paths, and URLs that begin with {', '.join(f'{s}://' for s in READ)}"
        )
    if scheme == "memory":
        return Address(scheme, "", match[2].strip("/"))
    bucket, _, key = match[2].partition("/")
    if not bucket:
        raise UsageError(f"{url!r} names no {'host' if scheme.startswith('http') else 'bucket'}")
    return Address(scheme, bucket, key)


def check_output(url: str) -> str:
    """Return the URL of an output folder without a slash at its end.

    Raises:
        UsageError: nothing can be written there.
    """
    address = parse_url(url)
    if address.scheme not in WRITTEN:
        raise UsageError(
            f"{url!r} cannot be written; allowed are local folders, and URLs that begin with "
            f"{', '.join(f'{s}://' for s in WRITTEN)}"
        )
    return url.rstrip("/")


def name_of(place: Place) -> str:
    """Return the last part of a path or URL."""
    if not is_url(place):
        return os.path.basename(os.fspath(place))  # noqa: PTH119 - of a million files
    path = urlsplit(place).path if place.lower().startswith("http") else place.split("://", 1)[1]
    last = path.rstrip("/").rpartition("/")[2]
    return unquote(last) if place.lower().startswith("http") else last
