"""Many videos, each in a worker with a time limit; done ones are kept, failures are reported and passed by."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from codecmeta import __version__
from codecmeta.batch.engines import Engine
from codecmeta.batch.inputs import Input
from codecmeta.errors import CodecMetaError, MetaFormatError, SourceError
from codecmeta.record import npz
from codecmeta.record.options import Options

Status = Literal["done", "kept", "failed"]

MANIFEST = "manifest.jsonl"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video to extract and the file to write."""

    source: str
    meta: str
    options: Options
    deflate: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one video; the keys of a JSON line.

    Attributes:
        source: the video, as given.
        meta: its .npz.
        status: `done`, `kept` (was there already), or `failed`.
        code: stable word for the reason of a failure, "" otherwise.
        message: the reason in words; or which maps that were asked for are not to be had; "" otherwise.
        frames: sampled frames.
        packets: packets of the stream.
        gops: its GoPs.
        residual: source of the residual, or None.
        seconds: wall time in the worker.
    """

    source: str
    meta: str
    status: Status
    code: str = ""
    message: str = ""
    frames: int = 0
    packets: int = 0
    gops: int = 0
    residual: str | None = None
    seconds: float = 0.0

    def json(self) -> str:
        """One line of ASCII JSON; file names that are not UTF-8 come out as lone surrogates."""
        return json.dumps(asdict(self), ensure_ascii=True)


def extract_job(job: Job) -> Outcome:
    """Extract one video and write its .npz. Never raises for what a video can be guilty of."""
    from codecmeta.extraction import extract_video

    begin = time.perf_counter()

    def failed(code: str, message: str) -> Outcome:
        return _failure(job, code, " ".join(message.split()), time.perf_counter() - begin)

    try:
        meta = extract_video(job.source, job.options)
    except SourceError as error:
        return failed(error.code, str(error))
    except CodecMetaError as error:
        return failed("usage", str(error))
    except MemoryError:
        return failed("out_of_memory", "not enough memory")
    except Exception as error:
        # whatever a hostile file provokes stays with that file; the trace tells where
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return failed("internal", f"{type(error).__name__}: {error} ({where})")
    try:
        target = Path(job.meta)
        target.parent.mkdir(parents=True, exist_ok=True)
        meta.save(target, deflate=job.deflate)
    except CodecMetaError as error:
        return failed("internal", str(error))
    except OSError as error:
        code = "disk_full" if error.errno in _FULL else "output"
        return failed(code, f"cannot write {job.meta!r}: {error.strerror or error}")
    return _success(job, "done", meta.info, time.perf_counter() - begin)


def _success(job: Job, status: Status, info: dict[str, Any], seconds: float) -> Outcome:
    signals = {name: info["signals"][name] for name in job.options.chosen_maps}
    absent = [f"no {name} map ({signal['absent']})" for name, signal in signals.items() if "absent" in signal]
    return Outcome(
        source=job.source,
        meta=job.meta,
        status=status,
        message="; ".join(absent),
        frames=info["extraction"]["frames"],
        packets=info["verdict"]["packets"],
        gops=info["verdict"]["gops"],
        residual=next((signal["source"] for signal in signals.values() if "source" in signal), None),
        seconds=round(seconds, 3),
    )


def find_fresh(job: Job) -> Outcome | None:
    """The outcome of an earlier run, if its .npz was made from this very video, with these options, by this version."""
    try:
        info = npz.read_info(job.meta)
        status = Path(job.source).stat()
        source, extraction = info["source"], info["extraction"]
        fresh = (
            source["bytes"] == status.st_size
            and source["mtime_ns"] == status.st_mtime_ns
            and extraction["digest"] == job.options.digest()
            and extraction["version"] == __version__
        )
        return _success(job, "kept", info, 0.0) if fresh else None
    except (OSError, MetaFormatError, KeyError, TypeError, ValueError):
        return None


def extract_many(
    inputs: Iterable[Input],
    out: Path,
    *,
    options: Options,
    engine: Engine,
    overwrite: bool = False,
    deflate: bool = False,
    report: Callable[[Outcome], None],
) -> dict[Status, int]:
    """Extract all videos and append what happened to `out/manifest.jsonl`.

    Args:
        inputs: the videos; read as they are needed.
        out: folder of the .npz files, made if it is not there.
        options: what to extract.
        engine: what runs the jobs.
        overwrite: extract again what is fresh.
        deflate: compress the .npz files.
        report: called with every outcome.

    Returns:
        How many were done, kept and failed.

    Raises:
        OSError: the output folder cannot be made or written, or the disk is full.
    """
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[Status, int] = {"done": 0, "kept": 0, "failed": 0}
    # hashes, not names: a list of inputs may be millions long
    places: dict[int, int] = {}
    swept: set[Path] = set()

    with (out / MANIFEST).open("a", encoding="ascii") as manifest:

        def settle(outcome: Outcome) -> None:
            counts[outcome.status] += 1
            if outcome.status != "kept":
                manifest.write(outcome.json() + "\n")
                manifest.flush()
            report(outcome)
            if outcome.code == "disk_full":
                raise OSError(errno.ENOSPC, outcome.message)

        def jobs() -> Iterator[Job]:
            for item in inputs:
                job = Job(source=str(item.path), meta=str(out / item.place), options=options, deflate=deflate)
                taken = places.setdefault(hash(job.meta), hash(job.source))
                if taken != hash(job.source):
                    message = f"{job.meta!r} is the place of another input, too; use another --out for one of them"
                    settle(_failure(job, "output", message, 0.0))
                elif not overwrite and (kept := find_fresh(job)):
                    settle(kept)
                else:
                    folder = Path(job.meta).parent
                    # once a run: the search takes as long as the folder is full
                    if folder not in swept:
                        swept.add(folder)
                        _sweep(folder)
                    yield job

        for outcome in engine.run(extract_job, jobs(), failure=_failure):
            settle(outcome)
    return counts


def _failure(job: Job, code: str, message: str, seconds: float) -> Outcome:
    return Outcome(
        source=job.source, meta=job.meta, status="failed", code=code, message=message, seconds=round(seconds, 3)
    )


def _sweep(folder: Path) -> None:
    """Remove what a killed run left half-written; what cannot be looked at is told when its job is done."""
    with suppress(OSError, ValueError):
        for path in folder.glob(".codecmeta-*.tmp"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
