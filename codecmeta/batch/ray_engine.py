"""A Ray cluster that runs the jobs of a batch."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from codecmeta.batch.scheduling import Failure, JobLostError, run_jobs
from codecmeta.errors import UsageError

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Tasks of a Ray cluster: the one that RAY_ADDRESS names, else this machine. Paths must mean the same everywhere.

    Attributes:
        workers: tasks at a time.
        timeout: seconds per job, None for no limit; counted as `LocalEngine` counts them.
        modules: what a worker imports before its first job.
    """

    workers: int
    timeout: float | None
    modules: tuple[str, ...] = ("codecmeta.extraction",)

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """See `Engine`."""
        try:
            import ray
        except ImportError as error:
            raise UsageError("--engine ray needs Ray: pip install 'codecmeta[ray]'") from error
        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False)
        try:
            yield from run_jobs(
                _RayPool(task, self),
                jobs,
                window=self.workers,
                timeout=self.timeout,
                failure=failure,
                remark=lambda text: None,
            )
        finally:
            if started:
                ray.shutdown()


class _Clocks:
    """The clocks of all running jobs, an actor: workers are on other machines, whose time is another."""

    def __init__(self) -> None:
        self._began: dict[str, float | None] = {}

    def write(self, ticket: str, used: float | None) -> None:
        self._began[ticket] = None if used is None else time.monotonic() - used

    def read(self) -> dict[str, float | None]:
        now = time.monotonic()
        return {ticket: None if began is None else now - began for ticket, began in self._began.items()}

    def forget(self, ticket: str) -> None:
        self._began.pop(ticket, None)


class _RayPool(Generic[R]):
    def __init__(self, task: Callable[[Any], R], engine: RayEngine) -> None:
        import ray

        self._ray: Any = ray
        self._task = task
        self._engine = engine
        self._clocks = ray.remote(num_cpus=0)(_Clocks).remote()
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_work)
        self._read: dict[str, float | None] = {}
        self._submitted = 0
        self._names: dict[Any, str] = {}

    def submit(self, job: Any) -> Any:
        """See `Pool`."""
        self._submitted += 1
        name = str(self._submitted)
        ticket = self._remote.remote(self._clocks, name, self._task, job, self._engine.modules)
        self._names[ticket] = name
        return ticket

    def wait(self, tickets: list[Any], seconds: float) -> list[Any]:
        """See `Pool`."""
        done, _ = self._ray.wait(tickets, num_returns=1, timeout=seconds)
        self._read = self._ray.get(self._clocks.read.remote()) if self._engine.timeout is not None else {}
        return list(done)

    def result(self, ticket: Any) -> R:
        """See `Pool`."""
        self._clocks.forget.remote(self._names.pop(ticket))
        try:
            result: R = self._ray.get(ticket)
        except self._ray.exceptions.RayTaskError as error:
            raise JobLostError("internal", f"{type(error.cause).__name__}: {error.cause}") from error
        except self._ray.exceptions.RayError as error:
            raise JobLostError("crashed", type(error).__name__) from error
        return result

    def seconds(self, ticket: Any) -> float | None:
        """See `Pool`."""
        return self._read.get(self._names[ticket])

    def is_compiling(self) -> bool:
        """See `Pool`."""
        return False

    def kill(self, ticket: Any) -> None:
        """See `Pool`."""
        self._ray.cancel(ticket, force=True)


def _work(clocks: Any, ticket: str, task: Callable[[J], R], job: J, modules: tuple[str, ...]) -> R:
    for name in modules:
        importlib.import_module(name)
    from codecmeta.batch.clock import JobClock

    with JobClock(lambda used: clocks.write.remote(ticket, used)).running():
        return task(job)
