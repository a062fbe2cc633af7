"""Warm-up: compilation of all kernels before the first video, on all cores.

Kernels compile when samples of all kinds are extracted: small videos that are encoded for this purpose. An extraction
finds the same kernels in the cache.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from codecmeta.batch.engines import LocalEngine, usable_cores
from codecmeta.batch.scheduling import Remark


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Video that makes kernels compile when it is extracted.

    Attributes:
        name: of the codec and its samples.
        encoder: of libav.
        pixel_format: of the pictures.
        width: of the pictures; kernels differ for planes with and without gaps between rows.
        options: of the encoder.
    """

    name: str
    encoder: str
    pixel_format: str = "yuv420p"
    width: int = 96
    options: Mapping[str, str] = field(default_factory=dict)


_X265 = "log-level=none:pools=1:frame-threads=1:keyint=4:bframes=1"
SAMPLES = (
    Sample(name="H.264, 8 bit", encoder="libx264", options={"g": "6", "bf": "2", "weightb": "1"}),
    Sample(name="HEVC, 8 bit", encoder="libx265", options={"x265-params": _X265}),
    Sample(name="H.264, 10 bit", encoder="libx264", pixel_format="yuv420p10le", options={"g": "6", "bf": "2"}),
    Sample(name="H.264, CAVLC", encoder="libx264", options={"g": "6", "profile": "baseline"}),
    Sample(name="HEVC, 10 bit", encoder="libx265", pixel_format="yuv420p10le", options={"x265-params": _X265}),
    Sample(name="MPEG-4, quarter samples", encoder="mpeg4", options={"g": "6", "flags": "+qpel"}),
    Sample(name="MPEG-2", encoder="mpeg2video", options={"g": "6"}, width=256),
    Sample(name="H.264, 10 bit, rows that join", encoder="libx264", pixel_format="yuv420p10le", width=256),
)
"""Samples in decreasing order of compilation time."""


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """Result of one sample.

    Attributes:
        name: of the sample.
        seconds: wall time.
        problem: reason why nothing was compiled, "" where it was.
    """

    name: str
    seconds: float
    problem: str = ""


def compile_kernels(*, processes: int, remark: Remark) -> list[Warmed]:
    """Compile all kernels that are not in the cache yet.

    Args:
        processes: number of processes.
        remark: called with messages for the user during the run.

    Returns:
        The samples in the order in which they finished.
    """
    engine = LocalEngine(workers=min(processes, len(SAMPLES)), timeout=None, remark=remark)
    with tempfile.TemporaryDirectory(prefix="codecmeta-") as folder:
        jobs = [(sample, str(Path(folder, f"{number}.mkv"))) for number, sample in enumerate(SAMPLES)]
        return list(engine.run(_warm, jobs, failure=_lost))


@cache
def prepare_machine() -> None:
    """Compile all kernels unless this machine has done so: in one process, while the others wait for it."""
    from numba.core import event

    from codecmeta.simd.numba_cache import COMPILING, cache_folder, hold_lock, source_digest

    folder = cache_folder()
    mark = folder / f"compiled-{source_digest()}"
    if mark.exists():
        return
    with event.trigger_event(COMPILING, data="all"), hold_lock(folder / "compile-all.lock"):
        if not mark.exists():
            compile_kernels(processes=usable_cores(), remark=lambda text: None)
            # without a cache, every process compiles what it needs
            with suppress(OSError):
                mark.touch()


def _warm(job: tuple[Sample, str]) -> Warmed:
    from codecmeta.extraction import extract
    from codecmeta.record.texture import texture_energy

    sample, path = job
    begin = time.perf_counter()
    try:
        _encode(sample, path)
    except Exception as error:
        return Warmed(name=sample.name, seconds=0.0, problem=f"{sample.encoder} encodes no sample ({error})")
    try:
        record = extract(path, frames="all", maps=("innovation", "carried"), pixels=16, motion=True, qp=True)
        extract(path, frames="all", residual="motion" if "HEVC" not in sample.name else "proxy", pixels=None)
        if record.frames is not None:
            texture_energy(record.frames)
    finally:
        os.unlink(path)  # noqa: PTH108
    return Warmed(name=sample.name, seconds=round(time.perf_counter() - begin, 3))


def _lost(job: tuple[Sample, str], code: str, message: str, seconds: float) -> Warmed:
    return Warmed(name=job[0].name, seconds=seconds, problem=message)


def _encode(sample: Sample, path: str, *, frames: int = 10, height: int = 80) -> None:
    """Write a small video with motion."""
    import av
    import numpy as np

    width = sample.width
    random = np.random.default_rng(0)
    scene = random.integers(0, 256, (height * 2, width * 2, 3), np.uint8)
    scene[: height // 2] = 128
    with av.open(path, "w") as output:
        stream: Any = output.add_stream(sample.encoder, rate=Fraction(25), options=dict(sample.options))
        stream.width, stream.height, stream.pix_fmt = width, height, sample.pixel_format
        stream.thread_count = 1
        for number in range(frames):
            view = np.ascontiguousarray(scene[number : number + height, 3 * number : 3 * number + width])
            frame = av.VideoFrame.from_ndarray(view, format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
