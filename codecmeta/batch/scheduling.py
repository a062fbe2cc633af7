"""Scheduling of a shard's jobs on a pool of workers, the same for every engine.

Only a window of jobs is submitted at a time; the time limit of a job counts from its start; a job that hangs or crashes
affects only itself; the jobs of a lost machine run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from codecmeta.errors import SourceCode

J = TypeVar("J")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Failure = Callable[[J, SourceCode, str, float], R]
Remark = Callable[[str], None]
Reach = Literal["process", "machine", "cluster"]
"""Where workers are: in this process, on this machine, or on any machine."""

POLL_SECONDS = 0.2
_MOST_LOSSES = 3
"""Machines that a job may lose; a job that loses more is considered the cause."""
COMPILE_REMARK = "compiling the kernels of a codec, once, for one to two minutes"


class JobLostError(Exception):
    """Worker that ended without a result."""

    def __init__(self, code: SourceCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class NodeLostError(JobLostError):
    """Loss of the machine that a job ran on, not caused by the job."""

    def __init__(self, message: str) -> None:
        super().__init__("crashed", message)


class Pool(Protocol[R_co]):
    """Workers that run one function over jobs; a ticket identifies a submitted job."""

    def window(self) -> int:
        """Return the number of jobs to have submitted now; it changes with the size of a cluster."""
        ...

    def submit(self, job: Any) -> Any:
        """Queue a job and return its ticket."""
        ...

    def wait(self, tickets: list[Any], seconds: float) -> list[Any]:
        """Return tickets that are done, after at most so many seconds."""
        ...

    def result(self, ticket: Any) -> R_co:
        """Return the result of a ticket that is done.

        Raises:
            JobLostError: it has none.
        """
        ...

    def seconds(self, ticket: Any) -> float | None:
        """Return the seconds that count towards the time limit; None before the work begins and during a pause."""
        ...

    def is_compiling(self) -> bool:
        """Return whether a worker compiles."""
        ...

    def kill(self, ticket: Any) -> None:
        """Kill the worker of a ticket, which is then done without a result."""
        ...


@dataclass(kw_only=True)
class _Running(Generic[J]):
    job: J
    begin: float
    losses: int
    killed: bool = False


def run_shard(
    pool: Pool[R],
    jobs: Iterable[J],
    *,
    timeout: float | None,
    failure: Failure[J, R],
    remark: Remark,
) -> Iterator[R]:
    """Yield one result per job.

    Args:
        pool: the workers.
        jobs: read when they are needed.
        timeout: seconds per job, None for no limit.
        failure: makes the result of a job that was lost.
        remark: called with messages for the user during the run.
    """
    running: dict[Any, _Running[J]] = {}
    crashed: list[J] = []
    remarked = False

    def submit(job: J, *, losses: int = 0) -> None:
        running[pool.submit(job)] = _Running(job=job, begin=time.monotonic(), losses=losses)

    def collect(*, last: bool) -> Iterator[R]:
        nonlocal remarked
        for ticket in pool.wait(list(running), POLL_SECONDS):
            one = running.pop(ticket)
            used = time.monotonic() - one.begin
            try:
                yield pool.result(ticket)
            except JobLostError as error:
                if one.killed:
                    yield failure(one.job, "timeout", f"not done after {timeout:g} s", used)
                elif isinstance(error, NodeLostError) and one.losses < _MOST_LOSSES:
                    submit(one.job, losses=one.losses + 1)
                elif error.code == "crashed" and not last:
                    crashed.append(one.job)
                else:
                    yield failure(one.job, error.code, str(error), used)
        for ticket, one in running.items():
            used_seconds = pool.seconds(ticket)
            if timeout is not None and not one.killed and used_seconds is not None and used_seconds > timeout:
                one.killed = True
                pool.kill(ticket)
        if not remarked and pool.is_compiling():
            remarked = True
            remark(COMPILE_REMARK)

    for job in jobs:
        submit(job)
        while len(running) >= pool.window():
            yield from collect(last=False)
    while running:
        yield from collect(last=False)
    # a job that crashed for lack of memory, for example, may succeed with the machine to itself
    for job in crashed:
        submit(job)
        while running:
            yield from collect(last=True)
