"""A Ray cluster that runs the jobs of a batch."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from codecmeta.batch.scheduling import POLL_SECONDS, Failure, JobLostError, NodeLostError, Remark, run_shard
from codecmeta.errors import UsageError

J = TypeVar("J")
R = TypeVar("R")

_RESOURCE_SECONDS = 5.0
"""Age at which what the cluster has is looked up again: machines come and go."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Tasks of a Ray cluster: the one that RAY_ADDRESS names, else this machine. Paths must mean the same everywhere.

    Attributes:
        workers: tasks at a time, None for as many as the cluster has cores.
        timeout: seconds per job, None for no limit; counted as `LocalEngine` counts them, without the time in a queue.
        modules: what a worker imports before its first job.
        prepare: called in a worker before a job, and to return at once where nothing is to do; kernels that it compiles
            are not part of the job's time.
        remark: called with what a user should know meanwhile.
    """

    workers: int | None
    timeout: float | None
    modules: tuple[str, ...] = ("codecmeta.extraction",)
    prepare: Callable[[], object] | None = None
    remark: Remark = field(default=lambda text: None, repr=False)

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
            pool = _RayPool(task, self)
            try:
                yield from run_shard(pool, jobs, timeout=self.timeout, failure=failure, remark=self.remark)
            finally:
                pool.stop()
        finally:
            if started:
                ray.shutdown()


class _Clocks:
    """The clocks of all running jobs, an actor: workers are on other machines, whose time is another."""

    def __init__(self) -> None:
        self._began: dict[str, float | None] = {}

    def write(self, ticket: str, used: float | None) -> None:
        self._began[ticket] = None if used is None else time.monotonic() - used

    def read(self, tickets: list[str]) -> dict[str, float | None]:
        """Seconds of the tickets that have begun, None for those that pause; others are forgotten."""
        self._began = {ticket: self._began[ticket] for ticket in tickets if ticket in self._began}
        now = time.monotonic()
        return {ticket: None if began is None else now - began for ticket, began in self._began.items()}


class _RayPool(Generic[R]):
    def __init__(self, task: Callable[[Any], R], engine: RayEngine) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray: Any = ray
        self._task = task
        self._engine = engine
        # with the driver, so that the loss of another machine does not take it along
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._clocks = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Clocks).remote()
        # which job is tried again, and when, is for run_shard to say
        self._remote = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_work)
        self._read: dict[str, float | None] = {}
        self._read_at = self._counted_at = float("-inf")
        self._cores = 1
        self._submitted = 0
        self._names: dict[Any, str] = {}

    def window(self) -> int:
        """See `Pool`. More than there are cores, so that none waits for the driver and a cluster that can grow does."""
        if self._engine.workers is not None:
            return self._engine.workers
        if time.monotonic() - self._counted_at > _RESOURCE_SECONDS:
            self._cores = max(int(self._ray.cluster_resources().get("CPU", 0)), 1)
            self._counted_at = time.monotonic()
        return 2 * self._cores

    def submit(self, job: Any) -> Any:
        """See `Pool`."""
        self._submitted += 1
        name = str(self._submitted)
        ticket = self._remote.remote(self._clocks, name, self._task, job, self._engine.modules, self._engine.prepare)
        self._names[ticket] = name
        return ticket

    def wait(self, tickets: list[Any], seconds: float) -> list[Any]:
        """See `Pool`."""
        done, _ = self._ray.wait(tickets, num_returns=1, timeout=seconds)
        if done:
            done, _ = self._ray.wait(tickets, num_returns=len(tickets), timeout=0)
        if time.monotonic() - self._read_at > POLL_SECONDS:
            self._read_clocks()
        return list(done)

    def _read_clocks(self) -> None:
        try:
            self._read = self._ray.get(self._clocks.read.remote(list(self._names.values())))
        except self._ray.exceptions.RayActorError:
            # it begins again, and what runs now has no limit
            self._read = {}
        self._read_at = time.monotonic()

    def result(self, ticket: Any) -> R:
        """See `Pool`."""
        del self._names[ticket]
        exceptions = self._ray.exceptions
        try:
            result: R = self._ray.get(ticket)
        except exceptions.RayTaskError as error:
            raise JobLostError("internal", f"{type(error.cause).__name__}: {error.cause}") from error
        except exceptions.NodeDiedError as error:
            raise NodeLostError("the machines that it ran on were lost, one after the other") from error
        except exceptions.OutOfMemoryError as error:
            raise JobLostError("crashed", "Ray ended the worker for want of memory") from error
        except exceptions.WorkerCrashedError as error:
            raise JobLostError("crashed", "the worker was killed") from error
        except exceptions.RayError as error:
            raise JobLostError("crashed", type(error).__name__) from error
        return result

    def seconds(self, ticket: Any) -> float | None:
        """See `Pool`."""
        return self._read.get(self._names[ticket])

    def is_compiling(self) -> bool:
        """See `Pool`."""
        return None in self._read.values()

    def kill(self, ticket: Any) -> None:
        """See `Pool`."""
        self._ray.cancel(ticket, force=True)

    def stop(self) -> None:
        """End what still runs, and the clocks."""
        for ticket in self._names:
            self.kill(ticket)
        self._ray.kill(self._clocks)


def _work(
    clocks: Any,
    ticket: str,
    task: Callable[[J], R],
    job: J,
    modules: tuple[str, ...],
    prepare: Callable[[], object] | None,
) -> R:
    for name in modules:
        importlib.import_module(name)
    from codecmeta.batch.clock import JobClock

    with JobClock(lambda used: clocks.write.remote(ticket, used)).running():
        if prepare is not None:
            prepare()
        return task(job)
