"""What extraction costs, as ratios to plain decoding of the same clip, in one run on one thread.

    python bench/extract.py [--clip FILE ...] [--rounds 5] [--peers PYTHON] [--out bench/results/extract.json]

Every case is run once to warm up (compile, page cache), then `--rounds` times in turn with the others; medians of CPU
time of this process. `--peers` names a Python that has `motion-vector-extractor` installed. It renders one minute of
720p video (x264, B-frames, GoPs of up to 250), measures that and every `--clip`, and joins ten minutes of it for the
memory test.
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
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

import codecmeta
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


def render(path: Path, *, seconds: int = 60, width: int = 1280, height: int = 720) -> Path:
    """A texture that pans, noise that comes and goes, a block that moves faster; x264 at web settings."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 80, width // 8 + 160, 3)).astype(np.uint8)
    texture = np.repeat(np.repeat(coarse, 8, 0), 8, 1)
    noise = rng.integers(-6, 7, (height, width, 3)).astype(np.int16)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "26"}
        for index in range(25 * seconds):
            x = int(600 + 500 * np.sin(index / 90))
            y = int(250 + 200 * np.cos(index / 140))
            image = texture[y : y + height, x : x + width].astype(np.int16)
            if index // 100 % 2:
                image += np.roll(noise, 37 * index, 1)
            left = 9 * index % (width - 160)
            image[300:420, left : left + 160] = (230, 60, 40)
            frame = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def join(path: Path, source: Path, times: int) -> Path:
    """The same packets again and again."""
    with av.open(str(source)) as reader, av.open(str(path), "w") as output:
        template = reader.streams.video[0]
        copy = output.add_stream_from_template(template)
        packets = [(p.pts, p.dts, bytes(p), p.is_keyframe) for p in reader.demux(template) if p.size]
        length = max(pts for pts, *_ in packets) + packets[0][0] - packets[0][1] + 512
        for turn in range(times):
            for pts, dts, content, key in packets:
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.time_base = pts + turn * length, dts + turn * length, template.time_base
                packet.is_keyframe = key
                packet.stream = copy
                output.mux(packet)
    return path


def decode_all(path: Path) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def decode_by_seeks(path: Path, stamps: list[int]) -> None:
    """What everybody writes: seek, decode up to the frame, convert it."""
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
        table[name] = timed(lambda options=options: codecmeta.extract(path, **options))  # type: ignore[misc]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {"codecmeta": codecmeta.__version__, "av": av.__version__, "ffmpeg": av.ffmpeg_version_info},
        "unit": "median CPU seconds",
        "rounds": arguments.rounds,
        "clips": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        minute = render(Path(folder) / "rendered_720p_1min.mp4")
        for path in [minute, *arguments.clip]:
            result["clips"][path.name] = measure(path, rounds=arguments.rounds, peers=arguments.peers)
        ten = join(Path(folder) / "ten.mp4", minute, 10)
        memory = {"1 minute": peak_memory(minute), "10 minutes": peak_memory(ten)}
        result["peak_rss_kib"] = memory
        print(f"\npeak memory: {memory['1 minute'] / 1024:.0f} MiB for 1 minute, "
              f"{memory['10 minutes'] / 1024:.0f} MiB for 10 minutes")  # fmt: skip
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
