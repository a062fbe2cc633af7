"""Parallel runs over many videos: workers that each load the model once and compress one video after the other."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from codecmeta import UsageError
from compress.errors import CompressError, ConfigError, OutputError
from compress.records import RecordSource
from compress.runner import Job, VideoReport, find_work, run_video


class Engine(Protocol):
    """Runner of a function over tasks in several processes, which yields results as they come, such as Ray's."""

    def run(self, task: Callable[[Any], Any], jobs: Iterable[Any], *, failure: Callable[..., Any]) -> Iterator[Any]:
        """Yield one result per task; `failure(task, code, message, seconds)` makes that of a task that died."""
        ...


@dataclass(frozen=True, kw_only=True)
class VideoTask:
    """Video to compress in a worker.

    Attributes:
        name: of the video.
        source: of its record.
        outputs: token file, report and picture.
        job: what to do, pickled.
        method: name of the method, for the report of a worker that died.
        retention: nominal retained fraction, likewise.
        threads: of PyTorch in the worker; None leaves it to PyTorch.
    """

    name: str
    source: RecordSource
    outputs: Mapping[str, Path]
    job: bytes
    method: str
    retention: float
    threads: int | None


def run_parallel(
    meta: str | os.PathLike[str],
    out: str | os.PathLike[str],
    job: Job,
    engine: Engine,
    *,
    threads: int | None = None,
) -> Iterator[VideoReport]:
    """Compress every video, several at a time; see `compress.runner.run`.

    Args:
        meta: as `compress.runner.run` takes it; workers read it under the same path.
        out: the output folder; made where missing.
        job: what to do.
        engine: what runs the workers.
        threads: of PyTorch in a worker; None leaves it to PyTorch.

    Yields:
        A report per video, in the order in which they are done.

    Raises:
        ConfigError: there is no .npz, the output folder is an address, the options do not go together, or what the
            engine needs is missing.
        OutputError: the output folder cannot be made or written, or the disk is full.
    """
    pickled = pickle.dumps(job)

    def tasks() -> Iterator[VideoTask]:
        for name, source, outputs in find_work(meta, out):
            yield VideoTask(
                name=name,
                source=source,
                outputs=outputs,
                job=pickled,
                method=job.name,
                retention=job.retention,
                threads=threads,
            )

    # a generator, which ends its workers when it is closed
    results = cast("Generator[Any, None, None]", engine.run(run_task, tasks(), failure=_lost))
    with closing(results):
        try:
            for result in results:
                if isinstance(result, CompressError):
                    raise result
                yield result
        except UsageError as error:
            raise ConfigError(str(error)) from error


def run_task(task: VideoTask) -> VideoReport | CompressError:
    """Compress one video in a worker; return an error that concerns all videos."""
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    try:
        return run_video(task.name, task.source, task.outputs, _open_job(task.job))
    except (OutputError, ConfigError) as error:
        return error


@lru_cache(maxsize=1)
def _open_job(pickled: bytes) -> Job:
    """Return the job of this process, with the model that an earlier video loaded."""
    job: Job = pickle.loads(pickled)
    return job


def _lost(task: VideoTask, code: str, message: str, seconds: float) -> VideoReport:
    return VideoReport(
        video=task.name,
        status="failed",
        message=f"{code}: {message}",
        method=task.method,
        retention=task.retention,
        seconds={"worker": round(seconds, 3)},
    )
