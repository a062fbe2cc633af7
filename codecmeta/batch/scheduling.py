"""Jobs on a pool of workers: a window of them at a time, limits on their time, one more try for those that crash."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from codecmeta.errors import SourceCode

J = TypeVar("J")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Failure = Callable[[J, SourceCode, str, float], R]
Remark = Callable[[str], None]

POLL_SECONDS = 0.2
COMPILE_REMARK = "compiling the kernels of a codec, once, for up to a minute"


class JobLostError(Exception):
    """A worker ended without a result."""

    def __init__(self, code: SourceCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Pool(Protocol[R_co]):
    """Workers that run one function over jobs; a ticket stands for a job that was submitted."""

    def submit(self, job: Any) -> Any:
        """Queue a job and return its ticket."""
        ...

    def wait(self, tickets: list[Any], seconds: float) -> list[Any]:
        """Tickets that are done, after at most so many seconds."""
        ...

    def result(self, ticket: Any) -> R_co:
        """Result of a ticket that is done.

        Raises:
            JobLostError: there is none.
        """
        ...

    def seconds(self, ticket: Any) -> float | None:
        """Seconds that count towards the time limit; None before the work begins and during a pause."""
        ...

    def is_compiling(self) -> bool:
        """Whether a worker compiles."""
        ...

    def kill(self, ticket: Any) -> None:
        """End the worker of a ticket, which is then done without a result."""
        ...


@dataclass(kw_only=True)
class _Running(Generic[J]):
    job: J
    begin: float
    killed: bool = False


def run_jobs(
    pool: Pool[R],
    jobs: Iterable[J],
    *,
    window: int,
    timeout: float | None,
    failure: Failure[J, R],
    remark: Remark,
) -> Iterator[R]:
    """Yield one result per job.

    Args:
        pool: the workers.
        jobs: read as they are needed.
        window: jobs that are submitted at a time.
        timeout: seconds per job, None for no limit.
        failure: makes the result of a job that was lost.
        remark: called with what a user should know meanwhile.
    """
    running: dict[Any, _Running[J]] = {}
    crashed: list[J] = []
    remarked = False

    def submit(job: J) -> None:
        running[pool.submit(job)] = _Running(job=job, begin=time.monotonic())

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
        while len(running) >= window:
            yield from collect(last=False)
    while running:
        yield from collect(last=False)
    # what crashed for want of memory, say, may succeed with the machine to itself
    for job in crashed:
        submit(job)
        while running:
            yield from collect(last=True)
