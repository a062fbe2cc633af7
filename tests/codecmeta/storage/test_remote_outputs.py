"""Records below a URL: resumed, shared by runs, and never overwritten unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from codecmeta_cli.codecmeta import app

pytest.importorskip("fsspec", reason="fsspec is not installed: URLs were NOT tested")
pytest.importorskip("urllib3", reason="urllib3 is not installed: URLs were NOT tested")

from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

import codecmeta
from codecmeta import Options, Outcome, UsageError
from codecmeta.batch import jobs, remote_output
from codecmeta.batch.folder_status import find_unfinished, open_folder, read_status
from codecmeta.errors import ConflictError, OutputError, SourceError
from codecmeta.storage.memory import MemoryStore
from codecmeta.storage.objects import read_object, set_object, stat_object, write_object

LIGHT = Options(frames="uniform:2", residual="none", pixels=32)
META = "memory://meta"


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    MemoryFileSystem.store.clear()
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture
def videos(data: Path) -> str:
    for place in ("a/event_h264.mp4", "b/event_h264.mp4", "still_h264.mp4"):
        MemoryFileSystem().pipe_file(f"/videos/{place}", (data / Path(place).name).read_bytes())
    MemoryFileSystem().pipe_file("/videos/text.mp4", b"no video")
    MemoryFileSystem().pipe_file("/videos/notes.txt", b"no video either")
    return "memory://videos"


def run(sources: Any, out: str = META, **options: Any) -> dict[str, list[Outcome]]:
    seen: dict[str, list[Outcome]] = {"done": [], "kept": [], "failed": []}
    named: dict[str, Any] = {"options": LIGHT, "jobs": 0} | options
    codecmeta.extract_many(sources, out, **named, report=lambda one: seen[one.status].append(one))
    return seen


def test_a_bucket_becomes_a_bucket(videos: str) -> None:
    first = run(videos)
    assert [len(first[status]) for status in ("done", "kept", "failed")] == [3, 0, 1]
    assert {one.meta for one in first["done"]} == {
        f"{META}/{name}.npz" for name in ("a/event_h264.mp4", "b/event_h264.mp4", "still_h264.mp4")
    }
    assert all(one.bytes_read for one in first["done"])
    assert "bytes_read" in json.loads(first["done"][0].json())
    assert codecmeta.load(f"{META}/a/event_h264.mp4.npz").frame_packet.size == 2
    with open_folder(META) as folder:
        status = read_status(folder)
        assert (status.done, status.failed, status.missing, status.gone) == (3, 1, 0, 0)
        assert [item.place for item in find_unfinished(folder)] == ["text.mp4.npz"]


def test_records_are_those_of_a_local_folder_byte_for_byte(data: Path, tmp_path: Path) -> None:
    run(data / "event_h264.mp4")
    run(data / "event_h264.mp4", str(tmp_path))
    local = tmp_path / "event_h264.mp4.npz"
    assert read_object(f"{META}/event_h264.mp4.npz", most_bytes=1 << 30) == local.read_bytes()
    codecmeta.load(local).save("memory://copy.npz", deflate=True)
    assert codecmeta.load("memory://copy.npz").info == codecmeta.load(local).info


def test_a_later_run_does_what_is_missing_or_stale(videos: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(videos)
    MemoryFileSystem().rm_file("/videos/text.mp4")
    # what is known from listings and manifests is not opened
    monkeypatch.setattr(jobs, "find_fresh", None)
    assert len(run(videos)["kept"]) == 3
    monkeypatch.undo()
    MemoryFileSystem().pipe_file("/videos/still_h264.mp4", (data / "event_h264.mp4").read_bytes())
    MemoryFileSystem().rm_file("/meta/a/event_h264.mp4.npz")
    after = run(videos)
    assert sorted(one.source for one in after["done"]) == [f"{videos}/a/event_h264.mp4", f"{videos}/still_h264.mp4"]
    assert len(after["kept"]) == 1


def test_a_run_that_was_killed_is_resumed_from_the_records(videos: str) -> None:
    """What a run reports is written at intervals; the records themselves are found."""
    run(videos)
    for path in list(MemoryFileSystem.store):
        if path.startswith("/meta/manifest"):
            MemoryFileSystem().rm_file(path)
    assert len(run(videos)["kept"]) == 3


def test_a_version_that_is_known_is_not_read_again(
    videos: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a video in a list, whose length no listing gives, the properties are enough."""
    listed = tmp_path / "list.txt"
    listed.write_text(f"{videos}/still_h264.mp4\n")
    run(f"@{listed}")
    read: list[str] = []
    original = MemoryStore.read

    def note(self: MemoryStore, key: str, *arguments: Any) -> bytes:
        read.append(key)
        return original(self, key, *arguments)

    monkeypatch.setattr(MemoryStore, "read", note)
    assert len(run(f"@{listed}")["kept"]) == 1
    assert not [key for key in read if key.endswith(".mp4")]
    assert [key for key in read if key.endswith(".npz")]


def test_manifests_are_written_in_parts(videos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_output, "_PART_LINES", 1)
    run(videos)
    parts = [path for path in MemoryFileSystem.store if path.startswith("/meta/manifest")]
    assert len(parts) == 4
    with open_folder(META) as folder:
        assert read_status(folder).done == 3


