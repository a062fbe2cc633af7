"""Google Cloud Storage bucket as an object store, through gcsfs. Versions are generations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

from gcsfs import GCSFileSystem

from codecmeta.errors import ConflictError, OutputError, SourceError
from codecmeta.storage.object_store import ListedObject, ObjectState, seconds_for

_PART = 8 << 20
_LOST = (412, 304)


class GoogleStore:
    """Objects of a bucket, see `ObjectStore`. Credentials are those of gcsfs: `google_default` and its fallbacks.

    Args:
        bucket: its name.
    """

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._files: Any = GCSFileSystem(timeout=seconds_for(_PART), use_listings_cache=False)

    def stat(self, key: str) -> ObjectState:
        """Return the properties of an object, see `ObjectStore`."""
        return _state(self._call("GET", "b/{}/o/{}", self._bucket, key, key=key, json_out=True))

    def read(self, key: str, begin: int, end: int, state: ObjectState) -> bytes:
        """Return bytes of an object, see `ObjectStore`."""
        url = self._files.url(f"{self._bucket}/{key}", generation=state.version)
        try:
            _, data = self._call("GET", url, key=key, headers={"Range": f"bytes={begin}-{end - 1}"})
        except SourceError as error:
            if error.code == "not_a_file":
                # the generation is gone
                raise SourceError("changed_while_reading", "the object was replaced while it was read") from error
            raise
        if len(data) != end - begin:
            raise SourceError("network", f"gs://{self._bucket}/{key}: {len(data)} bytes arrived of {end - begin}")
        return bytes(data)

    def stream(self, key: str, state: ObjectState) -> Iterator[bytes]:
        """Yield the content of an object, see `ObjectStore`."""
        for begin in range(0, state.size, _PART):
            yield self.read(key, begin, min(begin + _PART, state.size), state)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield the objects below a prefix, see `ObjectStore`."""
        token: dict[str, str] = {}
        while True:
            page = self._call("GET", "b/{}/o", self._bucket, key=prefix, prefix=prefix, json_out=True, **token)
            for one in page.get("items", ()):
                yield ListedObject(one["name"], _state(one))
            if "nextPageToken" not in page:
                return
            token = {"pageToken": page["nextPageToken"]}

    def put_new(self, key: str, data: bytes) -> ObjectState:
        """Write a new object, see `ObjectStore`."""
        return self._put(key, data, "0", "exists already")

    def replace_if(self, key: str, data: bytes, version: str) -> ObjectState:
        """Replace an object, see `ObjectStore`."""
        return self._put(key, data, version, "was replaced since it was read")

    def delete_if(self, key: str, version: str) -> None:
        """Remove an object, see `ObjectStore`."""
        try:
            self._call("DELETE", "b/{}/o/{}", self._bucket, key, key=key, ifGenerationMatch=version)
        except SourceError as error:
            if error.code in ("changed_while_reading", "not_a_file"):
                raise ConflictError(None, f"gs://{self._bucket}/{key} was replaced since it was read") from error
            raise

    def _put(self, key: str, data: bytes, generation: str, conflict: str) -> ObjectState:
        path = f"{self._files._location}/upload/storage/v1/b/{quote(self._bucket)}/o"
        url = f"gs://{self._bucket}/{key}"
        try:
            written = self._call(
                "POST",
                path,
                key=key,
                uploadType="media",
                name=key,
                ifGenerationMatch=generation,
                data=data,
                json_out=True,
            )
        except SourceError as error:
            if error.code == "changed_while_reading":
                raise ConflictError(None, f"{url} {conflict}") from error
            raise OutputError(None, f"{url} cannot be written: {error}") from error
        return _state(written)

    def _call(self, method: str, path: str, *parts: str, key: str, **arguments: Any) -> Any:
        url = f"gs://{self._bucket}/{key}"
        try:
            return self._files.call(method, path, *parts, **arguments)
        except FileNotFoundError as error:
            raise SourceError("not_a_file", f"{url}: no such object or bucket") from error
        except PermissionError as error:
            raise SourceError("permission_denied", f"{url}: {error}") from error
        except Exception as error:  # gcsfs and aiohttp raise errors of many types
            code = getattr(error, "code", None)
            if isinstance(error, FileExistsError) or code in _LOST or str(code) in map(str, _LOST):
                raise SourceError("changed_while_reading", "the object was replaced while it was read") from error
            raise SourceError("network", f"{url} cannot be reached ({str(error) or type(error).__name__})") from error


def _state(facts: Any) -> ObjectState:
    modified = datetime.fromisoformat(facts["updated"].replace("Z", "+00:00"))
    return ObjectState(int(facts["size"]), int(modified.timestamp() * 1000) * 10**6, str(facts["generation"]))
