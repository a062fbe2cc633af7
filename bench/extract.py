"""What extraction costs, as ratios to plain decoding of the same clip, in one run on one thread.

    python -m bench.extract [--clip FILE ...] [--rounds 5] [--peers PYTHON] [--out bench/results/extract.json]
    python -m bench.extract --defaults [--rounds 9] [--out bench/results/extract.json]

Every case is run once to warm up (compile, page cache), then `--rounds` times in turn with the others; medians of CPU
time of this process. `--peers` names a Python that has `motion-vector-extractor` installed. It renders one minute of
720p video (x264, B-frames, GoPs of up to 250), measures that and every `--clip`, and joins ten minutes of it for the
memory test. Then, or only, with `--defaults`, what defaults cost against pixels alone (`bench.extract_defaults`).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av

import codecmeta
from bench.extract_clips import join, render
from bench.extract_defaults import measure_defaults
from codecmeta.container.packets import read_packets
from codecmeta.container.video import open_video
from codecmeta.decoding.rgb import to_rgb
from codecmeta.record.gop import split_gops

PEER = """
import sys, time
from mvextractor.videocap import VideoCap
begin = time.process_time()
cap = VideoCap()
assert cap.open(sys.argv[1])
while cap.read()[0]:
    pass
cap.release()
print(time.process_time() - begin)
"""
# VmHWM, since ru_maxrss of a child begins at what its parent had
MEMORY = """
import re, sys, codecmeta
codecmeta.extract(sys.argv[1], motion=True, qp=True)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def decode_all(path: Path) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def decode_by_seeks(path: Path, stamps: list[int]) -> None:
    """Decode frames the usual way: seek, decode up to the frame, convert it."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for stamp in stamps:
            container.seek(stamp, stream=stream)
            for frame in container.decode(stream):
                if frame.pts >= stamp:
                    to_rgb(frame, short_side=384)
                    break


def packets_and_gops(path: Path) -> None:
    with open_video(path) as video:
        table = read_packets(video, payloads=False)
    split_gops(table.size, table.key)


def open_only(path: Path) -> None:
    with open_video(path):
        pass


def cases(path: Path, peers: str | None) -> dict[str, Callable[[], float | None]]:
    def timed(work: Callable[[], Any]) -> Callable[[], float]:
        def run() -> float:
            begin = time.process_time()
            work()
            return time.process_time() - begin

        return run

    def child(command: list[str], *, printed: bool) -> Callable[[], float | None]:
        def run() -> float | None:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if done.returncode:
                return None
            if printed:
                return float(done.stdout.split()[-1])
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        return run

    stamps = codecmeta.extract(path, residual="none", pixels=None).frame_pts.tolist()
    table: dict[str, Callable[[], float | None]] = {
        "decode every frame (1 thread)": timed(lambda: decode_all(path)),
        "the same again (null case)": timed(lambda: decode_all(path)),
        "open the file": timed(lambda: open_only(path)),
        "packets and GoPs": timed(lambda: packets_and_gops(path)),
        "32 frames by plain PyAV seeks": timed(lambda: decode_by_seeks(path, stamps)),
    }
    variants: dict[str, dict[str, Any]] = {
        "uniform:32, pixels": {"residual": "none"},
        "uniform:32, pixels, vectors, residual motion": {"residual": "motion", "maps": ["innovation"], "motion": True},
        "uniform:32, pixels, vectors, residual bitstream": {"maps": ["innovation"], "motion": True},
        "uniform:32, all defaults (pixels, innovation)": {},
        "uniform:32, pixels, innovation, carried": {"maps": ["innovation", "carried"]},
        "uniform:32, innovation, no pixels": {"maps": ["innovation"], "pixels": None},
        "all frames, vectors, residual bitstream": {
            "frames": "all", "maps": ["innovation"], "pixels": None, "motion": True
        },
        "all frames, vectors, residual motion": {
            "frames": "all", "residual": "motion", "maps": ["innovation"], "pixels": None, "motion": True
        },
    }  # fmt: skip
    for name, options in variants.items():
        table[name] = timed(lambda options=options: codecmeta.extract(path, **options))
    if shutil.which("ffprobe"):
        command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_packets", "-of", "csv", str(path)]
        table["ffprobe -show_packets"] = child(command, printed=False)
    if peers:
        table["motion-vector-extractor"] = child([peers, "-c", PEER, str(path)], printed=True)
    return table


def measure(path: Path, *, rounds: int, peers: str | None) -> dict[str, float]:
    work = cases(path, peers)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            spent = run()
            if turn and spent is not None:
                seconds[name].append(spent)
    medians = {name: statistics.median(values) for name, values in seconds.items() if values}
    whole, sought = medians["decode every frame (1 thread)"], medians["32 frames by plain PyAV seeks"]
    print(f"\n{path.name}\n{'':50} {'ms':>9} {'/ decoding all':>15} {'/ seeks':>9}")
    for name, value in medians.items():
        print(f"{name:50} {1000 * value:9.1f} {value / whole:15.4f} {value / sought:9.3f}")
    return medians


def peak_memory(path: Path) -> int:
    """Largest resident size of a fresh process that extracts the clip, in KiB."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def _versions() -> dict[str, str]:
    return {"codecmeta": codecmeta.__version__, "av": av.__version__, "ffmpeg": av.ffmpeg_version_info}


def measure_all(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every case on a rendered minute and the clips that are named, and the memory that defaults take."""
    minute = render(folder / "rendered_720p_1min.mp4")
    clips = {
        path.name: measure(path, rounds=arguments.rounds, peers=arguments.peers) for path in [minute, *arguments.clip]
    }
    ten = join(folder / "ten.mp4", minute, 10)
    memory = {"1 minute": peak_memory(minute), "10 minutes": peak_memory(ten)}
    print(f"\npeak memory: {memory['1 minute'] / 1024:.0f} MiB for 1 minute, "
          f"{memory['10 minutes'] / 1024:.0f} MiB for 10 minutes")  # fmt: skip
    return {
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": _versions(),
        "unit": "median CPU seconds",
        "rounds": arguments.rounds,
        "clips": clips,
        "peak_rss_kib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers")
    parser.add_argument(
        "--defaults", action="store_true", help="only defaults against pixels alone; the rest of the file stays"
    )
    parser.add_argument("--folder", type=Path, help="of the clips of --defaults, which are kept")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.defaults:
            result = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
        else:
            result |= measure_all(Path(folder), arguments)
        result["defaults"] = {
            "versions": _versions(),
            "rounds": arguments.rounds,
            "clips": measure_defaults(arguments.folder or Path(folder), rounds=arguments.rounds),
        }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
