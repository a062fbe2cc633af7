"""Extraction of many videos, each in a worker with a time limit; those that are done are kept."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from codecmeta import __version__
from codecmeta.batch.engines import Engine
from codecmeta.batch.inputs import Input
from codecmeta.batch.outcome import Outcome, Stamp, Status, outcome_of
from codecmeta.batch.output_folder import STOPS
from codecmeta.batch.packed_output import Packing
from codecmeta.batch.runs import failed_outcome, run_inputs
from codecmeta.batch.shards import Shard
from codecmeta.errors import CodecMetaError, ConflictError, MetaFormatError, OutputError, SourceCode, SourceError
from codecmeta.picture_folder import holds_pictures, identify
from codecmeta.record import npz
from codecmeta.record.limits import Limits
from codecmeta.record.options import Options
from codecmeta.storage.address import is_url
from codecmeta.storage.objects import stat_object, write_object


@dataclass(frozen=True, kw_only=True)
class Job:
    """Video to extract and the file to write.

    Attributes:
        source: the video.
        meta: the file.
        options: what to extract.
        limits: the largest demands that the video may make.
        deflate: compress the arrays.
        overwrite: extract even if a record of the same video and options exists.
    """

    source: str
    meta: str
    options: Options
    limits: Limits = field(default_factory=Limits)
    deflate: bool = False
    overwrite: bool = False


def extract_job(job: Job) -> Outcome:
    """Extract one video and write its .npz, or find an existing one. All errors are in the outcome."""
    from codecmeta.extraction import extract_video
    from codecmeta.picture_sequence import extract_pictures

    begin = time.perf_counter()

    def failed(code: SourceCode, message: str) -> Outcome:
        return failed_outcome(job, code, " ".join(message.split()), time.perf_counter() - begin)

    try:
        # what is there before the record is made is what it may replace
        before = stat_object(job.meta) if is_url(job.meta) else None
        if not job.overwrite and (kept := find_fresh(job)):
            return kept
        read = extract_pictures if holds_pictures(job.source) else extract_video
        meta = read(job.source, job.options, job.limits)
    except SourceError as error:
        return failed(error.code, str(error))
    except CodecMetaError as error:
        return failed("usage", str(error))
    except Exception as error:
        # errors of a hostile file stay with that file
        return failed(*_explain(error))
    try:
        if is_url(job.meta):
            write_object(job.meta, meta.encode(job.meta, deflate=job.deflate), before)
        else:
            target = Path(job.meta)
            target.parent.mkdir(parents=True, exist_ok=True)
            meta.save(target, deflate=job.deflate)
        outcome = outcome_of(
            meta.info, source=job.source, meta=job.meta, status="done", seconds=time.perf_counter() - begin
        )
        return replace(outcome, stamp=_stamp(job, meta.info))
    except ConflictError as error:
        kept = find_fresh(job)
        if kept is None:
            return failed("conflict", f"{error.strerror or error}; its record is of another video or other options")
        seconds = round(time.perf_counter() - begin, 3)
        return replace(kept, warnings=(*kept.warnings, "another run wrote the record first"), seconds=seconds)
    except SourceError as error:
        return failed(error.code, str(error))
    except OutputError as error:
        return failed(STOPS.get(error.errno or 0, "output"), error.strerror or str(error))
    except CodecMetaError as error:
        return failed("internal", str(error))
    except OSError as error:
        code = STOPS.get(error.errno or 0, "output")
        return failed(code, f"cannot write {job.meta!r}: {error.strerror or error}")
    except MemoryError as error:
        return failed(*_explain(error))


def _explain(error: Exception) -> tuple[SourceCode, str]:
    """Return code and message of an unexpected error, with the place where it was raised."""
    if isinstance(error, MemoryError) or _is_memory_of_opencv(error):
        return "out_of_memory", f"not enough memory{_memory_limit()}"
    if isinstance(error, OSError):
        return "unreadable", f"the file cannot be read ({error.strerror or error})"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return "internal", f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def _is_memory_of_opencv(error: Exception) -> bool:
    # cv2.error; -4 is StsNoMem
    return type(error).__module__ == "cv2" and getattr(error, "code", None) == -4


def _memory_limit() -> str:
    try:
        import resource
    except ImportError:
        return ""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return f" within {limit / 2**30:.3g} GiB of address space per worker; choose fewer frames, or raise --memory"


def _stamp(job: Job, info: dict[str, Any]) -> Stamp:
    """Return the stamp of a record: of its video as it was read, not as it is now."""
    source = info["source"]["bytes"], info["source"]["mtime_ns"]
    if is_url(job.meta):
        state = stat_object(job.meta)
        return Stamp.join(source, (state.size, state.mtime_ns) if state is not None else (0, 0))
    now = Path(job.meta).stat()
    return Stamp.join(source, (now.st_size, now.st_mtime_ns))


def find_fresh(job: Job) -> Outcome | None:
    """Find the outcome of an earlier run, if its .npz is valid and was made from this video with these options.

    A record that another version of this package made is stale; one that another version of libav made, if it decoded
    pictures.
    """
    import av

    try:
        info, _ = npz.read(job.meta, max_bytes=max(npz.MAX_BYTES, job.limits.bytes))
        extraction = info["extraction"]
        same_decoder = (
            info["verdict"]["pictures_decoded"] == 0 or extraction["libraries"]["ffmpeg"] == av.ffmpeg_version_info
        )
        if extraction["digest"] != job.options.digest() or extraction["version"] != __version__ or not same_decoder:
            return None
        now = _identify(job.source, info["source"])
        if (now["bytes"], now["sha256"]) != (info["source"]["bytes"], info["source"]["sha256"]):
            return None
        outcome = outcome_of(info, source=job.source, meta=job.meta, status="kept")
        return replace(outcome, stamp=_stamp(job, {"source": now}))
    except (OSError, MetaFormatError, SourceError, KeyError, TypeError, ValueError):
        return None


def _identify(source: str, recorded: dict[str, Any]) -> dict[str, Any]:
    """Return the identity of a video as it is now; one by URL is read only if its version is not the recorded one.

    Raises:
        OSError, SourceError: it cannot be read.
    """
    if is_url(source) and recorded.get("version"):
        state = stat_object(source)
        if state is not None and (state.size, state.version) == (recorded["bytes"], recorded["version"]):
            return recorded | {"mtime_ns": state.mtime_ns}
    return identify(source)


def extract_inputs(
    inputs: Iterable[Input],
    out: Path | str,
    *,
    options: Options,
    engine: Engine,
    limits: Limits | None = None,
    shard: Shard | None = None,
    overwrite: bool = False,
    deflate: bool | None = None,
    summary: bool = True,
    packing: Packing | None = None,
    report: Callable[[Outcome], None],
) -> dict[Status, int]:
    """Extract all videos, append the outcomes to `out/manifest.jsonl` and write `out/summary.json`.

    Args:
        inputs: the videos; read when they are needed.
        out: folder of the .npz files, created if missing, or its URL.
        options: what to extract.
        engine: engine that runs the jobs.
        limits: the largest demands that a video may make, None for the defaults of `Limits`.
        shard: the part of the inputs to do, with a manifest and a summary of its own; None for all.
        overwrite: extract fresh records again, and take the folder over from a run with other options.
        deflate: compress the .npz files; None compresses those with JPEG frames.
        summary: write the summary; for a run over a few of the inputs it would be misleading.
        packing: move the records into tar shards with an index; None leaves each a file.
        report: called with every outcome.

    Returns:
        Numbers of videos that were done, kept and failed.

    Raises:
        UsageError: the folder holds records of other options, or packing needs pyarrow.
        OutputError: the output folder cannot be created or written, or the disk is full.
    """
    deflate = options.jpeg is not None if deflate is None else deflate
    plain = Job(source="", meta="", options=options, limits=limits or Limits(), deflate=deflate, overwrite=overwrite)
    return run_inputs(
        inputs,
        out,
        plain=plain,
        task=extract_job,
        run={
            "options": {**options.describe(), "deflate": deflate, "pack": None if packing is None else "tar"},
            "versions": _versions(),
        },
        engine=engine,
        shard=shard,
        summary=summary,
        packing=packing,
        report=report,
    )


def _versions() -> dict[str, str]:
    import av

    return {"codecmeta": __version__, "av": av.__version__, "ffmpeg": av.ffmpeg_version_info}
