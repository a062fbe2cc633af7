"""S3 bucket as an object store, through s3fs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from fsspec.asyn import sync
from s3fs import S3FileSystem

from codecmeta.errors import ConflictError, OutputError, SourceError
from codecmeta.storage.object_store import CONNECT_SECONDS, READ_SECONDS, TRIES, ListedObject, ObjectState, seconds_for

_PART = 8 << 20
_CONFIGURATION = {
    "connect_timeout": CONNECT_SECONDS,
    "read_timeout": READ_SECONDS,
    "retries": {"max_attempts": TRIES, "mode": "standard"},
}
_LOST = frozenset(("PreconditionFailed", "ConditionalRequestConflict", "412", "409"))


class S3Store:
    """Objects of a bucket, see `ObjectStore`. Credentials, region and endpoint are those of the AWS command line.

    Args:
        bucket: its name.
    """

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._files = S3FileSystem(config_kwargs=_CONFIGURATION, use_listings_cache=False)

    def stat(self, key: str) -> ObjectState:
        """Return the properties of an object, see `ObjectStore`."""
        found = self._call("head_object", key, Key=key)
        return _state(found["ContentLength"], found["LastModified"], found["ETag"])

    def read(self, key: str, begin: int, end: int, state: ObjectState) -> bytes:
        """Return bytes of an object, see `ObjectStore`."""
        found = self._call(
            "get_object", key, end - begin, Key=key, Range=f"bytes={begin}-{end - 1}", IfMatch=state.version
        )
        if found["ETag"] != state.version:
            raise SourceError("changed_while_reading", "the object was replaced while it was read")
        data: bytes = found["Body"]
        if len(data) != end - begin:
            raise SourceError("network", f"{self._url(key)}: {len(data)} bytes arrived of {end - begin}")
        return data

    def stream(self, key: str, state: ObjectState) -> Iterator[bytes]:
        """Yield the content of an object, see `ObjectStore`."""
        for begin in range(0, state.size, _PART):
            yield self.read(key, begin, min(begin + _PART, state.size), state)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects below a prefix, see `ObjectStore`."""
        token: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", prefix, Prefix=prefix, **token)
            for one in page.get("Contents", ()):
                yield ListedObject(one["Key"], _state(one["Size"], one["LastModified"], one["ETag"]))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def put_new(self, key: str, data: bytes) -> ObjectState:
        """Write a new object, see `ObjectStore`."""
        return self._put(key, data, "exists already", IfNoneMatch="*")

    def replace_if(self, key: str, data: bytes, version: str) -> ObjectState:
        """Replace an object, see `ObjectStore`."""
        return self._put(key, data, "was replaced since it was read", IfMatch=version)

    def delete_if(self, key: str, version: str) -> None:
        """Remove an object, see `ObjectStore`.

        Not every store knows conditions of a removal: a writer between the comparison and the removal loses its object.
        """
        try:
            there = self.stat(key)
        except SourceError as error:
            if error.code == "not_a_file":
                raise ConflictError(None, f"{self._url(key)} is gone") from error
            raise
        if there.version != version:
            raise ConflictError(None, f"{self._url(key)} was replaced since it was read")
        self._call("delete_object", key, Key=key)

    def _put(self, key: str, data: bytes, conflict: str, **condition: str) -> ObjectState:
        try:
            written = self._call("put_object", key, len(data), Key=key, Body=data, **condition)
            found = self.stat(key)
        except SourceError as error:
            gone = error.code == "not_a_file" and "IfMatch" in condition
            if gone or error.code == "changed_while_reading":
                raise ConflictError(None, f"{self._url(key)} {conflict}") from error
            raise OutputError(None, f"{self._url(key)} cannot be written: {error}") from error
        if found.version != written["ETag"]:
            raise ConflictError(None, f"{self._url(key)} was replaced as soon as it was written")
        return found

    def _url(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def _call(self, method: str, key: str, length: int = 0, **arguments: Any) -> dict[str, Any]:
        files = self._files

        async def call() -> dict[str, Any]:
            found: dict[str, Any] = await files._call_s3(method, Bucket=self._bucket, **arguments)
            if method == "get_object":
                async with found["Body"] as body:
                    # a server that ignores the range would send the whole object into memory
                    if found["ContentLength"] > length:
                        raise SourceError("network", f"{self._url(key)}: the whole object is sent for a range of it")
                    found["Body"] = await body.read()
            return found

        try:
            result: dict[str, Any] = sync(files.loop, call, timeout=seconds_for(length))
        except FileNotFoundError as error:
            raise SourceError("not_a_file", f"{self._url(key)}: no such object or bucket") from error
        except PermissionError as error:
            raise SourceError("permission_denied", f"{self._url(key)}: {error}") from error
        except SourceError:
            raise
        except Exception as error:  # botocore and aiohttp raise errors of many types
            if _code(error) in _LOST:
                raise SourceError("changed_while_reading", "the object was replaced while it was read") from error
            if type(error).__name__ == "NoCredentialsError":
                raise SourceError("permission_denied", f"{self._url(key)}: no credentials") from error
            reason = str(error) or type(error).__name__
            raise SourceError("network", f"{self._url(key)} cannot be reached ({reason})") from error
        return result


def _code(error: BaseException | None) -> str:
    """Return the code of the S3 error that an error was translated from."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def _state(size: int, modified: datetime, tag: str) -> ObjectState:
    # listings give milliseconds, headers seconds
    return ObjectState(int(size), int(modified.timestamp()) * 10**9, tag)