def test_other_options_are_refused_and_taken_over(videos: str) -> None:
    run(videos)
    other = Options(frames="uniform:3", residual="none", pixels=32)
    with pytest.raises(UsageError, match="holds records of other options"):
        run(videos, options=other)
    assert len(run(videos, options=other, overwrite=True)["done"]) == 3
    assert codecmeta.load(f"{META}/still_h264.mp4.npz").frame_packet.size == 3


def test_a_run_record_that_another_run_writes_first(videos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryStore.put_new

    def late(self: MemoryStore, key: str, data: bytes) -> Any:
        if key.endswith("run.json") and f"/{key}" not in MemoryFileSystem.store:
            original(self, key, data.replace(b'"uniform:2"', b'"uniform:5"'))
        return original(self, key, data)

    monkeypatch.setattr(MemoryStore, "put_new", late)
    with pytest.raises(UsageError, match="holds records of other options"):
        run(videos)


@pytest.mark.parametrize("theirs", ["same", "other"])
def test_the_loser_of_two_writers_learns_it(videos: str, monkeypatch: pytest.MonkeyPatch, theirs: str) -> None:
    """A record of the same video and options is kept, with a remark; any other is a failure, and stays."""
    frames = "uniform:2" if theirs == "same" else "uniform:4"
    record = codecmeta.extract(f"{videos}/still_h264.mp4", frames=frames, residual="none", pixels=32)
    original = MemoryStore.put_new

    def late(self: MemoryStore, key: str, data: bytes) -> Any:
        if key.endswith(".npz"):
            original(self, key, record.encode("theirs"))
        return original(self, key, data)

    monkeypatch.setattr(MemoryStore, "put_new", late)
    seen = run(f"{videos}/still_h264.mp4")
    if theirs == "same":
        assert "another run wrote the record first" in seen["kept"][0].warnings
    else:
        assert seen["failed"][0].code == "conflict"
    assert codecmeta.load(f"{META}/still_h264.mp4.npz").frame_packet.size == record.frame_packet.size


def test_a_record_that_was_replaced_since_it_was_read_stays(videos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"{videos}/still_h264.mp4"
    run(source)
    original = MemoryStore.replace_if
    record = codecmeta.extract(source, frames="uniform:4", residual="none", pixels=32).encode("theirs")

    def late(self: MemoryStore, key: str, data: bytes, version: str) -> Any:
        if key.endswith(".npz"):
            original(self, key, record, self.stat(key).version)
        return original(self, key, data, version)

    monkeypatch.setattr(MemoryStore, "replace_if", late)
    seen = run(source, overwrite=True)
    assert seen["failed"][0].code == "conflict"
    assert codecmeta.load(f"{META}/still_h264.mp4.npz").frame_packet.size == 4


def test_objects_are_written_if_they_are_what_was_seen() -> None:
    first = write_object("memory://a", b"one", None)
    assert stat_object("memory://a") == first
    with pytest.raises(ConflictError):
        write_object("memory://a", b"two", None)
    second = write_object("memory://a", b"two", first)
    with pytest.raises(ConflictError):
        write_object("memory://a", b"three", first)
    assert read_object("memory://a", most_bytes=10) == b"two"
    assert set_object("memory://a", b"four").version != second.version
    with pytest.raises(SourceError) as caught:
        read_object("memory://a", most_bytes=3)
    assert caught.value.code == "limit_exceeded"
    with pytest.raises(FileNotFoundError):
        read_object("memory://b", most_bytes=3)


def test_a_store_that_fails_ends_the_run(videos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: MemoryStore, prefix: str) -> Any:
        raise SourceError("network", "no route")

    monkeypatch.setattr(MemoryStore, "list", fail)
    with pytest.raises(UsageError, match="no route"):
        run(videos)
    with pytest.raises(OutputError, match="no route"):
        run(f"{videos}/still_h264.mp4")


def test_sources_that_lead_to_nothing() -> None:
    for source in ("memory://nothing", "memory://nothing/*.mp4", "ftp://host/a.mp4"):
        with pytest.raises(UsageError):
            run(source)
    with pytest.raises(UsageError, match="this process only"):
        codecmeta.extract_many("memory://nothing", META, jobs=2)


def test_lists_name_urls(videos: str, tmp_path: Path, data: Path) -> None:
    """Files of one name keep their paths below what they share."""
    listed = tmp_path / "list.txt"
    listed.write_text(f"{videos}/a/event_h264.mp4\n{videos}/b/event_h264.mp4\n{data / 'still_h264.mp4'}\n")
    seen = run(f"@{listed}")
    assert {one.meta for one in seen["done"]} == {
        f"{META}/{name}.npz" for name in ("a/event_h264.mp4", "b/event_h264.mp4", "still_h264.mp4")
    }


@pytest.mark.parametrize("options", [("--jobs", "1"), ("--jobs", "0")])
def test_memory_is_out_of_the_reach_of_workers(videos: str, data: Path, options: tuple[str, str]) -> None:
    """Records that workers write into their own memory are lost: the command does not call them done."""
    what = ("--residual", "none", "--pixels", "none")
    result = CliRunner().invoke(app, ["extract", str(data / "still_h264.mp4"), "--out", META, *what, *options])
    there = stat_object(f"{META}/still_h264.mp4.npz") is not None
    assert (result.exit_code, there) == ((0, True) if options[1] == "0" else (2, False))
    assert there or "use --jobs 0" in result.stderr
