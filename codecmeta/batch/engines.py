"""Engines that run the jobs of a batch: worker processes of this machine (pebble), a Ray cluster, or this process."""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from codecmeta.batch.scheduling import COMPILE_REMARK, Failure, JobLostError, Remark, run_shard
from codecmeta.errors import UsageError

J = TypeVar("J")
R = TypeVar("R")

_RECYCLE = 200
"""Jobs after which a worker is replaced, so that memory leaks stay bounded."""
_PAUSED = -1.0
_LEAST_MEMORY = 4 << 30


def _ignore_remark(text: str) -> None:
    """Ignore the remark."""


class Engine(Protocol):
    """Runner of a function over jobs, several at a time, which yields results as they come."""

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """Yield one result per job; `failure(job, code, message, seconds)` makes that of a job that died."""
        ...


@dataclass(frozen=True, kw_only=True)
class SerialEngine:
    """Engine that runs one job after the other in this process, without limits on time and memory. For debugging.

    Attributes:
        remark: called with messages for the user during the run.
    """

    remark: Remark = field(default=_ignore_remark, repr=False)

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """Run the jobs, see `Engine`."""
        from codecmeta.batch.clock import JobClock

        remarked = False

        def write(used: float | None) -> None:
            nonlocal remarked
            if used is None and not remarked:
                remarked = True
                self.remark(COMPILE_REMARK)

        for job in jobs:
            with JobClock(write).running():
                result = task(job)
            yield result


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Engine of spawned worker processes; a job that hangs or crashes ends only its own worker.

    Attributes:
        workers: processes at a time.
        timeout: seconds per job, None for no limit. The time counts from when a worker begins the job, and is paused
            while a kernel is compiled.
        memory: bytes of address space per worker (RLIMIT_AS), None for no limit.
        modules: modules that a worker imports before its first job.
        remark: called with messages for the user during the run.
    """

    workers: int
    timeout: float | None
    memory: int | None = None
    modules: tuple[str, ...] = ("codecmeta.extraction",)
    remark: Remark = field(default=_ignore_remark, repr=False)

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """Run the jobs, see `Engine`."""
        pool = _LocalPool(task, self)
        try:
            yield from run_shard(pool, jobs, timeout=self.timeout, failure=failure, remark=self.remark)
        except BaseException:
            pool.stop()
            raise
        pool.close()


def choose_engine(
    name: Literal["local", "ray"],
    *,
    jobs: int | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    prepare: Callable[[], object] | None = None,
    remark: Remark = _ignore_remark,
) -> Engine:
    """Make an engine.

    Args:
        name: `local` or `ray`.
        jobs: videos at a time, None for all cores, of this machine or of the cluster; 0 works in this process.
        timeout: seconds per video, None for no limit.
        memory: bytes of address space per worker, 0 for no limit, None for a worker's share of the machine's memory,
            but at least 4 GiB.
        prepare: called on the machines of a cluster before their first job.
        remark: called with messages for the user during the run.

    Raises:
        UsageError: the engine does not support a requested limit.
    """
    if memory and (jobs == 0 or name == "ray"):
        which = "--engine ray" if name == "ray" else "--jobs 0"
        raise UsageError(f"{which} does not limit memory; omit --memory")
    if name == "ray":
        from codecmeta.batch.ray_engine import RayEngine

        if jobs == 0:
            raise UsageError("--jobs 0 works in this process; omit it or --engine ray")
        return RayEngine(workers=jobs, timeout=timeout, prepare=prepare, remark=remark)
    if jobs == 0:
        return SerialEngine(remark=remark)
    workers = usable_cores() if jobs is None else jobs
    if memory is None:
        memory = max(_LEAST_MEMORY, machine_memory() // workers)
    return LocalEngine(workers=workers, timeout=timeout, memory=memory or None, remark=remark)


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of the container of this process; 0 where that is unknown."""
    total = 0
    with suppress(AttributeError, ValueError, OSError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        # "max" where there is no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


class _LocalPool(Generic[R]):
    """Pebble's worker processes, and memory shared with them that holds the clock of each job."""

    def __init__(self, task: Callable[[Any], R], engine: LocalEngine) -> None:
        window = 2 * engine.workers
        self._task = task
        self._engine = engine
        self._context = multiprocessing.get_context("spawn")
        # no lock: a worker that is killed while it holds one would block all others
        self._cells = self._context.RawArray("d", window)
        self._free = list(range(window))
        self._cell: dict[concurrent.futures.Future[R], int] = {}
        self._pool = self._open()

    def _open(self) -> Any:
        from pebble import ProcessPool

        return ProcessPool(
            max_workers=self._engine.workers,
            max_tasks=_RECYCLE,
            context=self._context,
            initializer=_begin_worker,
            initargs=(self._cells, self._engine.modules, self._engine.memory),
        )

    def window(self) -> int:
        """Return the window, see `Pool`."""
        return len(self._cells)

    def submit(self, job: Any) -> concurrent.futures.Future[R]:
        """Submit a job, see `Pool`."""
        cell = self._free.pop()
        self._cells[cell] = 0.0
        try:
            ticket = self._pool.schedule(_work, args=(self._task, job, cell))
        except RuntimeError:
            # the pool stops when a worker dies between two jobs
            self.stop()
            self._pool = self._open()
            ticket = self._pool.schedule(_work, args=(self._task, job, cell))
        self._cell[ticket] = cell
        done: concurrent.futures.Future[R] = ticket
        return done

    def wait(self, tickets: list[concurrent.futures.Future[R]], seconds: float) -> list[concurrent.futures.Future[R]]:
        """Wait for tickets, see `Pool`."""
        done, _ = concurrent.futures.wait(tickets, timeout=seconds, return_when=concurrent.futures.FIRST_COMPLETED)
        return [ticket for ticket in tickets if ticket in done]

    def result(self, ticket: concurrent.futures.Future[R]) -> R:
        """Return the result, see `Pool`."""
        from pebble import ProcessExpired

        self._free.append(self._cell.pop(ticket))
        try:
            return ticket.result()
        except ProcessExpired as error:
            raise JobLostError("crashed", _cause(error.exitcode)) from error
        except concurrent.futures.BrokenExecutor as error:
            raise JobLostError("crashed", "its worker ended before it began") from error
        except concurrent.futures.CancelledError as error:
            raise JobLostError("timeout", "ended") from error
        except Exception as error:
            # an error in a worker must not affect the other jobs
            raise JobLostError("internal", f"{type(error).__name__}: {error}") from error

    def seconds(self, ticket: concurrent.futures.Future[R]) -> float | None:
        """Return the seconds, see `Pool`."""
        begin = self._cells[self._cell[ticket]]
        return time.monotonic() - begin if begin > 0 else None

    def is_compiling(self) -> bool:
        """Return whether a worker compiles, see `Pool`."""
        return _PAUSED in self._cells

    def kill(self, ticket: concurrent.futures.Future[R]) -> None:
        """Kill a worker, see `Pool`."""
        ticket.cancel()

    def close(self) -> None:
        """Close the pool, whose workers are idle."""
        self._pool.close()
        self._pool.join()

    def stop(self) -> None:
        """Stop the workers, even busy ones."""
        self._pool.stop()
        self._pool.join()


_worker_cells: list[Any] = []


def _begin_worker(cells: Any, modules: tuple[str, ...], memory: int | None) -> None:
    """Prepare a worker process: its imports are not part of its first job."""
    # the parent process ends a run that is interrupted
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    for name in modules:
        importlib.import_module(name)
    _limit_memory(memory)
    _worker_cells[:] = [cells]


def _limit_memory(memory: int | None) -> None:
    """Limit the address space of this process, where the system supports it."""
    if memory is not None:
        with suppress(ImportError):
            import resource

            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _work(task: Callable[[J], R], job: J, cell: int) -> R:
    """Run a job and its clock; if the parent process ends this one, let the job remove its partial output."""
    from codecmeta.batch.clock import JobClock

    (cells,) = _worker_cells

    def write(used: float | None) -> None:
        cells[cell] = _PAUSED if used is None else time.monotonic() - used

    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with JobClock(write).running():
            return task(job)
    except SystemExit:
        # pebble would take it as a result, and wait for the next job
        os._exit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def _cause(exitcode: int) -> str:
    if exitcode < 0:
        return f"the worker was killed by {signal.Signals(-exitcode).name}"
    return f"the worker ended with exit code {exitcode}"
