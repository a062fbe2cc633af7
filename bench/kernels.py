"""Measures kernels compiled ahead: python -m bench.kernels compile|first|levels [--cores N] [--out FILE].

compile  the first compilation of all kernels into an empty folder, on N cores, then on one
first    the first video of a fresh container: a new process, with a home of its own, and kernels that another process
         compiled for x86-64-v3
levels   what kernels for x86-64-v3 cost against those for this processor: processor time of residuals
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.scale import write_figures

ROOT = Path(__file__).resolve().parents[1]
MAIN = "from codecmeta_cli.codecmeta import main; main()"
LEVEL = "x86-64-v3"
CASES = {
    "H.264, innovation": ("event_h264.mp4", "innovation"),
    "HEVC, innovation": ("pan_hevc.mp4", "innovation"),
    "H.264, carried": ("event_h264.mp4", "innovation,carried"),
    "MPEG-4, innovation": ("noise_mpeg4.avi", "innovation"),
}
TURN = """
import resource, sys, time
import codecmeta
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
source, maps = sys.argv[1:]
turns = []
for _ in range(6):
    begin = used()
    codecmeta.extract(source, frames="all", maps=tuple(maps.split(",")), pixels=None)
    turns.append(used() - begin)
print(min(turns))
"""


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return kept | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "cli")))} | changes


def run(*arguments: str, cores: int | None = None, **changes: str) -> float:
    """Run the command and return the seconds it took."""
    bound = [] if cores is None else ["taskset", "--cpu-list", f"0-{cores - 1}"]
    begin = time.perf_counter()
    subprocess.run(
        [*bound, sys.executable, "-c", MAIN, *arguments], env=environment(**changes), check=True, capture_output=True
    )
    return time.perf_counter() - begin


def warm_up(cache: Path, level: str, *, cores: int | None = None) -> dict[str, str]:
    """Compile all kernels into a folder and return the environment of those who use it."""
    bound = [] if cores is None else ["taskset", "--cpu-list", f"0-{cores - 1}"]
    lines = subprocess.run(
        [*bound, sys.executable, "-c", MAIN, "warmup", "--cpu", level, "--cache", str(cache)],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return dict(
        line.removeprefix("export ").replace("'", "").rstrip(";").split("=", 1) for line in lines if "=" in line
    )


def compile_all(cores: int) -> Iterator[dict[str, Any]]:
    """Yield the figures as they grow."""
    found: dict[str, Any] = {}
    for count in dict.fromkeys((cores, 1)):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            warm_up(Path(folder), "native", cores=count)
            found[f"seconds_on_{count}"] = round(time.perf_counter() - begin, 1)
        yield found


def first(cache: Path) -> dict[str, Any]:
    """Start the command with a new home and a cache that only others have used, over one clip of each codec."""
    found: dict[str, Any] = {}
    kernels = warm_up(cache, LEVEL)
    for name in ("event_h264.mp4", "pan_hevc.mp4", "noise_mpeg4.avi", "objects_vp9.webm"):
        seconds, used = [], []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with tempfile.TemporaryDirectory() as home:
                changes = {**kernels, "HOME": home, "TMPDIR": home, "XDG_CACHE_HOME": f"{home}/.cache"}
                seconds.append(run("extract", str(ROOT / "data" / name), "--out", f"{home}/meta", **changes))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        found[name] = {
            "seconds": round(statistics.median(seconds), 2),
            # of all processes, which other work on the machine changes least
            "processor_seconds": round(statistics.median(used), 2),
        }
    return found


def levels(cache: Path) -> dict[str, Any]:
    kernels: dict[str, Mapping[str, str]] = {level: warm_up(cache / level, level) for level in ("native", LEVEL)}
    found: dict[str, Any] = {}
    for case, (name, maps) in CASES.items():
        least = {
            level: min(
                float(
                    subprocess.check_output(
                        [sys.executable, "-c", TURN, str(ROOT / "data" / name), maps],
                        env=environment(**kernels[level]),
                    )
                )
                for _ in range(2)
            )
            for level in kernels
        }
        found[case] = {
            **{f"{level}_ms": round(seconds * 1e3, 1) for level, seconds in least.items()},
            "ratio": round(least[LEVEL] / least["native"], 3),
        }
        print(case, found[case], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compile", "first", "levels"])
    parser.add_argument("--cores", type=int, default=2, help="for compile")
    parser.add_argument("--cache", type=Path, help="folder of kernels that are kept, for first and levels")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = arguments.cache or Path(folder)
        if arguments.what == "compile":
            measured = compile_all(arguments.cores)
        else:
            measured = iter([{"first": first, "levels": levels}[arguments.what](cache)])
        for figures in measured:
            print(f"{arguments.what}: {figures}", flush=True)
            write_figures(arguments.out, arguments.what, figures)


if __name__ == "__main__":
    main()
