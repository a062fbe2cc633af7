"""Measures what batches cost beyond their videos: python -m bench.scale resume|workers|engines [--videos N].

resume   `codecmeta extract` over N videos that are all done: time, and memory of the process
workers  N clips with 1 and with 2 workers
engines  N jobs that do nothing, through each engine: time per job

Figures go into the JSON file given by --out, those of other measurements there stay.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codecmeta.batch.engines import Engine, LocalEngine, SerialEngine
from codecmeta.batch.inputs import find_inputs
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.manifest import MANIFEST, encode_line
from codecmeta.batch.outcome import Outcome, Stamp
from codecmeta.batch.output_folder import read_run, run_digest
from codecmeta.record.options import Options

ROOT = Path(__file__).resolve().parents[1]
PACKETS = Options(frames="uniform:2", residual="none", pixels=None)
FOLDER = 1000
"""Videos in a folder."""


def make_done(place: Path, count: int) -> None:
    """Videos and records that are empty, which nobody notices who does not open them, and the manifest of their run."""
    videos, meta = place / "videos", place / "meta"
    videos.mkdir(parents=True)
    # the record of the run
    extract_inputs([], meta, options=PACKETS, engine=SerialEngine(), report=lambda outcome: None)
    run = read_run(meta)
    assert run is not None
    plain = Outcome(
        source="", meta="", status="done", frames=2, packets=100, gops=4, codec="h264", duration_s=4.0
    ).manifest_facts()
    plain["run"] = run_digest(run)
    with (meta / MANIFEST).open("wb") as manifest:
        for number in range(count):
            name = f"{number // FOLDER:04d}/video-{number:07d}.mp4"
            source, record = f"{videos}/{name}", f"{meta}/{name}.npz"
            if number % FOLDER == 0:
                (videos / name).parent.mkdir()
                (meta / name).parent.mkdir()
            for path in (source, record):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            facts = {"source": source, "path": source, "meta": record, **asdict(Stamp.of(source, record))}
            manifest.write(encode_line(f"{name}.npz", plain | facts))


def resume(count: int, place: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        if place is None:
            place = Path(folder)
            make_done(place, count)
        command = [sys.executable, "-m", "bench.scale", "resumed", "--place", str(place)]
        runs = [json.loads(subprocess.check_output(command, cwd=ROOT).splitlines()[-1]) for _ in range(2)]
    # the first run finds cold folders
    print(f"resume: {runs[-1]}")
    return {"videos": count, **runs[-1]}


def resumed(place: Path) -> None:
    """Run the command over videos that are all done, in this process."""
    from codecmeta_cli.codecmeta import app

    begin = time.perf_counter()
    options = ("--frames", str(PACKETS.frames), "--residual", "none", "--pixels", "none")
    app(["extract", str(place / "videos"), "--out", str(place / "meta"), *options], standalone_mode=False)
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "seconds": round(time.perf_counter() - begin, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(peak_memory()),
    }
    print(json.dumps(figures))


def workers(count: int, folder: Path) -> dict[str, Any]:
    """Clips by default options, linked under many names; by one worker, two, two and one, so that drift shows."""
    clips = sorted(path for path in folder.iterdir() if path.suffix in {".mp4", ".mkv", ".webm", ".avi"})
    seconds: dict[int, list[float]] = {1: [], 2: []}
    spent: dict[int, list[float]] = {1: [], 2: []}
    parents: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        videos = Path(place, "videos")
        videos.mkdir()
        for number in range(count):
            clip = clips[number % len(clips)]
            (videos / f"{number:05d}{clip.suffix}").symlink_to(clip.resolve())
        for round_number, processes in enumerate((1, 2, 2, 1)):
            out = Path(place, f"meta{round_number}")
            begin, parent, children = time.perf_counter(), used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN)
            extract_inputs(
                find_inputs([str(videos)], out=out, stdin=None),
                out,
                options=Options(pixels=64),
                engine=LocalEngine(workers=processes, timeout=60.0),
                report=lambda outcome: None,
            )
            seconds[processes].append(round(time.perf_counter() - begin, 1))
            parents.append(used(resource.RUSAGE_SELF) - parent)
            spent[processes].append(used(resource.RUSAGE_CHILDREN) - children)
    figures = {
        "clips": count,
        "kinds": len(clips),
        "seconds_1": seconds[1],
        "seconds_2": seconds[2],
        "speedup": round(sum(seconds[1]) / sum(seconds[2]), 2),
        "workers_ms_per_clip_1": round(sum(spent[1]) / 2 / count * 1e3, 1),
        "workers_ms_per_clip_2": round(sum(spent[2]) / 2 / count * 1e3, 1),
        "parent_ms_per_clip": round(sum(parents) / 4 / count * 1e3, 2),
        "parent_peak_mb": round(peak_memory()),
    }
    print(f"workers: {figures}")
    return figures


def used(who: int) -> float:
    """Processor seconds of this process, or of its children that have ended."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def peak_memory() -> float:
    """Most MB of this process; getrusage counts those of the process that began it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def nothing(job: int) -> int:
    return job


def engines(count: int) -> dict[str, Any]:
    engines: dict[str, Callable[[], Engine]] = {
        "in-process": SerialEngine,
        "pebble": lambda: LocalEngine(workers=2, timeout=60.0, modules=()),
    }
    try:
        import ray

        from codecmeta.batch.ray_engine import RayEngine

        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        engines["ray"] = lambda: RayEngine(workers=None, timeout=60.0, modules=())
    except ImportError:
        print("engines: no Ray here")
    figures: dict[str, Any] = {"jobs": count}
    for name, make in engines.items():
        # start-up apart
        list(make().run(nothing, range(20), failure=lambda *_: -1))
        begin = time.perf_counter()
        done = sum(1 for _ in make().run(nothing, range(count), failure=lambda *_: -1))
        assert done == count
        figures[f"{name}_ms"] = round((time.perf_counter() - begin) / count * 1e3, 2)
        print(f"engines: {name}: {figures[f'{name}_ms']} ms per job and two workers", flush=True)
    return figures


def write_figures(path: Path | None, name: str, figures: dict[str, Any]) -> None:
    """Write figures next to those of other measurements."""
    if path is not None:
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | {name: figures}, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["resume", "resumed", "workers", "engines"])
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--place", type=Path, help="folder that `make_done` wrote, for resume")
    parser.add_argument("--clips", type=Path, default=ROOT / "data", help="folder of the clips, for workers")
    parser.add_argument("--name", help="name of the figures in the JSON file, if another one")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.what == "resumed":
        resumed(arguments.place)
    elif arguments.what == "resume":
        write_figures(arguments.out, "resume", resume(arguments.videos, arguments.place))
    else:
        measure = {"workers": lambda count: workers(count, arguments.clips), "engines": engines}[arguments.what]
        write_figures(arguments.out, arguments.name or arguments.what, measure(arguments.videos))


if __name__ == "__main__":
    main()
