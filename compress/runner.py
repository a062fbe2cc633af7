"""Runs over many videos: every .npz under a folder -> token files, reports and pictures.

The output mirrors the input: `meta/a/clip.mp4.npz` becomes `tokens/a/clip.mp4.safetensors` with its report
`tokens/a/clip.mp4.json` and, if asked for, its picture `tokens/a/clip.mp4.png` and embeddings `tokens/a/clip.mp4.npy`.
The report is written last and records the options and a digest of the .npz: a later run with the same of both leaves
the video as it is.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from codecmeta import CodecMetaError, __version__
from compress.density import MapChoice
from compress.errors import CompressError, ConfigError, OutputError
from compress.records import RecordSource, digest_record, find_metas, load_record
from compress.settings import list_settings
from compress.stage import Compression
from compress.token_file import sweep_temporary, write_embeddings, write_tokens, write_whole
from compress.video import CompressedVideo, EmbeddedShortener, Shortener, Stopwatch, check_device

REPORT_FORMAT = 1
MAX_REPORT_BYTES = 16 << 20
LONGEST_NAME = 255
"""Bytes of a file name that any common file system takes."""
_STOPS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Errors of writing that all further videos would meet as well."""
SUFFIXES = {"tokens": ".safetensors", "report": ".json", "picture": ".png", "embeddings": ".npy"}

Status = Literal["done", "kept", "failed"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run over many videos.

    Attributes:
        method: what shortens the tokens.
        name: of the method, for reports.
        retention: nominal retained fraction, for reports.
        shortener: what encodes the videos, the embedded encoder or a model.
        map: where the density of patches comes from.
        plot: draw a picture per video.
        overwrite: do everything again.
        elsewhere: other machines do it, which may have devices that this one lacks.

    Raises:
        ConfigError: the shortener cannot work, or not with this method, or pictures cannot be drawn here.
    """

    method: object
    name: str
    retention: float
    shortener: Shortener = field(default_factory=EmbeddedShortener)
    map: MapChoice = "auto"
    plot: bool = False
    overwrite: bool = False
    elsewhere: bool = False

    def __post_init__(self) -> None:
        self.shortener.check(self.method, self.name)
        if not self.elsewhere:
            check_device(self.shortener.device)
        if self.plot:
            from compress.picture import require_matplotlib

            require_matplotlib()

    @property
    def options(self) -> dict[str, Any]:
        """Everything that decides what comes out, as it is recorded and compared."""
        described = list_settings(self.method) if dataclasses.is_dataclass(self.method) else []
        return {
            "format": REPORT_FORMAT,
            "version": __version__,
            "method": self.name,
            "fields": {setting.name: setting.value for setting in described},
            "map": self.map,
            **self.shortener.describe(),
        }


@dataclass(frozen=True, kw_only=True)
class VideoReport:
    """Outcome of one video; `to_json` is a line of `compress run --json`.

    Attributes:
        video: path of the .npz below the input folder, without its suffix.
        status: done, kept (nothing to do) or failed.
        message: why it failed, and what differs from what was requested.
        method: name of the method.
        retention: nominal retained fraction.
        frames: T.
        tokens_in: V.
        tokens_out: V'.
        budgets: tokens that leave per frame, by the frame of their anchor.
        granted: tokens granted per frame before pairs were merged; empty without such budgets.
        seconds: per stage.
        out: the token file.
        merges: patches before and after RPM, tokens per output token (mean, largest), the method's own figures.
        sources: signal -> where it came from.
    """

    video: str
    status: Status
    message: str
    method: str
    retention: float
    frames: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    budgets: tuple[int, ...] = ()
    granted: tuple[int, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    out: str | None = None
    merges: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    picture: str | None = None

    def to_json(self) -> str:
        """Return one line of ASCII, whatever the file names hold."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)


def output_paths(out: str | os.PathLike[str], name: str) -> dict[str, Path]:
    """Return token file, report and picture of a video; a name too long for a file is replaced by its digest."""
    relative = Path(name)
    stem = relative.name
    if len(os.fsencode(stem)) + max(map(len, SUFFIXES.values())) > LONGEST_NAME:
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()
    return {kind: Path(out, relative.parent, stem + suffix) for kind, suffix in SUFFIXES.items()}


def run(meta: str | os.PathLike[str], out: str | os.PathLike[str], job: Job) -> Iterator[VideoReport]:
    """Compress every video, one after the other; one that fails does not stop the others.

    Args:
        meta: a folder of .npz files, or of tar shards of them, or one file, shard or index.
        out: the output folder; made where missing.
        job: what to do.

    Yields:
        A report per video, in the order of their names.

    Raises:
        ConfigError: there is no .npz, the output folder is an address, or the options do not go together.
        OutputError: the output folder cannot be made or written, or the disk is full.
    """
    for name, source, outputs in find_work(meta, out):
        yield run_video(name, source, outputs, job)


def find_work(
    meta: str | os.PathLike[str], out: str | os.PathLike[str]
) -> Iterator[tuple[str, RecordSource, dict[str, Path]]]:
    """Find all records, and prepare the output folder.

    Yields:
        Name and source of a record, and where its outputs belong.

    Raises:
        ConfigError: no .npz is found, or the output folder is an address.
        OutputError: the output folder cannot be made or written.
    """
    found = find_metas(meta)
    _check_place(out)
    swept: set[Path] = set()
    for name, source in found:
        outputs = output_paths(out, name)
        if outputs["tokens"].parent not in swept:
            swept.add(outputs["tokens"].parent)
            sweep_temporary(outputs["tokens"].parent)
        yield name, source, outputs


def _check_place(place: str | os.PathLike[str]) -> None:
    """Make the output folder, and find out whether a file can be made in it."""
    # pathlib.Path makes one slash of two
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(place)):
        raise ConfigError(f"{place} is an address; allowed is a folder: write there, and copy it afterwards")
    out = Path(place)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OutputError(f"{out} cannot be the output folder: {error.strerror or error}") from error


