"""Engines that run the jobs of a batch: worker processes of this machine (pebble), a Ray cluster, or this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeVar

from codecmeta.batch.scheduling import COMPILE_REMARK, Failure, Reach, Remark, run_shard
from codecmeta.batch.worker_pool import WorkerPool
from codecmeta.errors import UsageError

J = TypeVar("J")
R = TypeVar("R")

_LEAST_MEMORY = 4 << 30


def _ignore_remark(text: str) -> None:
    """Ignore the remark."""


class Engine(Protocol):
    """Runner of a function over jobs, several at a time, which yields results as they come."""

    @property
    def reach(self) -> Reach:
        """Where the workers are."""
        ...

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """Yield one result per job; `failure(job, code, message, seconds)` makes that of a job that died."""
        ...


@dataclass(frozen=True, kw_only=True)
class SerialEngine:
    """Engine that runs one job after the other in this process, without limits on time and memory. For debugging.

    Attributes:
        remark: called with messages for the user during the run.
    """

    reach: ClassVar[Reach] = "process"
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

    reach: ClassVar[Reach] = "machine"
    workers: int
    timeout: float | None
    memory: int | None = None
    modules: tuple[str, ...] = ("codecmeta.extraction",)
    remark: Remark = field(default=_ignore_remark, repr=False)

    def run(self, task: Callable[[J], R], jobs: Iterable[J], *, failure: Failure[J, R]) -> Iterator[R]:
        """Run the jobs, see `Engine`."""
        pool = WorkerPool(task, workers=self.workers, modules=self.modules, memory=self.memory)
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
    modules: tuple[str, ...] = ("codecmeta.extraction",),
    gpus: int = 0,
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
        modules: modules that a worker imports before its first job.
        gpus: GPUs of a worker on a cluster.
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
        return RayEngine(workers=jobs, timeout=timeout, modules=modules, gpus=gpus, prepare=prepare, remark=remark)
    if jobs == 0:
        return SerialEngine(remark=remark)
    workers = usable_cores() if jobs is None else jobs
    if memory is None:
        memory = max(_LEAST_MEMORY, machine_memory() // workers)
    return LocalEngine(workers=workers, timeout=timeout, memory=memory or None, modules=modules, remark=remark)


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
