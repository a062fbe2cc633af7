"""Measures what batches cost beyond their videos: python -m bench.scale resume|workers|engines [--videos N].

resume   a run over N videos that are all done: time, and memory of the process
workers  N small clips with 1 and with 2 workers
engines  N jobs that do nothing, through each engine: time per job
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
from pathlib import Path

from codecmeta.batch.engines import Engine, LocalEngine, SerialEngine
from codecmeta.batch.inputs import find_inputs
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.manifest import Manifest
from codecmeta.batch.outcome import Outcome, Stamp
from codecmeta.batch.output_folder import read_run, run_digest
from codecmeta.record.options import Options

ROOT = Path(__file__).resolve().parents[1]
PACKETS = Options(frames="uniform:2", residual="none", pixels=None)
FOLDER = 1000
"""Videos in a folder."""


def make_done(place: Path, count: int) -> None:
    """Videos and records that are not, as long as nobody opens them, and the manifest of a run that made them."""
    videos, meta = place / "videos", place / "meta"
    (videos / "000").mkdir(parents=True)
    (videos / "000" / "0.mp4").touch()
    # the record of the run
    extract_inputs([], meta, options=PACKETS, engine=SerialEngine(), report=lambda outcome: None)
    run = read_run(meta)
    assert run is not None
    manifest = Manifest(meta)
    lines = []
    for number in range(count):
        name = f"{number // FOLDER:04d}/video-{number:07d}.mp4"
        source, record = videos / name, meta / f"{name}.npz"
        if number % FOLDER == 0:
            source.parent.mkdir(exist_ok=True)
            record.parent.mkdir(exist_ok=True)
        source.touch()
        record.touch()
        outcome = Outcome(
            source=str(source),
            meta=str(record),
            status="done",
            frames=2,
            packets=100,
            gops=4,
            codec="h264",
            duration_s=4.0,
            stamp=Stamp.of(str(source), str(record)),
        )
        facts = outcome.manifest_facts() | {"run": run_digest(run), "path": str(source)}
        lines.append(json.dumps({"place": f"{name}.npz", **facts}))
    (videos / "000" / "0.mp4").unlink()
    (videos / "000").rmdir()
    manifest.append(None, {})
    (meta / "manifest.jsonl").write_text("\n".join(lines) + "\n")


def resume(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_done(Path(folder), count)
        command = [sys.executable, "-m", "bench.scale", "resumed", "--place", folder]
        for _ in range(2):
            subprocess.run(command, check=True, cwd=ROOT)


def resumed(place: Path) -> None:
    begin = time.perf_counter()
    inputs = find_inputs([str(place / "videos")], out=place / "meta", stdin=None)
    from codecmeta.batch.shards import Shard

    inputs.start_counting(Shard())
    kept = extract_inputs(inputs, place / "meta", options=PACKETS, engine=SerialEngine(), report=lambda outcome: None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"resume: {kept}, {time.perf_counter() - begin:.1f} s, of the processor {used.ru_utime + used.ru_stime:.1f} s, "
        f"{peak_memory():.0f} MB at most"
    )


def workers(count: int) -> None:
    """Each clip by default options, linked under many names."""
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder, "videos")
        videos.mkdir()
        for number in range(count):
            (videos / f"{number:05d}.mp4").symlink_to(ROOT / "data" / "still_h264.mp4")
        rates = []
        for processes in (1, 2):
            begin = time.perf_counter()
            extract_inputs(
                find_inputs([str(videos)], out=Path(folder, f"meta{processes}"), stdin=None),
                Path(folder, f"meta{processes}"),
                options=Options(pixels=64),
                engine=LocalEngine(workers=processes, timeout=60.0),
                report=lambda outcome: None,
            )
            seconds = time.perf_counter() - begin
            rates.append(count / seconds)
            print(f"workers: {processes}: {count} clips in {seconds:.1f} s, parent {peak_memory():.0f} MB at most")
        print(f"workers: 2 are {rates[1] / rates[0]:.2f} times as fast as 1")


def peak_memory() -> float:
    """Most MB of this process; getrusage counts those of the process that began it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def nothing(job: int) -> int:
    return job


def engines(count: int) -> None:
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
    for name, make in engines.items():
        # start-up apart
        list(make().run(nothing, range(20), failure=lambda *_: -1))
        begin = time.perf_counter()
        done = sum(1 for _ in make().run(nothing, range(count), failure=lambda *_: -1))
        assert done == count
        print(f"engines: {name}: {(time.perf_counter() - begin) / count * 1e3:.2f} ms per job and two workers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["resume", "resumed", "workers", "engines"])
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--place", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "resumed":
        resumed(arguments.place)
    else:
        {"resume": resume, "workers": workers, "engines": engines}[arguments.what](arguments.videos)
    os.sync()


if __name__ == "__main__":
    main()
