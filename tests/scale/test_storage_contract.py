"""The contract of stores: objects whole or not at all, conditional writes, lists, and the same records from all."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import codecmeta
from codecmeta import Options, Outcome, SourceError
from codecmeta.errors import ConflictError
from codecmeta.record.fields import FIELDS
from codecmeta.storage import remote_file
from codecmeta.storage.object_store import ObjectStore
from codecmeta.storage.objects import read_object, remove_object, stat_object
from codecmeta.storage.opening import open_source
from codecmeta.storage.stores import open_store
from tests.codecmeta.make_video import write_video
from tests.scale.conftest import BUCKET, require

pytestmark = pytest.mark.filterwarnings("ignore")
LIGHT = Options(frames="uniform:2", residual="none", pixels=32)


def put(url: str, data: bytes) -> None:
    store, key = open_store(url)
    store.put_new(key, data)


def test_objects_are_read_by_ranges_of_one_version(folder: str) -> None:
    store, key = open_store(f"{folder}/a b+ü%20.bin")
    content = secrets.token_bytes(100_000)
    state = store.put_new(key, content)
    assert state == store.stat(key)
    assert state.size == 100_000
    assert state.version
    assert abs(state.mtime_ns / 1e9 - time.time()) < 60
    assert store.read(key, 5, 500, state) == content[5:500]
    assert store.read(key, 99_999, 100_000, state) == content[-1:]
    assert b"".join(store.stream(key, state)) == content
    store.replace_if(key, content[::-1], state.version)
    with pytest.raises(SourceError) as caught:
        store.read(key, 5, 500, state)
    assert caught.value.code == "changed_while_reading"
    with pytest.raises(SourceError) as caught:
        store.stat(key + "x")
    assert caught.value.code == "not_a_file"


def test_a_list_streams_and_is_current(folder: str) -> None:
    store, key = open_store(folder)
    names = sorted(f"{key}/{number:03d}" for number in range(12))
    for name in names:
        store.put_new(name, b"x" * 3)
    store.put_new(f"{key}x", b"of another folder")
    found = list(store.list(f"{key}/"))
    assert [one.key for one in found] == names
    assert all(one.state == store.stat(one.key) for one in found)
    store.put_new(f"{key}/later", b"")
    assert len(list(store.list(f"{key}/"))) == 13


def test_pages_of_a_list(s3: str) -> None:
    store, key = open_store(f"{s3}/many")
    client = require("boto3").client("s3")
    for number in range(105):
        client.put_object(Bucket=BUCKET, Key=f"{key}/{number:04d}.mp4", Body=b"x")
    assert [one.key for one in store.list(f"{key}/")] == [f"{key}/{number:04d}.mp4" for number in range(105)]


@pytest.mark.parametrize("before", [True, False])
def test_one_of_many_writers_wins(folder: str, before: bool) -> None:
    url = f"{folder}/object"
    store, key = open_store(url)
    state = store.put_new(key, b"before") if before else None
    lost: list[int] = []
    won: list[int] = []

    def write(number: int) -> None:
        own: ObjectStore = open_store(url)[0]
        data = f"writer {number}".encode()
        try:
            if state is None:
                own.put_new(key, data)
            else:
                own.replace_if(key, data, state.version)
            won.append(number)
        except ConflictError:
            lost.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)
    assert read_object(url, most_bytes=100) == f"writer {won[0]}".encode()


def test_only_the_version_that_was_read_is_removed(folder: str) -> None:
    url = f"{folder}/object"
    store, key = open_store(url)
    state = store.put_new(key, b"first")
    store.replace_if(key, b"another", state.version)
    with pytest.raises(ConflictError):
        store.delete_if(key, state.version)
    remove_object(url, state.version)
    assert read_object(url, most_bytes=100) == b"another"
    remove_object(url)
    assert stat_object(url) is None
    remove_object(url)
    with pytest.raises(ConflictError):
        store.delete_if(key, state.version)


WRITER = """
import sys
from codecmeta.storage.stores import open_store
store, key = open_store(sys.argv[1])
print("ready", flush=True)
store.put_new(key, b"whole" * 8_000_000)
print("done", flush=True)
"""


def test_a_writer_that_is_killed_leaves_no_object_or_a_whole_one(s3: str) -> None:
    """Whenever it is killed, and the next writer may begin at once."""
    killed = 0
    for wait in (0.0, 0.01, 0.03, 0.06, 0.1):
        url = f"{s3}/killed-{wait}"
        child = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, env=os.environ)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0]
        time.sleep(0.2)
        state = stat_object(url)
        assert state is None or state.size == 40_000_000
        killed += state is None and b"done" not in rest
    assert killed


def run(sources: Any, out: str, **options: Any) -> list[Outcome]:
    seen: list[Outcome] = []
    named: dict[str, Any] = {"options": LIGHT, "jobs": 0} | options
    codecmeta.extract_many(sources, out, **named, report=seen.append)
    return seen


def without_source(meta: codecmeta.VideoMeta) -> dict[str, Any]:
    arrays = {name: array.tobytes() for name in FIELDS if (array := getattr(meta, name)) is not None}
    info = {name: value for name, value in meta.info.items() if name != "source"}
    return {"info": json.dumps(info), **arrays}


def test_records_are_the_same_from_and_to_every_store(folder: str, data: Path, tmp_path: Path) -> None:
    names = ("event_h264.mp4", "cut_h264.mkv")
    for name in names:
        put(f"{folder}/videos/{name}", (data / name).read_bytes())
    # a video by URL gives the record of the local file, but for its source
    assert [one.status for one in run(f"{folder}/videos", f"{folder}/meta")] == ["done", "done"]
    assert [one.status for one in run(f"{folder}/videos", f"{folder}/meta")] == ["kept", "kept"]
    run([data / name for name in names], str(tmp_path / "local"))
    for name in names:
        remote, local = codecmeta.load(f"{folder}/meta/{name}.npz"), codecmeta.load(tmp_path / "local" / f"{name}.npz")
        assert without_source(remote) == without_source(local)
        assert [remote.info["source"][key] for key in ("name", "bytes", "sha256")] == [
            local.info["source"][key] for key in ("name", "bytes", "sha256")
        ]
    # and a local video the same bytes in every store
    run([data / name for name in names], f"{folder}/copies")
    for name in names:
        written = read_object(f"{folder}/copies/{name}.npz", most_bytes=1 << 30)
        assert written == (tmp_path / "local" / f"{name}.npz").read_bytes()


def test_frames_of_an_index_are_read_by_ranges(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "WHOLE_BYTES", 0)
    options = {"g": "40", "sc_threshold": "0", "qp": "12"}
    path = write_video(tmp_path / "clip.mp4", frames=400, width=320, height=240, options=options)
    put(f"{folder}/clip.mp4", path.read_bytes())
    wanted: dict[str, Any] = {"frames": "uniform:2", "residual": "none", "pixels": 64}
    remote, local = codecmeta.extract(f"{folder}/clip.mp4", **wanted), codecmeta.extract(path, **wanted)
    assert remote.info["source"]["access"] == "ranges"
    for name in FIELDS:
        there, here = getattr(remote, name), getattr(local, name)
        if name not in ("packet_type", "packet_shown"):
            assert (there is None and here is None) or np.array_equal(there, here)


class Flood:
    """Body of an answer that holds more than memory does."""

    async def __aenter__(self) -> Flood:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def read(self) -> bytes:
        raise AssertionError("it was read")


def test_a_server_of_s3_that_ignores_ranges(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(f"{s3}/ranges.bin", b"0123456789")
    store, key = open_store(f"{s3}/ranges.bin")
    state = store.stat(key)
    assert store.read(key, 2, 5, state) == b"234"

    async def send_all(method: str, **arguments: Any) -> dict[str, Any]:
        return {"ContentLength": 1 << 40, "ETag": state.version, "Body": Flood()}

    monkeypatch.setattr(store._files, "_call_s3", send_all)
    with pytest.raises(SourceError, match="the whole object is sent for a range of it") as caught:
        store.read(key, 2, 5, state)
    assert caught.value.code == "network"


def test_an_object_that_is_replaced_while_it_is_read(folder: str) -> None:
    url, content = f"{folder}/large.bin", secrets.token_bytes(1_000_000)
    put(url, content)
    with open_source(url) as source:
        assert source.read_at(0, 8) == content[:8]
        store, key = open_store(url)
        store.replace_if(key, content[::-1], store.stat(key).version)
        assert source.read_at(100, 8) == content[100:108]
        with pytest.raises(SourceError) as caught:
            source.read_at(900_000, 8)
        assert caught.value.code == "changed_while_reading"
        with pytest.raises(SourceError):
            source.check()


def test_workers_of_two_runs_at_once(s3: str, data: Path) -> None:
    """Both end, no record is lost or of the wrong bytes, and the manifest has all."""
    base = f"{s3}/two"
    for number in range(4):
        put(f"{base}/videos/{number}.mp4", (data / "still_h264.mp4").read_bytes())
    outcomes: list[list[Outcome]] = [[], []]

    def go(turn: int) -> None:
        outcomes[turn] = run(f"{base}/videos", f"{base}/meta")

    threads = [threading.Thread(target=go, args=(turn,)) for turn in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.status for turn in outcomes for one in turn].count("failed") == 0
    assert sum(one.status == "done" for turn in outcomes for one in turn) == 4
    for number in range(4):
        assert codecmeta.load(f"{base}/meta/{number}.mp4.npz").frame_packet.size == 2


def test_denied_and_absent_buckets(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError) as caught:
        codecmeta.extract("s3://no-such-bucket-here/clip.mp4")
    assert caught.value.code in ("not_a_file", "permission_denied")


def test_status_by_command(s3: str, data: Path) -> None:
    from codecmeta_cli.codecmeta import app
    from typer.testing import CliRunner

    base = f"{s3}/command"
    put(f"{base}/videos/a.mp4", (data / "still_h264.mp4").read_bytes())
    put(f"{base}/videos/b.mp4", b"no video")
    options = ["--frames", "uniform:2", "--residual", "none", "--pixels", "32", "--jobs", "0", "--json"]
    runner = CliRunner()
    done = runner.invoke(app, ["extract", f"{base}/videos", "--out", f"{base}/meta", *options])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["status"] for line in lines} == {"done", "failed"}
    assert done.exit_code == 1
    state = json.loads(runner.invoke(app, ["status", f"{base}/meta", "--json"]).stdout)
    assert (state["done"], state["failed"], state["missing"]) == (1, 1, 0)
    store, key = open_store(f"{base}/videos/b.mp4")
    store.replace_if(key, (data / "event_h264.mp4").read_bytes(), store.stat(key).version)
    assert runner.invoke(app, ["retry", f"{base}/meta", "--jobs", "0"]).exit_code == 0
    state = json.loads(runner.invoke(app, ["status", f"{base}/meta", "--json"]).stdout)
    assert (state["done"], state["failed"], state["missing"]) == (2, 0, 0)
