"""Batches under faults of names, folders, disks and other processes (docs/reliability.md lists them)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import codecmeta
from codecmeta.batch.engines import SerialEngine
from codecmeta.batch.inputs import Input, find_inputs
from codecmeta.batch.jobs import Job, extract_inputs
from codecmeta.batch.manifest import Manifest
from codecmeta.batch.outcome import Outcome
from codecmeta.errors import OutputError
from codecmeta.record.options import Options
from tests.codecmeta.make_video import write_video

ROOT = Path(__file__).resolve().parents[3]
PACKETS = Options(frames="uniform:2", residual="none", pixels=None)


@pytest.fixture
def video(tmp_path: Path) -> bytes:
    return write_video(tmp_path / "made.mp4", codec="mpeg4", frames=3, width=32, height=32).read_bytes()


def extract(*sources: str | Path, out: Path, **options: Any) -> list[Outcome]:
    seen: list[Outcome] = []
    inputs = find_inputs([os.fspath(source) for source in sources], out=out, stdin=None)
    arguments = {"options": PACKETS, "engine": SerialEngine(), **options}
    extract_inputs(inputs, out, report=seen.append, **arguments)
    return seen


HOSTILE = (
    b"two words.mp4",
    b"clip:01.mp4",
    b"http:x.mp4",
    b"file:z.mp4",
    b"new\nline.mp4",
    b"tab\t\x1b[31mred.mp4",
    b"-dash.mp4",
    b"%03d.mp4",
    b"*[x]?.mp4",
    b"quote'\".mp4",
    b'", "place": "x.mp4',
    b"back\\.mp4",
    b"@list.mp4",
    b"\xff\xfe.mp4",
    b"n" * 251 + b".mp4",
    b"m" * 251 + b".mp4",
    b"clip.mkv.mp4",
    b"clip.mp4",
    b"clip.m4v",
    unicodedata.normalize("NFC", "é.mp4").encode(),
    unicodedata.normalize("NFD", "é.mp4").encode(),
)


def test_hostile_names(tmp_path: Path, video: bytes) -> None:
    """Each gets a record of its own, is found again, and is in the manifest as it is."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in HOSTILE:
        (folder / os.fsdecode(name)).write_bytes(video)
    if len(list(folder.iterdir())) < len(HOSTILE):
        pytest.skip("the file system takes some of the names for the same")
    seen = extract(folder, out=tmp_path / "meta")
    assert {outcome.status for outcome in seen} == {"done"}
    assert len({outcome.meta for outcome in seen}) == len(HOSTILE)
    assert all(codecmeta.load(outcome.meta).frame_pts.size == 2 for outcome in seen)
    assert {outcome.status for outcome in extract(folder, out=tmp_path / "meta")} == {"kept"}
    lines = (tmp_path / "meta" / "manifest.jsonl").read_text(encoding="ascii").splitlines()
    assert {os.fsencode(Path(json.loads(line)["source"]).name) for line in lines} == set(HOSTILE)
    named = extract(*sorted(folder.iterdir()), out=tmp_path / "meta")
    assert {outcome.status for outcome in named} == {"kept"}, "named, they go where their folder puts them"


def test_links(tmp_path: Path, video: bytes) -> None:
    """Folders of links and loops are not entered; a link that leads nowhere fails by itself."""
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(video)
    (folder / "sub" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self.mp4").symlink_to(folder / "self.mp4")
    (folder / "nowhere.mp4").symlink_to(tmp_path / "missing.mp4")
    (folder / "linked.mp4").symlink_to(tmp_path / "made.mp4")
    seen = {Path(outcome.source).name: outcome for outcome in extract(folder, out=tmp_path / "meta")}
    assert {name: outcome.code for name, outcome in seen.items()} == {
        "a.mp4": "",
        "linked.mp4": "",
        "nowhere.mp4": "not_a_file",
        "self.mp4": "not_a_file",
    }


def test_output_in_and_over_the_input(tmp_path: Path, video: bytes) -> None:
    """What was written there is no input of the next run."""
    folder = tmp_path / "videos"
    (folder / "meta").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(video)
    for out in (folder, folder / "meta"):
        for status in ("done", "kept"):
            assert [outcome.status for outcome in extract(folder, out=out)] == [status]


def refuse_to_open(number: int) -> Callable[..., object]:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return refuse


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse_to_open(errno.EROFS))
    seen: list[Outcome] = []
    item = Input(path=str(tmp_path / "made.mp4"), place="made.mp4.npz")
    with pytest.raises(OutputError, match=r"output folder .*deep/meta: Read-only file system"):
        extract_inputs([item], tmp_path / "deep" / "meta", options=PACKETS, engine=SerialEngine(), report=seen.append)
    assert seen == []
    monkeypatch.undo()
    extract_inputs([item], tmp_path / "deep" / "meta", options=PACKETS, engine=SerialEngine(), report=seen.append)
    assert [outcome.status for outcome in seen] == ["done"], "parents are made"


