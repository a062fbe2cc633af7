"""Ray engine: runs the jobs of a batch on a Ray cluster."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from codecmeta.batch.scheduling import POLL_SECONDS, Failure, JobLostError, NodeLostError, Reach, Remark, run_shard
from codecmeta.errors import UsageError

J = TypeVar("J")
R = TypeVar("R")

_RESOURCE_SECONDS = 5.0
"""Age at which the cluster's resources are queried again: machines come and go."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Engine of Ray tasks, on the cluster of RAY_ADDRESS, else on this machine. Paths must be the same everywhere.

    Attributes:
        workers: tasks at a time, None for as many as the cluster has cores.
        timeout: seconds per job, None for no limit; counted as `LocalEngine` counts them, without the time in a queue.
        modules: modules that a worker imports before its first job.
        gpus: GPUs of a worker, which then stays from job to job and keeps what it has loaded; with 0, a worker is a
            core. As many workers run as the cluster has GPUs for.
        prepare: called in a worker before a job; must return at once where nothing is to do. Kernels that it compiles
            are not part of the job's time.
        remark: called with messages for the user during the run.
    """

    reach: ClassVar[Reach] = "cluster"
    workers: int | None
    timeout: float | None
    modules: tuple[str, ...] = ("codecmeta.extraction",)
    gpus: int = 0
    prepare: Callable[[], object] | None = None
    remark: Remark = field(default=lambda text: None, repr=False)

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """Run the jobs, see `Engine`."""
        try:
            import ray
        except ImportError as error:
            raise UsageError("--engine ray needs Ray: pip install 'codecmeta[ray]'") from error
        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False)
        try:
            pool = _RayActorPool(task, self) if self.gpus else _RayPool(task, self)
            try:
                yield from run_shard(pool, jobs, timeout=self.timeout, failure=failure, remark=self.remark)
            finally:
                pool.stop()
        finally:
            if started:
                ray.shutdown()


class _Clocks:
    """Clocks of all running jobs, as an actor: workers are on other machines with other clocks."""

    def __init__(self) -> None:
        self._began: dict[str, float | None] = {}

    def write(self, ticket: str, used: float | None) -> None:
        self._began[ticket] = None if used is None else time.monotonic() - used

    def read(self, tickets: list[str]) -> dict[str, float | None]:
        """Return seconds of the tickets that have begun, None for those that pause; forget all others."""
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
        # on the driver's machine, so that the loss of another machine does not end it
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._clocks = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Clocks).remote()
        # run_shard decides which job is tried again, and when
        self._remote = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_work)
        self._read: dict[str, float | None] = {}
        self._read_at = self._counted_at = float("-inf")
        self._resources: dict[str, float] = {}
        self._submitted = 0
        self._names: dict[Any, str] = {}

    def window(self) -> int:
        """Return the window, see `Pool`; above the core count, so that workers never wait and a cluster can grow."""
        if self._engine.workers is not None:
            return self._engine.workers
        return 2 * max(self._count("CPU"), 1)

    def _count(self, resource: str) -> int:
        """Count a resource of the cluster, as of some seconds ago."""
        if time.monotonic() - self._counted_at > _RESOURCE_SECONDS:
            self._resources = self._ray.cluster_resources()
            self._counted_at = time.monotonic()
        return int(self._resources.get(resource, 0))

    def submit(self, job: Any) -> Any:
        """Submit a job, see `Pool`."""
        return self._submit(self._remote, job)

    def _submit(self, remote: Any, job: Any) -> Any:
        self._submitted += 1
        name = str(self._submitted)
        ticket = remote.remote(self._clocks, name, self._task, job, self._engine.modules, self._engine.prepare)
        self._names[ticket] = name
        return ticket

    def wait(self, tickets: list[Any], seconds: float) -> list[Any]:
        """Wait for tickets, see `Pool`."""
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
            # the actor restarts, and running jobs have no limit
            self._read = {}
        self._read_at = time.monotonic()

    def result(self, ticket: Any) -> R:
        """Return the result, see `Pool`."""
        del self._names[ticket]
        exceptions = self._ray.exceptions
        try:
            result: R = self._ray.get(ticket)
        except exceptions.RayTaskError as error:
            raise JobLostError("internal", f"{type(error.cause).__name__}: {error.cause}") from error
        except exceptions.NodeDiedError as error:
            raise NodeLostError("all machines that it ran on were lost") from error
        except exceptions.ActorDiedError as error:
            if "node has died" in str(error):
                raise NodeLostError("all machines that it ran on were lost") from error
            raise JobLostError("crashed", "the worker was killed") from error
        except exceptions.OutOfMemoryError as error:
            raise JobLostError("crashed", "Ray ended the worker because memory ran out") from error
        except exceptions.WorkerCrashedError as error:
            raise JobLostError("crashed", "the worker was killed") from error
        except exceptions.RayError as error:
            raise JobLostError("crashed", type(error).__name__) from error
        return result

    def seconds(self, ticket: Any) -> float | None:
        """Return the seconds, see `Pool`."""
        return self._read.get(self._names[ticket])

    def is_compiling(self) -> bool:
        """Return whether a worker compiles, see `Pool`."""
        return None in self._read.values()

    def kill(self, ticket: Any) -> None:
        """Kill a worker, see `Pool`."""
        self._ray.cancel(ticket, force=True)

    def stop(self) -> None:
        """Stop running tasks, and the clocks."""
        for ticket in self._names:
            self.kill(ticket)
        self._ray.kill(self._clocks)


class _Worker:
    """Actor that works on one job after the other, and keeps its GPUs and what it has loaded in between."""

    def work(self, *arguments: Any) -> Any:
        """Run a job, see `_work`."""
        return _work(*arguments)


class _RayActorPool(_RayPool[R]):
    """Pool of actors, one for every so many GPUs of the cluster."""

    def __init__(self, task: Callable[[Any], R], engine: RayEngine) -> None:
        super().__init__(task, engine)
        self._actor = self._ray.remote(num_cpus=1, num_gpus=engine.gpus, scheduling_strategy="SPREAD")(_Worker)
        self._idle: list[Any] = []
        self._busy: dict[Any, Any] = {}
        if self._count("GPU") < engine.gpus:
            self.stop()
            raise UsageError(f"the Ray cluster has fewer GPUs than the {engine.gpus} of a worker; use --device cpu")

    def window(self) -> int:
        """Return the number of workers, see `Pool`."""
        most = max(self._count("GPU") // self._engine.gpus, 1)
        return most if self._engine.workers is None else min(self._engine.workers, most)

    def submit(self, job: Any) -> Any:
        """Submit a job to a worker that is idle, or to a new one."""
        worker = self._idle.pop() if self._idle else self._actor.remote()
        ticket = self._submit(worker.work, job)
        self._busy[ticket] = worker
        return ticket

    def result(self, ticket: Any) -> R:
        """Return the result, see `Pool`; the worker of a job that crashed is replaced."""
        worker = self._busy.pop(ticket)
        try:
            result = super().result(ticket)
        except JobLostError as error:
            if error.code == "internal":
                self._idle.append(worker)
            raise
        self._idle.append(worker)
        return result

    def kill(self, ticket: Any) -> None:
        """Kill a worker, see `Pool`."""
        self._ray.kill(self._busy[ticket])

    def stop(self) -> None:
        """Stop all workers, and the clocks."""
        super().stop()
        for worker in self._idle:
            self._ray.kill(worker)


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