def run_video(name: str, source: RecordSource, outputs: Mapping[str, Path], job: Job) -> VideoReport:
    """Compress one video, or find that this has been done."""
    try:
        digest = digest_record(source)
        kept = None if job.overwrite else _kept(outputs, job, digest)
        if kept is not None:
            return dataclasses.replace(kept, video=name, status="kept", out=str(outputs["tokens"]))
        return _compress(name, source, outputs, job, digest)
    except (OutputError, ConfigError):
        # they concern all videos
        raise
    except (OSError, CodecMetaError, CompressError) as error:
        message = str(error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        message = f"out of memory: {error}"
    except Exception as error:  # a bug must not stop the other videos
        message = f"internal error, please report it: {type(error).__name__}: {error}"
    return VideoReport(
        video=name, status="failed", message=" ".join(message.split()), method=job.name, retention=job.retention
    )


def _compress(name: str, source: RecordSource, outputs: Mapping[str, Path], job: Job, digest: str) -> VideoReport:
    watch = Stopwatch()
    with watch.stage("load"):
        meta = load_record(source)
    video = job.shortener.shorten(meta, job.method, map=job.map, stopwatch=watch)
    with _writing(outputs["tokens"].parent), watch.stage("save"):
        outputs["tokens"].parent.mkdir(parents=True, exist_ok=True)
        if outputs["tokens"].exists() or outputs["report"].exists():
            outputs["picture"].unlink(missing_ok=True)  # it shows the tokens of an earlier run
        size = write_tokens(outputs["tokens"], video)
        if video.embeddings is not None:
            write_embeddings(outputs["embeddings"], video.embeddings)
    if job.plot and meta.frames is not None:
        from compress.picture import draw_video

        with watch.stage("plot"):
            picture = draw_video(meta.frames, video, title=name)
            with _writing(outputs["picture"].parent):
                write_whole(outputs["picture"], picture)
    compression = video.compression
    report = VideoReport(
        video=name,
        status="done",
        message="; ".join(video.notes),
        method=job.name,
        retention=job.retention,
        frames=compression.frames,
        tokens_in=compression.plan.count_in,
        tokens_out=compression.achieved,
        budgets=tuple(compression.frame_counts.tolist()),
        granted=tuple(() if compression.frame_budgets is None else compression.frame_budgets.tolist()),
        seconds={stage: round(seconds, 6) for stage, seconds in watch.seconds.items()},
        out=str(outputs["tokens"]),
        merges=merge_statistics(video),
        sources=dict(video.sources),
        picture=str(outputs["picture"]) if job.plot else None,
    )
    record = {
        "options": job.options,
        "input": digest,
        "token_bytes": size,
        "report": dataclasses.asdict(report),
    }
    with _writing(outputs["report"].parent):
        write_whole(outputs["report"], (json.dumps(record, indent=1, allow_nan=False) + "\n").encode("ascii"))
    return report


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Separate errors that end the run from those of one file."""
    try:
        yield
    except OSError as error:
        if error.errno in _STOPS:
            raise OutputError(f"{folder} cannot be written: {error.strerror}") from error
        raise


def merge_statistics(video: CompressedVideo) -> dict[str, float]:
    """Return figures of what was merged: patches before and after RPM, tokens per output token, the method's own."""
    sizes = video.compression.plan.sizes.double()
    figures = {
        "tokens_per_output": round(float(sizes.mean()), 3),
        "largest_output": int(sizes.max()),
        "nominal": video.compression.nominal,
        **_figures(video.compression),
    }
    if video.patches is not None:
        figures |= {"patches_in": video.patches.plan.count_in, "patches_encoded": video.patches.achieved}
        figures |= _figures(video.patches)
    return figures


def _figures(compression: Compression) -> dict[str, float]:
    """Return the plain numbers among the diagnostics; arrays by their lengths, only where they list frames."""
    return {
        name: round(float(value), 6)
        for name, value in compression.diagnostics.items()
        if not isinstance(value, np.ndarray) and np.isfinite(float(value))
    }


def _check_figures(report: VideoReport) -> None:
    """Raise TypeError unless a report that was read back can be shown."""
    numbers = (report.frames, report.tokens_in, report.tokens_out, *report.budgets, *report.granted)
    timings = (*report.seconds.values(), *report.merges.values())
    texts = (report.message, report.method, *report.sources.values())
    if not (
        all(type(number) is int for number in numbers)
        and all(type(number) in (int, float) for number in timings)
        and all(type(text) is str for text in texts)
        and len(report.budgets) == report.frames
    ):
        raise TypeError("not the figures of a video")


def _kept(outputs: Mapping[str, Path], job: Job, digest: str) -> VideoReport | None:
    """Return the report of an earlier run that leaves nothing to do, or None."""
    try:
        if outputs["report"].stat().st_size > MAX_REPORT_BYTES:
            return None
        record = json.loads(outputs["report"].read_bytes())
        fresh = (
            record["options"] == job.options
            and record["input"] == digest
            and record["token_bytes"] == outputs["tokens"].stat().st_size
            and (outputs["picture"].is_file() or not job.plot)
            and (outputs["embeddings"].is_file() or "embeddings" not in job.options)
        )
        report = VideoReport(**record["report"])
        _check_figures(report)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    picture = str(outputs["picture"]) if outputs["picture"].is_file() else None
    return dataclasses.replace(report, picture=picture) if fresh else None
