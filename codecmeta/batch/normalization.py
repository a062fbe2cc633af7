"""Normalisation of a video corpus to H.264 with GoPs of one length, by the system's ffmpeg, audio kept.

Afterwards all of it has exact residuals, and packets and GoPs cost no more than the index of an MP4.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from codecmeta import __version__
from codecmeta.batch.engines import Engine
from codecmeta.batch.inputs import SUFFIX, Input
from codecmeta.batch.outcome import Outcome, Stamp, Status
from codecmeta.batch.output_folder import STOPS
from codecmeta.batch.runs import failed_outcome, run_inputs
from codecmeta.batch.shards import Shard
from codecmeta.container.formats import DEMUXERS
from codecmeta.errors import SourceCode, SourceError, UsageError
from codecmeta.record.atomic_file import replace_file
from codecmeta.record.limits import Limits
from codecmeta.storage.address import is_url

Encoder = Literal["libx264", "h264_nvenc"]
ENCODERS: tuple[Encoder, ...] = get_args(Encoder)

_COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Audio codecs that MP4 holds unchanged; others become AAC."""
_MOST_QUALITY = 51
_TAIL_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Target:
    """H.264 encoding to make.

    Attributes:
        gop: frames from one key frame to the next; no key frames between.
        crf: quality, 0 (best) to 51; `cq` of h264_nvenc.
        encoder: ffmpeg's name of the encoder.

    Raises:
        UsageError: an option is not allowed.
    """

    gop: int = 32
    crf: int = 20
    encoder: Encoder = "libx264"

    def __post_init__(self) -> None:
        if self.gop < 1:
            raise UsageError(f"gop={self.gop}; allowed are whole numbers from 1")
        if not 0 <= self.crf <= _MOST_QUALITY:
            raise UsageError(f"crf={self.crf}; allowed are 0..{_MOST_QUALITY}")
        if self.encoder not in ENCODERS:
            raise UsageError(f"encoder={self.encoder!r}; choose from {', '.join(ENCODERS)}")

    def options(self) -> dict[str, Any]:
        """Return the encoder's options as ffmpeg takes them."""
        common = {"c:v": self.encoder, "g": self.gop, "pix_fmt": "yuv420p", "fps_mode": "passthrough"}
        if self.encoder == "h264_nvenc":
            return common | {"rc": "vbr", "cq": self.crf, "no-scenecut": 1, "forced-idr": 1}
        return common | {"crf": self.crf, "keyint_min": self.gop, "sc_threshold": 0, "threads": 1}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Video to convert and the file to write.

    Attributes:
        source: the video.
        meta: the file.
        target: what to make.
        overwrite: convert again even if the file exists.
    """

    source: str
    meta: str
    target: Target
    overwrite: bool = False


def normalize_inputs(
    inputs: Iterable[Input],
    out: Path,
    *,
    target: Target,
    engine: Engine,
    shard: Shard | None = None,
    overwrite: bool = False,
    report: Callable[[Outcome], None],
) -> dict[Status, int]:
    """Convert all videos; see `codecmeta.batch.runs.run_inputs`.

    Raises:
        UsageError: ffmpeg, ffmpeg-python or the encoder is missing, or the folder holds conversions of other options.
        OutputError: the output folder cannot be created or written, or the disk is full.
    """
    version = _check_ffmpeg(target.encoder)
    return run_inputs(
        (one._replace(place=target_place(one.place)) for one in inputs),
        out,
        plain=Conversion(source="", meta="", target=target, overwrite=overwrite),
        task=convert,
        run={"options": vars(target), "versions": {"codecmeta": __version__, "ffmpeg": version}},
        engine=engine,
        shard=shard,
        report=report,
    )


def target_place(place: str) -> str:
    """Return the place of a conversion: for `a/clip.avi.npz` it is `a/clip.avi.mp4`, for `b.mp4.npz` `b.mp4`."""
    name = place.removesuffix(SUFFIX)
    return name if name.lower().endswith(".mp4") else f"{name}.mp4"


def convert(job: Conversion) -> Outcome:
    """Convert one video. All errors are in the outcome."""
    begin = time.perf_counter()

    def failed(code: SourceCode, message: str) -> Outcome:
        return failed_outcome(job, code, " ".join(message.split()), time.perf_counter() - begin)

    if is_url(job.source):
        return failed("format_refused", "videos by URL are not converted; copy it first")
    if _is_next_to(job.source, job.meta):
        return failed("usage", "its conversion would replace it, or another video next to it; choose another --out")
    try:
        audio = _read_audio(job.source)
        target = Path(job.meta)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(target) as file:
            said = _run_ffmpeg(job, file.name, copy=audio <= _COPIED)
        packets, gops, duration = _look(job.meta)
    except SourceError as error:
        return failed(error.code, str(error))
    except OSError as error:
        return failed(STOPS.get(error.errno or 0, "output"), f"cannot write {job.meta!r}: {error.strerror or error}")
    return Outcome(
        source=job.source,
        meta=job.meta,
        status="done",
        warnings=(f"ffmpeg: {said}",) if said else (),
        frames=packets,
        packets=packets,
        gops=gops,
        seconds=round(time.perf_counter() - begin, 3),
        codec="h264",
        duration_s=duration,
        stamp=Stamp.of(job.source, job.meta),
    )


def _is_next_to(source: str, target: str) -> bool:
    """Return whether a conversion would be written into the folder of its video."""
    try:
        # also by links, and where the file system ignores case
        return Path(target).parent.samefile(Path(source).resolve().parent)
    except OSError:
        return False


def _check_ffmpeg(encoder: Encoder) -> str:
    """Check ffmpeg and the encoder; return ffmpeg's version."""
    try:
        import ffmpeg  # noqa: F401
    except ImportError as error:
        raise UsageError("normalize needs ffmpeg-python: pip install 'codecmeta[ffmpeg]'") from error
    if shutil.which("ffmpeg") is None:
        raise UsageError("normalize needs the command ffmpeg, 5.1 or later, on the path: install it from your system")
    known = subprocess.run(["ffmpeg", "-v", "error", "-h", f"encoder={encoder}"], capture_output=True, text=True)
    if known.returncode or "Encoder " not in known.stdout:
        raise UsageError(f"encoder={encoder!r} is not in this ffmpeg; choose from {', '.join(ENCODERS)}")
    shown = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True)
    return shown.stdout.partition("\n")[0]


