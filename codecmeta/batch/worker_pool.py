"""Worker pool: processes of this machine (pebble) that run jobs, and memory shared with them."""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from codecmeta.batch.scheduling import JobLostError, NodeLostError

J = TypeVar("J")
R = TypeVar("R")

_RECYCLE = 1000
"""Jobs after which a worker is replaced, so that memory leaks stay bounded; a start takes as long as 40 short clips."""
_PAUSED = -1.0
_GRACE_SECONDS = 2.0
"""Time in which a result that a worker sent before it ended can still arrive."""
_STALL_SECONDS = 120.0
"""Time without a job at work, though some wait, after which all workers are replaced."""


class WorkerPool(Generic[R]):
    """Pebble's worker processes, and memory shared with them that holds the clock and the worker of each job.

    Pebble does not notice that a job is lost if its worker ends before the message that the job began is handled, if
    the worker ends with exit code 0, or if it is killed while it holds the lock of the queue. This pool notices.

    Args:
        task: called in a worker with each job.
        workers: processes at a time.
        modules: imported by a worker before its first job.
        memory: bytes of address space per worker (RLIMIT_AS), None for no limit.
    """

    def __init__(self, task: Callable[[Any], R], *, workers: int, modules: tuple[str, ...], memory: int | None) -> None:
        window = 2 * workers
        self._task = task
        self._workers = workers
        self._modules = modules
        self._memory = memory
        self._context = multiprocessing.get_context("spawn")
        # no lock: a worker that is killed while it holds one would block all others
        self._cells = self._context.RawArray("d", window)
        self._pids = self._context.RawArray("q", window)
        self._processes: dict[int, Any] = {}
        self._ended: dict[concurrent.futures.Future[R], float] = {}
        self._lost: dict[concurrent.futures.Future[R], JobLostError] = {}
        self._active = time.monotonic()
        self._forgotten = False
        self._free = list(range(window))
        self._cell: dict[concurrent.futures.Future[R], int] = {}
        self._pool = self._open()

    def _open(self) -> Any:
        from pebble import ProcessPool

        return ProcessPool(
            max_workers=self._workers,
            max_tasks=_RECYCLE,
            context=self._context,
            initializer=_begin_worker,
            initargs=(self._cells, self._pids, self._modules, self._memory),
        )

    def window(self) -> int:
        """Return the window, see `Pool`."""
        return len(self._cells)

    def submit(self, job: Any) -> concurrent.futures.Future[R]:
        """Submit a job, see `Pool`."""
        cell = self._free.pop()
        self._cells[cell] = 0.0
        self._pids[cell] = 0
        try:
            ticket = self._pool.schedule(_work, args=(self._task, job, cell))
        except RuntimeError:
            # the pool stops when a worker dies between two jobs
            self.stop()
            self._pool = self._open()
            ticket = self._pool.schedule(_work, args=(self._task, job, cell))
        self._cell[ticket] = cell
        self._note_workers()
        if len(self._cell) == 1:
            self._active = time.monotonic()
        done: concurrent.futures.Future[R] = ticket
        return done

    def wait(self, tickets: list[concurrent.futures.Future[R]], seconds: float) -> list[concurrent.futures.Future[R]]:
        """Wait for tickets, see `Pool`."""
        done, _ = concurrent.futures.wait(tickets, timeout=seconds, return_when=concurrent.futures.FIRST_COMPLETED)
        self._find_lost([ticket for ticket in tickets if ticket not in done])
        return [ticket for ticket in tickets if ticket in done or ticket in self._lost]

    def _find_lost(self, tickets: list[concurrent.futures.Future[R]]) -> None:
        """Find the jobs whose worker ended without pebble's notice, and replace the workers if none begins a job."""
        now = time.monotonic()
        living = self._note_workers()
        at_work = {self._pids[self._cell[ticket]] for ticket in tickets} - {0}
        for ticket in tickets:
            pid = self._pids[self._cell[ticket]]
            if pid and pid not in living and now - self._ended.setdefault(ticket, now) > _GRACE_SECONDS:
                self._lose(ticket, JobLostError("crashed", self._cause(pid)))
        if at_work or not tickets:
            self._active = now
        elif now - self._active > _STALL_SECONDS:
            self.stop()
            self._pool = self._open()
            for ticket in tickets:
                self._lose(ticket, NodeLostError("no worker began it"))
            self._active = now

    def _note_workers(self) -> set[int]:
        """Return the process ids of the living workers; keep the exit codes of those that jobs were given to."""
        living = {process.pid: process for process in self._context.active_children() if process.pid is not None}
        named = set(self._pids)
        self._processes = {pid: process for pid, process in self._processes.items() if pid in named} | living
        return set(living)

    def _cause(self, pid: int) -> str:
        """Return why the process ended; 0 if no process began the job."""
        code = getattr(self._processes.get(pid), "exitcode", None)
        if code is not None:
            return _cause(code)
        return "its worker ended" if pid else "its worker ended before it began"

    def _lose(self, ticket: concurrent.futures.Future[R], error: JobLostError) -> None:
        self._lost[ticket] = error
        self._forgotten = True
        ticket.cancel()

    def result(self, ticket: concurrent.futures.Future[R]) -> R:
        """Return the result, see `Pool`."""
        from pebble import ProcessExpired

        cell = self._cell.pop(ticket)
        self._free.append(cell)
        self._ended.pop(ticket, None)
        if ticket in self._lost:
            raise self._lost.pop(ticket)
        try:
            return ticket.result()
        except ProcessExpired as error:
            raise JobLostError("crashed", _cause(error.exitcode)) from error
        except concurrent.futures.BrokenExecutor as error:
            raise JobLostError("crashed", self._cause(self._pids[cell])) from error
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
        if self._forgotten:
            # pebble still waits for these jobs
            self.stop()
            return
        self._pool.close()
        self._pool.join()

    def stop(self) -> None:
        """Stop the workers, even busy ones."""
        self._pool.stop()
        self._pool.join()


_worker_cells: list[Any] = []


def _begin_worker(cells: Any, pids: Any, modules: tuple[str, ...], memory: int | None) -> None:
    """Prepare a worker process: its imports are not part of its first job."""
    # the parent process ends a run that is interrupted
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    for name in modules:
        importlib.import_module(name)
    _limit_memory(memory)
    _worker_cells[:] = [cells, pids]


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

    cells, pids = _worker_cells
    pids[cell] = os.getpid()

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