def test_a_manifest_that_cannot_be_written_ends_the_run(
    tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Manifest, "append", refuse_to_open(errno.ENOSPC))
    with pytest.raises(OutputError, match="No space left on device"):
        extract(tmp_path / "made.mp4", out=tmp_path / "meta")


def test_a_record_is_on_the_disk_before_the_manifest_says_so(
    tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, name, folder, line: whatever a power cut leaves, no line promises what is not there."""
    extract(tmp_path / "made.mp4", out=tmp_path / "meta")
    events: list[str] = []
    fsync, replace, append = os.fsync, Path.replace, Manifest.append

    def watch(name: Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            events.append(name(*arguments))
            return function(*arguments)

        return watched

    def synced(descriptor: int) -> str:
        return "fsync folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "fsync file"

    monkeypatch.setattr(os, "fsync", watch(synced, fsync))
    monkeypatch.setattr(Path, "replace", watch(lambda *_: "rename", replace))
    monkeypatch.setattr(Manifest, "append", watch(lambda *_: "line", append))
    extract(tmp_path / "made.mp4", out=tmp_path / "meta", overwrite=True)
    # the summary of the run comes after
    assert events[: events.index("line") + 1] == ["fsync file", "rename", "fsync folder", "line"]


def test_a_line_that_was_cut(tmp_path: Path, video: bytes) -> None:
    """A killed run leaves half a line; the next one begins another, and trusts those that are whole."""
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(video)
    out = tmp_path / "meta"
    extract(tmp_path / "a.mp4", tmp_path / "b.mp4", out=out)
    manifest = out / "manifest.jsonl"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-30])
    assert [outcome.status for outcome in extract(tmp_path / "a.mp4", tmp_path / "b.mp4", out=out)] == ["kept"] * 2
    lines = manifest.read_text().splitlines()
    assert [line.startswith("{") and line.endswith("}") for line in lines] == [True, False, True]
    manifest.write_bytes(
        b"\xff\x00[" * 50 + b'\n{"place": "a.mp4.npz"\n[1]\n' + b'{"place": "a.mp4.npz", "status": 5}\n'
    )
    assert [outcome.status for outcome in extract(tmp_path / "a.mp4", tmp_path / "b.mp4", out=out)] == ["kept"] * 2


def test_two_processes_on_one_folder(tmp_path: Path, video: bytes) -> None:
    """Both finish with the same files and whole lines."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.mp4").write_bytes(video)
    code = "from codecmeta_cli.codecmeta import main; main()"
    options = ["--jobs", "0", "--residual", "none", "--pixels", "none", "--frames", "uniform:2"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"}
    command = [sys.executable, "-c", code, "extract", str(folder), *options]
    both = [
        subprocess.Popen([*command, "--out", str(tmp_path / "meta")], env=environment, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    lines = [json.loads(line) for line in (tmp_path / "meta" / "manifest.jsonl").read_text().splitlines()]
    assert {line["place"] for line in lines} == {f"{number}.mp4.npz" for number in range(30)}
    extract(folder, out=tmp_path / "alone")
    for path in (tmp_path / "alone").glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "meta" / path.name).read_bytes()


class NoEngine:
    """Runs nothing."""

    def run(self, task: object, jobs: Iterable[Job], *, failure: object) -> Iterator[Outcome]:
        for job in jobs:
            yield Outcome(source=job.source, meta=job.meta, status="failed", code="internal")


def test_a_list_of_many_videos(tmp_path: Path) -> None:
    """Names are not kept: a million takes some hundred megabytes."""
    count = 5_000
    names = [f"/videos/{number % 100:02}/clip-of-a-name-that-is-not-short-{number:07}.mp4" for number in range(count)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    seen = 0

    def report(outcome: Outcome) -> None:
        nonlocal seen
        seen += 1

    tracemalloc.start()
    try:
        inputs = find_inputs([f"@{tmp_path / 'list.txt'}"], out=tmp_path / "meta", stdin=None)
        extract_inputs(inputs, tmp_path / "meta", options=PACKETS, engine=NoEngine(), report=report)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == count
    assert peak < 400 * count, "the names alone take 170 bytes each"


def test_time_is_not_used_for_order(tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps makes nothing stale, and nothing fresh."""
    out = tmp_path / "meta"
    for jump, status in ((0, "done"), (-(10**9), "kept"), (10**9, "kept")):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1.8e9 + jump)
        assert [outcome.status for outcome in extract(tmp_path / "made.mp4", out=out)] == [status]
