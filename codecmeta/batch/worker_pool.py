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

from codecmeta.batch.scheduling import JobLostError

J = TypeVar("J")
R = TypeVar("R")

_RECYCLE = 200
"""Jobs after which a worker is replaced, so that memory leaks stay bounded."""
_PAUSED = -1.0


class WorkerPool(Generic[R]):
    """Pebble's worker processes, and memory shared with them that holds the clock of each job."""

    def __init__(self, task: Callable[[Any], R], *, workers: int, modules: tuple[str, ...], memory: int | None) -> None:
        window = 2 * workers
        self._task = task
        self._workers = workers
        self._modules = modules
        self._memory = memory
        self._context = multiprocessing.get_context("spawn")
        # no lock: a worker that is killed while it holds one would block all others
        self._cells = self._context.RawArray("d", window)
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
            initargs=(self._cells, self._modules, self._memory),
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
