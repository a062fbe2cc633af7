"""What runs the jobs of a batch: worker processes of this machine (pebble), a Ray cluster, or this very process."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from codecmeta.errors import UsageError

J = TypeVar("J")
R = TypeVar("R")
Failure = Callable[[J, str, str, float], R]

_RECYCLE = 200
"""Jobs after which a worker is replaced, so that nothing that leaks grows for ever."""


class Engine(Protocol):
    """Runs a function over jobs, some at a time, and yields results as they come."""

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """Yield one result per job; `failure(job, code, message, seconds)` makes that of a job that died."""
        ...


@dataclass(frozen=True, kw_only=True)
class SerialEngine:
    """One job after the other in this process, without a time limit. For debugging."""

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """See `Engine`."""
        for job in jobs:
            yield task(job)


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Spawned worker processes; a job that hangs or crashes takes only its own worker with it.

    Attributes:
        workers: processes at a time.
        timeout: seconds per job, None for no limit.
    """

    workers: int
    timeout: float | None

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """See `Engine`."""
        from pebble import ProcessExpired, ProcessPool

        pool: Any = ProcessPool(
            max_workers=self.workers,
            max_tasks=_RECYCLE,
            context=multiprocessing.get_context("spawn"),
            initializer=_ignore_interrupts,
        )
        running: dict[concurrent.futures.Future[R], tuple[J, float]] = {}

        def collect() -> Iterator[R]:
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                job, begin = running.pop(future)
                try:
                    yield future.result()
                except TimeoutError:
                    yield failure(job, "timeout", f"not done after {self.timeout:g} s", time.monotonic() - begin)
                except ProcessExpired as error:
                    yield failure(job, "crashed", _cause(error.exitcode), time.monotonic() - begin)
                except Exception as error:
                    # what a worker raised must not take the other jobs with it
                    yield failure(job, "internal", f"{type(error).__name__}: {error}", time.monotonic() - begin)

        try:
            for job in jobs:
                running[pool.schedule(_work, args=(task, job), timeout=self.timeout)] = (job, time.monotonic())
                while len(running) >= 2 * self.workers:
                    yield from collect()
            while running:
                yield from collect()
            pool.close()
        except BaseException:
            pool.stop()
            raise
        finally:
            pool.join()


def _ignore_interrupts() -> None:
    """Leave it to the parent process what becomes of a run that is interrupted."""
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)


def _work(task: Callable[[J], R], job: J) -> R:
    """Run a job; if the parent process ends this one, let the job remove what it began."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return task(job)
    except SystemExit:
        # pebble would take it for a result, and wait for the next job
        os._exit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def _cause(exitcode: int) -> str:
    if exitcode < 0:
        return f"the worker was killed by {signal.Signals(-exitcode).name}"
    return f"the worker ended with exit code {exitcode}"


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Tasks of a Ray cluster: the one that RAY_ADDRESS names, else this machine. Paths must mean the same everywhere.

    Attributes:
        workers: tasks at a time.
        timeout: seconds per job, None for no limit.
    """

    workers: int
    timeout: float | None

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """See `Engine`."""
        try:
            import ray
        except ImportError as error:
            raise UsageError("--engine ray needs Ray: pip install 'codecmeta[ray]'") from error
        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False)
        remote = ray.remote(num_cpus=1, max_retries=0)(task)
        running: dict[Any, tuple[J, float]] = {}

        def collect() -> Iterator[R]:
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for reference in done:
                job, begin = running.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield failure(job, "crashed", f"{type(error).__name__}", time.monotonic() - begin)
            for reference, (job, begin) in list(running.items()):
                if self.timeout is not None and time.monotonic() - begin > self.timeout:
                    ray.cancel(reference, force=True)
                    del running[reference]
                    yield failure(job, "timeout", f"not done after {self.timeout:g} s", time.monotonic() - begin)

        try:
            for job in jobs:
                running[remote.remote(job)] = (job, time.monotonic())
                while len(running) >= self.workers:
                    yield from collect()
            while running:
                yield from collect()
        finally:
            if started:
                ray.shutdown()
