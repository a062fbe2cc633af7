"""The contract of engines: the same results from all of them, and a job that misbehaves costs itself only."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from codecmeta.batch.engines import Engine, SerialEngine
from codecmeta.batch.inputs import Input
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.outcome import Outcome
from codecmeta.record.options import Options
from tests.scale.conftest import Bench


@dataclass(frozen=True)
class Deed:
    """What a job does."""

    number: int
    deed: str = "work"
    seconds: float = 0.0
    place: str = ""


def act(job: Deed) -> str:
    """Do it, and leave a trace of having begun."""
    if job.place:
        with Path(job.place, str(job.number)).open("a") as trace:
            trace.write(f"{os.getpid()}\n")
    if job.deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600 if job.deed == "hang" else job.seconds)
    if job.deed == "look":
        return f"prepared {Path(job.place, 'prepared').exists()}"
    return f"{job.deed} {job.number}"


def run(engine: Engine, jobs: Iterable[Deed]) -> list[str]:
    return sorted(engine.run(act, jobs, failure=lambda job, code, message, seconds: f"{code} {job.number}"))


def test_every_job_has_one_result(bench: Bench) -> None:
    assert run(bench.make(), (Deed(number) for number in range(30))) == sorted(f"work {n}" for n in range(30))


def test_a_killed_worker_and_a_hang_cost_themselves_only(bench: Bench, tmp_path: Path) -> None:
    if not bench.isolated:
        pytest.skip("in this process nothing is isolated")
    jobs = [Deed(number, place=str(tmp_path)) for number in range(10)]
    jobs[2] = Deed(2, "kill", place=str(tmp_path))
    jobs[5] = Deed(5, "hang", place=str(tmp_path))
    good = [f"work {number}" for number in range(10) if number not in (2, 5)]
    assert run(bench.make(timeout=20.0), jobs) == sorted([*good, "crashed 2", "timeout 5"])
    begun = {number: len((tmp_path / str(number)).read_text().splitlines()) for number in range(10)}
    # the job that crashed was tried once more; no other ran twice
    assert begun == {number: 1 + (number == 2) for number in range(10)}


def test_a_queue_longer_than_the_limit(bench: Bench) -> None:
    """Jobs that wait for longer than they may take are not late; the limit leaves a busy machine time."""
    jobs = [Deed(number, seconds=4.0 if bench.isolated else 0.1) for number in range(8)]
    assert run(bench.make(timeout=12.0, workers=8), jobs) == sorted(f"work {number}" for number in range(8))


def test_jobs_are_taken_as_they_are_needed(bench: Bench) -> None:
    """A window of them at a time, however many there are."""
    taken = 0

    def jobs() -> Iterable[Deed]:
        nonlocal taken
        for taken in range(1, 1001):
            yield Deed(taken)

    results = bench.make().run(act, jobs(), failure=lambda *_: "lost")
    next(iter(results))
    assert taken <= 10
    results.close()


def test_nothing_runs_on_when_a_run_is_ended(bench: Bench, tmp_path: Path) -> None:
    if not bench.isolated:
        pytest.skip("in this process nothing runs next to the caller")
    jobs = [Deed(0), Deed(1, "hang", place=str(tmp_path)), Deed(2, "hang", place=str(tmp_path))]
    results = bench.make().run(act, jobs, failure=lambda *_: "lost")
    assert next(iter(results)) == "work 0"
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    results.close()
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert pids
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("bench", ["ray, two nodes"], indirect=True, scope="module")
def test_jobs_of_a_lost_machine_run_again(bench: Bench, tmp_path: Path) -> None:
    """Without counting as crashes of their own."""
    jobs = [Deed(number, seconds=2.0, place=str(tmp_path)) for number in range(4)]
    loss = threading.Timer(0.0, lose_when_busy, (bench, tmp_path))
    loss.start()
    try:
        assert run(bench.make(timeout=20.0), jobs) == [f"work {number}" for number in range(4)]
    finally:
        loss.join()
    begun = [len((tmp_path / str(number)).read_text().splitlines()) for number in range(4)]
    assert sum(begun) > 4, "the machine was lost while a job ran on it"


def lose_when_busy(bench: Bench, place: Path) -> None:
    """Take a machine away as soon as both work."""
    deadline = time.monotonic() + 60
    while len(list(place.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert bench.lose_node is not None
    bench.lose_node()


def leave_mark(place: str) -> None:
    """Leave a mark that jobs can see."""
    Path(place, "prepared").touch()


@pytest.mark.parametrize("bench", ["ray, one node"], indirect=True, scope="module")
def test_workers_are_prepared_before_a_job(bench: Bench, tmp_path: Path) -> None:
    """By the engine of a cluster, whose machines nobody prepared by hand."""
    assert run(bench.make(), [Deed(0, "look", place=str(tmp_path))]) == ["prepared False"]
    prepare = partial(leave_mark, str(tmp_path))
    assert run(bench.make(prepare=prepare), [Deed(0, "look", place=str(tmp_path))]) == ["prepared True"]


def test_the_same_records_from_every_engine(bench: Bench, data: Path, tmp_path: Path) -> None:
    """Byte for byte, and the same outcomes but for their times."""
    videos = [data / "still_h264.mp4", data / "noise_mpeg4.avi", data / "objects_vp9.webm"]
    half = tmp_path / "half.mp4"
    half.write_bytes((data / "event_h264.mp4").read_bytes()[:20_000])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    found = []
    for folder, engine in (("one", None), ("two", bench.make(timeout=120.0))):
        seen: list[Outcome] = []
        extract_inputs(
            [Input(path=str(path), place=path.name + ".npz") for path in [*videos, half]],
            tmp_path / "meta",
            options=Options(frames="uniform:3", pixels=64, motion=True, qp=True),
            engine=engine or SerialEngine(),
            report=seen.append,
        )
        records = {path.name: path.read_bytes() for path in (tmp_path / "meta").glob("*.npz")}
        outcomes = sorted((one.source, one.status, one.code, one.message, one.packets, one.warnings) for one in seen)
        found.append((records, outcomes))
        shutil.move(tmp_path / "meta", tmp_path / folder)
    assert len(found[0][0]) == 3
    assert found[0] == found[1]
