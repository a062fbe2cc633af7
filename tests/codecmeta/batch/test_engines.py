"""Engines: what a worker that dies, hangs or runs out of memory does to the other jobs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pebble.pool.process
import pytest

from codecmeta.batch import worker_pool
from codecmeta.batch.engines import Engine, LocalEngine, SerialEngine, choose_engine, machine_memory
from codecmeta.errors import UsageError


def local(*, workers: int = 2, timeout: float | None = None, memory: int | None = None) -> LocalEngine:
    return LocalEngine(workers=workers, timeout=timeout, memory=memory, modules=())


def run(engine: Engine, jobs: Iterable[Misdeed]) -> list[str]:
    def lost(job: Misdeed, code: str, message: str, seconds: float) -> str:
        return f"{code} {job.number} {message}"

    return sorted(engine.run(misbehave, jobs, failure=lost))


@dataclass(frozen=True)
class Misdeed:
    """What a job does to its worker."""

    deed: str
    number: int = 0
    place: str = ""


def misbehave(job: Misdeed) -> str:
    if job.deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.deed == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.deed == "exit":
        os._exit(0)
    if job.deed == "hang":
        time.sleep(600)
    if job.deed == "sleep":
        time.sleep(3)
    if job.deed == "raise":
        raise ValueError("no video's fault")
    if job.deed == "fill":
        try:
            np.empty(6 << 30, np.uint8)
        except MemoryError:
            return f"out of memory {job.number}"
    if job.deed == "crash in company":
        crash_in_company(Path(job.place), job.number)
    return f"{job.deed} {job.number}"


def crash_in_company(place: Path, number: int) -> None:
    """Work for a while; the first job dies while others work, or on its first try."""
    mine = place / str(number)
    others = [path for path in place.iterdir() if path.suffix != ".tried" and is_at_work(path)]
    if number == 0 and (others or not (place / "0.tried").exists()):
        (place / "0.tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    mine.write_text(str(os.getpid()))
    time.sleep(0.2)
    mine.unlink()


def is_at_work(path: Path) -> bool:
    """Return whether the process that left its id here lives; the pool may have ended it with the one that died."""
    try:
        os.kill(int(path.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def test_a_worker_that_dies_or_hangs_takes_nothing_with_it() -> None:
    assert run_misdeeds() == MISDEEDS


def test_a_worker_that_dies_is_noticed_however_late_its_messages_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pebble forgets a job whose worker ends before its message that the job began is handled."""
    start = pebble.pool.process.TaskManager.task_start

    def start_late(manager: Any, task: int, worker: int | None) -> None:
        waiting = manager.tasks.get(task)  # none, if the pool gave up with its last worker
        if waiting is not None and waiting.payload.args[1].deed == "kill":
            time.sleep(1.0)
        start(manager, task, worker)

    monkeypatch.setattr(pebble.pool.process.TaskManager, "task_start", start_late)
    results = run(local(timeout=20.0), [Misdeed("sleep", 0), Misdeed("kill", 1), Misdeed("good", 2)])
    assert results == ["crashed 1 the worker was killed by SIGKILL", "good 2", "sleep 0"]


def test_a_job_that_ends_its_worker_in_peace_is_noticed_without_a_limit() -> None:
    results = run(local(), [Misdeed("exit", 0), Misdeed("good", 1), Misdeed("good", 2)])
    assert results == ["crashed 0 the worker ended with exit code 0", "good 1", "good 2"]


def test_workers_that_begin_nothing_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is killed while it holds the lock of the queue leaves the others waiting for ever."""
    monkeypatch.setattr(worker_pool, "_STALL_SECONDS", 10.0)
    receive = pebble.pool.process.WorkerManager.dispatch
    lost: list[int] = []

    def lose_first(manager: object, task: object) -> None:
        if len(lost) < 3:
            lost.append(0)
        else:
            receive(manager, task)

    monkeypatch.setattr(pebble.pool.process.WorkerManager, "dispatch", lose_first)
    assert run(local(), [Misdeed("good", number) for number in range(3)]) == ["good 0", "good 1", "good 2"]
    assert len(lost) == 3


def run_misdeeds() -> list[str]:
    """Run ten jobs, of which one is killed, one hangs and one crashes."""
    deeds = ["good"] * 10
    deeds[2], deeds[5], deeds[7] = "kill", "hang", "segfault"
    return run(local(timeout=8.0), [Misdeed(deed, number) for number, deed in enumerate(deeds)])


MISDEEDS = [
    "crashed 2 the worker was killed by SIGKILL",
    "crashed 7 the worker was killed by SIGSEGV",
    *(f"good {number}" for number in range(10) if number not in (2, 5, 7)),
    "timeout 5 not done after 8 s",
]


def test_a_crash_is_tried_once_more_alone(tmp_path: Path) -> None:
    """What died for want of memory, say, has the machine to itself then."""
    jobs = [Misdeed("crash in company", number, str(tmp_path)) for number in range(5)]
    assert run(local(), jobs) == [f"crash in company {number}" for number in range(5)]
    assert (tmp_path / "0.tried").exists()


def test_what_a_job_raises_is_its_own(tmp_path: Path) -> None:
    assert run(local(workers=1), [Misdeed("raise"), Misdeed("good", 1)]) == [
        "good 1",
        "internal 0 ValueError: no video's fault",
    ]


def test_time_counts_from_when_a_worker_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither waiting for a worker nor what a worker imports first is part of a job's time."""
    (tmp_path / "imports_slowly.py").write_text("import time; time.sleep(9)")
    monkeypatch.syspath_prepend(tmp_path)
    engine = LocalEngine(workers=1, timeout=8.0, modules=("imports_slowly",))
    jobs = [Misdeed("sleep", number) for number in range(3)] + [Misdeed("hang", 3)]
    assert run(engine, jobs) == ["sleep 0", "sleep 1", "sleep 2", "timeout 3 not done after 8 s"]


