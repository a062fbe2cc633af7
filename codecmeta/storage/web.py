"""Web server as an object store that can only be read: ranges (RFC 9110, 14), each checked to be of one version.

What a server says is a claim: an answer that is not the range of the version that was requested is an error.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from codecmeta.errors import OutputError, SourceError, UsageError
from codecmeta.storage.object_store import (
    CONNECT_SECONDS,
    READ_SECONDS,
    TRIES,
    ListedObject,
    ObjectState,
    seconds_for,
)

_MOST_REDIRECTS = 5
_CHUNK = 1 << 16
_PASSING = (429, 500, 502, 503, 504)
_DENIED, _ABSENT, _REDIRECTS = (401, 403, 407), (404, 410), (301, 302, 303, 307, 308)
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_RETRIES = urllib3.Retry(
    total=TRIES - 1,
    redirect=0,
    status_forcelist=_PASSING,
    backoff_factor=0.2,
    raise_on_status=False,
    raise_on_redirect=False,
    # a server must not choose how long to wait
    respect_retry_after_header=False,
)


class WebStore:
    """Objects of a web server by their paths, see `ObjectStore`.

    Args:
        origin: scheme and host.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._pool = _open_pool(origin)

    def stat(self, key: str) -> ObjectState:
        """Return the properties of an object, see `ObjectStore`, from the answer to a request of its first byte."""
        with self._get(key, {"Range": "bytes=0-0"}, allowed=(200, 206, 416)) as response:
            version, stamp = _version(response), _stamp(response)
            if response.status == 200:
                return ObjectState(_length(response), stamp, version, ranges=False)
            if response.status == 416:
                return ObjectState(0, stamp, version, ranges=False)
            # without a validator, parts could be of different versions
            return ObjectState(self._read_range(key, response)[2], stamp, version, ranges=bool(version))

    def read(self, key: str, begin: int, end: int, state: ObjectState) -> bytes:
        """Return bytes of an object, see `ObjectStore`."""
        parts: list[bytes] = []
        while begin < end:
            # a server may answer with the beginning of what is requested
            parts.append(self._read_part(key, begin, end, state))
            begin += len(parts[-1])
        return b"".join(parts)

    def _read_part(self, key: str, begin: int, end: int, state: ObjectState) -> bytes:
        headers = {"Range": f"bytes={begin}-{end - 1}"}
        if state.version.startswith('"'):
            headers["If-Match"] = state.version
        for attempt in range(TRIES):
            with self._get(key, headers, allowed=(200, 206, 412, 416)) as response:
                if response.status in (412, 416) or _version(response) != state.version:
                    raise SourceError("changed_while_reading", "the file on the server was replaced while it was read")
                if response.status == 200:
                    raise SourceError("network", f"{self._origin} sends the whole file for a range of it")
                first, last, total = self._read_range(key, response)
                if total != state.size:
                    raise SourceError("changed_while_reading", "the length of the file on the server changed")
                if first != begin or last >= end:
                    raise SourceError("network", f"{self._origin} sends bytes {first}-{last} for {begin}-{end - 1}")
                if _length(response) not in (-1, last + 1 - first):
                    raise SourceError("network", f"{self._origin} gives two lengths of a range")
                try:
                    return b"".join(self._receive(response, last + 1 - first))
                except SourceError:
                    if attempt == TRIES - 1:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def stream(self, key: str, state: ObjectState) -> Iterator[bytes]:
        """Yield the content of an object, see `ObjectStore`, from one answer."""
        with self._get(key, {}, allowed=(200,)) as response:
            if _version(response) != state.version or _length(response) != state.size:
                raise SourceError("changed_while_reading", "the file on the server was replaced while it was read")
            yield from self._receive(response, None if state.size < 0 else state.size)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Refuse: web servers do not list what they have."""
        raise UsageError(
            f"{self._origin}/{prefix}: web servers do not list their files; give the URL of each, or a list"
        )

    def put_new(self, key: str, data: bytes) -> ObjectState:
        """Refuse: web servers are only read."""
        raise OutputError(None, f"{self._origin}/{key} cannot be written")

    def replace_if(self, key: str, data: bytes, version: str) -> ObjectState:
        """Refuse: web servers are only read."""
        raise OutputError(None, f"{self._origin}/{key} cannot be written")

    def delete_if(self, key: str, version: str) -> None:
        """Refuse: web servers are only read."""
        raise OutputError(None, f"{self._origin}/{key} cannot be removed")

    @contextmanager
    def _get(self, key: str, headers: dict[str, str], *, allowed: tuple[int, ...]) -> Iterator[Any]:
        """Request an object, following redirects within the web, and close the connection if the body is not read."""
        url = f"{self._origin}/{key}"
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._request(url, headers)
            try:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    url = urljoin(url, response.headers["Location"])
                    if urlsplit(url).scheme not in ("http", "https"):
                        raise SourceError("network", f"{self._origin} redirects to {url[:80]!r}, which is not opened")
                    continue
                self._check(response, allowed)
                yield response
                return
            finally:
                # bytes that were not asked for are not read
                response.close()
        raise SourceError("network", f"{self._origin} redirects more than {_MOST_REDIRECTS} times")

    def _request(self, url: str, headers: dict[str, str]) -> Any:
        try:
            return self._pool.request(
                "GET",
                url,
                headers={"Accept-Encoding": "identity", "User-Agent": "codecmeta", **headers},
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                retries=_RETRIES,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, ValueError, OSError) as error:
            raise SourceError("network", f"{self._origin} cannot be reached ({_explain(error)})") from error

    def _check(self, response: Any, allowed: tuple[int, ...]) -> None:
        status = response.status
        if status in allowed:
            if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
                raise SourceError("network", f"{self._origin} sends the file in another encoding than requested")
            return
        if status in _ABSENT:
            raise SourceError("not_a_file", f"{self._origin} has no such file ({status})")
        if status in _DENIED:
            raise SourceError("permission_denied", f"{self._origin} denies access ({status})")
        raise SourceError("network", f"{self._origin} answers with status {status}")

    def _read_range(self, key: str, response: Any) -> tuple[int, int, int]:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        first, last, total = map(int, match.groups()) if match else (1, 0, 0)
        if not first <= last < total:
            raise SourceError("network", f"{self._origin} sends a range without saying which")
        return first, last, total

    def _receive(self, response: Any, length: int | None) -> Iterator[bytes]:
        """Yield the body, of a known length if that is not None, in reasonable time."""
        begin, arrived = time.monotonic(), 0
        try:
            while length is None or arrived < length:
                part = response.read1(_CHUNK, decode_content=False)
                if not part:
                    break
                arrived += len(part)
                if length is not None and arrived > length:
                    raise SourceError("network", f"{self._origin} sends more bytes than it announces")
                yield part
                if time.monotonic() - begin > seconds_for(arrived):
                    raise SourceError("network", f"{self._origin} sends too slowly: {arrived} bytes so far")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SourceError("network", f"{self._origin} stops sending ({_explain(error)})") from error
        if length is not None and arrived < length:
            raise SourceError("network", f"{self._origin} sends {arrived} bytes of the {length} that it announces")


def _open_pool(origin: str) -> urllib3.PoolManager:
    parts = urlsplit(origin)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, maxsize=8)
    return urllib3.PoolManager(maxsize=8)


def _explain(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason if isinstance(reason, BaseException) else error) or type(error).__name__


def _length(response: Any) -> int:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else -1


def _version(response: Any) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


def _stamp(response: Any) -> int:
    try:
        return int(parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()) * 10**9
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0
