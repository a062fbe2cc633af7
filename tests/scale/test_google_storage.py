"""Google Cloud Storage: the requests that are made, against a double of gcsfs. No server of it runs here: these tests
show the interface only, not what the service does.
"""

from __future__ import annotations

from typing import Any

import pytest

from codecmeta.errors import ConflictError, OutputError, SourceError
from codecmeta.storage.object_store import ObjectState
from tests.scale.conftest import require

pytestmark = pytest.mark.filterwarnings("ignore")


class HttpError(Exception):
    """Error as gcsfs raises it, with the status of the answer."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self.code = code


class Bucket:
    """Double of GCSFileSystem: objects with generations, and the conditions of the JSON API."""

    _location = "https://storage.googleapis.com"

    def __init__(self, **options: Any) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.generation = 1000
        self.calls: list[tuple[Any, ...]] = []

    def url(self, path: str, generation: str | None = None) -> str:
        return f"download {path.partition('/')[2]} {generation}"

    def facts(self, key: str) -> dict[str, Any]:
        data, generation = self.objects[key]
        return {
            "name": key, "size": str(len(data)), "generation": str(generation), "updated": "2026-01-02T03:04:05.678Z"
        }  # fmt: skip

    def call(self, method: str, path: str, *parts: str, **options: Any) -> Any:
        self.calls.append((method, path, *parts, options))
        if path == "b/{}/o/{}" and method == "GET":
            if parts[1] not in self.objects:
                raise FileNotFoundError(parts[1])
            return self.facts(parts[1])
        if path == "b/{}/o":
            keys = sorted(key for key in self.objects if key.startswith(options["prefix"]))
            begin = int(options.get("pageToken", 0))
            page = {"items": [self.facts(key) for key in keys[begin : begin + 2]]}
            return page | ({"nextPageToken": str(begin + 2)} if begin + 2 < len(keys) else {})
        if method == "GET":
            _, key, generation = path.split(" ")
            data, there = self.objects[key]
            if str(there) != generation:
                raise FileNotFoundError(key)
            first, last = options["headers"]["Range"].removeprefix("bytes=").split("-")
            return {}, data[int(first) : int(last) + 1]
        if method == "DELETE":
            return self.delete(*parts, options["ifGenerationMatch"])
        assert method == "POST"
        key = options["name"]
        there = self.objects[key][1] if key in self.objects else 0
        if str(there) != options["ifGenerationMatch"]:
            raise HttpError(412)
        self.generation += 1
        self.objects[key] = options["data"], self.generation
        return self.facts(key)

    def delete(self, bucket: str, key: str, generation: str) -> None:
        if key not in self.objects:
            raise FileNotFoundError(key)
        if str(self.objects[key][1]) != generation:
            raise HttpError(412)
        del self.objects[key]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    require("gcsfs")
    from codecmeta.storage import google

    monkeypatch.setattr(google, "GCSFileSystem", Bucket)
    return google.GoogleStore("clips")


def test_objects_and_their_generations(store: Any) -> None:
    state = store.put_new("a/b.npz", b"content")
    assert state == ObjectState(7, 1767323045678 * 10**6, "1001") == store.stat("a/b.npz")
    assert store.read("a/b.npz", 1, 4, state) == b"ont"
    assert b"".join(store.stream("a/b.npz", state)) == b"content"
    with pytest.raises(ConflictError, match="exists already"):
        store.put_new("a/b.npz", b"other")
    later = store.replace_if("a/b.npz", b"later", state.version)
    with pytest.raises(ConflictError, match="was replaced since it was read"):
        store.replace_if("a/b.npz", b"lost", state.version)
    with pytest.raises(SourceError) as caught:
        store.read("a/b.npz", 1, 4, state)
    assert caught.value.code == "changed_while_reading"
    assert b"".join(store.stream("a/b.npz", later)) == b"later"


def test_only_the_generation_that_was_read_is_removed(store: Any) -> None:
    state = store.put_new("a", b"first")
    later = store.replace_if("a", b"later", state.version)
    with pytest.raises(ConflictError, match="was replaced"):
        store.delete_if("a", state.version)
    assert store.stat("a") == later
    store.delete_if("a", later.version)
    with pytest.raises(ConflictError):
        store.delete_if("a", later.version)


def test_pages_of_a_list(store: Any) -> None:
    for number in range(5):
        store.put_new(f"a/{number}", b"x")
    store.put_new("b", b"x")
    assert [one.key for one in store.list("a/")] == [f"a/{number}" for number in range(5)]


def test_errors(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError) as caught:
        store.stat("nothing")
    assert caught.value.code == "not_a_file"
    for error, code in ((PermissionError("no"), "permission_denied"), (HttpError(500), "network")):

        def fail(*arguments: Any, raised: Exception = error, **options: Any) -> Any:
            raise raised

        monkeypatch.setattr(Bucket, "call", fail)
        with pytest.raises(SourceError) as caught:
            store.stat("a")
        assert caught.value.code == code
        with pytest.raises(OutputError):
            store.put_new("a", b"")