KERNEL = """\
import os, time
from pathlib import Path
from numba.extending import overload
from codecmeta.simd.numba_cache import kernel

def slowly(x):
    return x

@overload(slowly)
def _(x):
    # called while the kernel is compiled
    Path(os.environ["COMPILED"], str(time.monotonic_ns())).touch()
    time.sleep(3.5)
    return lambda x: x

@kernel()
def double(x):
    return 2 * slowly(x)
"""


def double(number: float) -> float:
    import kernel_of_a_test

    result: float = kernel_of_a_test.double(number)
    return result


def test_kernels_compile_once_outside_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers need a kernel; one compiles it, for longer than a job may take, and the other waits for it.

    The kernel for numbers of another type, as of deeper samples, is compiled when it is needed.
    """
    (tmp_path / "kernel_of_a_test.py").write_text(KERNEL)
    (tmp_path / "compiled").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COMPILED", str(tmp_path / "compiled"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "machine-code"))
    said: list[str] = []
    engine = LocalEngine(workers=2, timeout=6.0, modules=("numba",), remark=said.append)
    compiled = []
    for jobs in ((1, 2, 3), (4, 5), (0.5,)):
        results = sorted(engine.run(double, jobs, failure=lambda job, code, message, seconds: code))
        assert results == [2 * job for job in jobs]
        compiled.append(len(list((tmp_path / "compiled").iterdir())))
    # the body is typed twice a compilation
    assert compiled[0] == compiled[1]
    assert compiled[2] == 2 * compiled[0]
    assert len(said) == 2
    assert "once" in said[0]


def test_compiling_in_this_process_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernel_of_this_process.py").write_text(
        "from codecmeta.simd.numba_cache import kernel\n@kernel()\ndef half(x):\n    return x / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said: list[str] = []
    engine = SerialEngine(remark=said.append)
    assert list(engine.run(half, [2, 3.0, 4], failure=lambda *_: 0.0)) == [1.0, 1.5, 2.0]
    assert len(said) == 1


def half(number: float) -> float:
    import kernel_of_this_process

    result: float = kernel_of_this_process.half(number)
    return result


def test_memory_of_a_worker_is_limited() -> None:
    jobs = [Misdeed("fill", number) for number in range(2)]
    assert run(local(workers=1, memory=4 << 30), jobs) == ["out of memory 0", "out of memory 1"]
    assert run(local(workers=1), jobs) == ["fill 0", "fill 1"]


def test_the_engine_that_is_chosen() -> None:
    assert choose_engine("local", jobs=0) == SerialEngine()
    engine = choose_engine("local", jobs=3, timeout=5.0)
    assert isinstance(engine, LocalEngine)
    assert (engine.workers, engine.timeout) == (3, 5.0)
    assert engine.memory == max(4 << 30, machine_memory() // 3)
    assert choose_engine("local", jobs=3, memory=0) == LocalEngine(workers=3, timeout=None)
    assert choose_engine("local", jobs=3, memory=1 << 30) == LocalEngine(workers=3, timeout=None, memory=1 << 30)
    for name, jobs in (("ray", 2), ("local", 0)):
        with pytest.raises(UsageError, match="does not limit memory"):
            choose_engine(name, jobs=jobs, memory=1 << 30)


def write_slowly(path: Path) -> str:
    """Leave a file for ten minutes, but not if asked to end."""
    if path.suffix == ".txt":
        return "done"
    try:
        path.touch()
        time.sleep(600)
    finally:
        path.unlink()
    return "never"


def test_a_job_that_is_ended_removes_what_it_began(tmp_path: Path) -> None:
    """After its time is over, and when the whole run ends."""
    engine = local(workers=1, timeout=3.0)
    (timed_out,) = engine.run(write_slowly, [tmp_path / "a"], failure=lambda job, code, message, seconds: code)
    assert timed_out == "timeout"
    assert list(tmp_path.iterdir()) == []

    jobs = [tmp_path / "b.txt", tmp_path / "c", tmp_path / "d"]
    results = local().run(write_slowly, jobs, failure=lambda *_: "failed")
    assert next(results) == "done"
    deadline = time.monotonic() + 600
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.iterdir())
    results.close()
    assert list(tmp_path.iterdir()) == []