def _read_audio(source: str) -> set[str]:
    """Read the audio codecs of a file, after checking that it is a video."""
    from codecmeta.container.video import open_video

    with open_video(source, Limits()) as video:
        return {stream.codec_context.name for stream in video.container.streams.audio}


def _run_ffmpeg(job: Conversion, path: str, *, copy: bool) -> str:
    """Run ffmpeg, and end it when this process is ended.

    Returns:
        The last errors after which it continued.

    Raises:
        SourceError: it failed.
    """
    import ffmpeg

    source = ffmpeg.input(f"file:{os.path.abspath(job.source)}", format_whitelist=DEMUXERS, protocol_whitelist="file")  # noqa: PTH100
    # an attached picture is no video; odd sides get one more row or column
    made = ffmpeg.output(
        source["V:0"],
        source["a?"],
        path,
        format="mp4",
        movflags="+faststart",
        vf="pad=ceil(iw/2)*2:ceil(ih/2)*2",
        **job.target.options(),
        **{"c:a": "copy" if copy else "aac"},
    )
    command = ["ffmpeg", "-nostdin", "-v", "error", *ffmpeg.compile(made, overwrite_output=True)[1:]]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        errors.seek(max(errors.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
        said = " | ".join(errors.read().decode(errors="replace").splitlines()[-3:])
    if code:
        raise SourceError("unreadable", f"ffmpeg ended with {code}: {said}")
    return said


def _look(path: str) -> tuple[int, int, float | None]:
    """Return packets, GoPs and seconds of the converted file."""
    from codecmeta.container.packets import read_packets
    from codecmeta.container.video import open_video
    from codecmeta.record.gop import split_gops

    with open_video(path, Limits()) as video:
        packets = read_packets(video, payloads=False)
        duration = video.container.duration
        return len(packets.size), len(split_gops(packets.size, packets.key)), duration / 1e6 if duration else None
