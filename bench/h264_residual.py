"""What the residual costs: `ResidualReader.measure` against FFmpeg's decoder and a patched one.

    python -m bench.h264_residual [--repeats 5] [--clips ../shared/clips] [--peer VENV/bin/python]    (from the root)

Every figure is the median of interleaved repetitions of one thread's CPU time, both sides in the same run:

- all frames of a clip, against decoding it with PyAV on one thread;
- 32 frames of a five-minute clip, with opening the file, its packets and GoPs, against decoding it whole, and against
  codec-video-prep, which decodes with a patched FFmpeg (`--peer`: an interpreter that has it; it needs numpy < 2);
- compiling for the first time, and starting from the cache.

The figures go to bench/results/h264_residual.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np

from codecmeta.h264 import ResidualReader

OpenReader = Callable[[bytes], Any]
ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(tempfile.gettempdir()) / "codecmeta-bench"
REAL = (
    "sport_juggle_h264_high.mp4",
    "bbb_h264_main_p_only.mp4",
    "carpark_overhead_h264_baseline.mp4",
    "handheld_gopro_walk_h264.mp4",
    "talking_head_carphone_h264.mp4",
    "indoor_person_h264_main_gop10.mp4",
    "claymation_h264_cbaseline.mp4",
    "derived/bedroom_h264_cavlc_multislice.mp4",
    "edge/bbb_raw_annexb_nopts.264",
)
RENDERED = {
    f"rendered_720p_{entropy}_{rate}": ("0" if entropy == "cavlc" else "1", crf)
    for entropy in ("cabac", "cavlc")
    for rate, crf in (("low", "32"), ("medium", "23"), ("high", "14"))
}

START = """
import sys, time
start = time.perf_counter()
import json
from codecmeta.CODEC import ResidualReader
extradata, packet = (bytes.fromhex(line) for line in sys.stdin)
imported = time.perf_counter()
reader = ResidualReader(extradata)
reader.measure(packet, block=8)
reader.read(packet)
print(json.dumps([time.perf_counter() - start, time.process_time(), imported - start]))
"""

PEER = """
import json, sys, time
from codec_video_prep.cv_reader_fast import read_video_fast_selected
path, frames = sys.argv[1], json.loads(sys.argv[2])
start = time.process_time()
result = read_video_fast_selected(path=path, frame_ids=frames, thread_count=1, export_bitcost=1, thread_type="slice")
print(json.dumps([time.process_time() - start, len(result)]))
"""


def render(path: Path, *, frames: int, codec: str, options: dict[str, str]) -> None:
    """Encode a moving texture with noise and passing objects, 1280x720."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:720, :1280]
    texture = sum(
        18 * np.sin(x * rng.uniform(0.01, 0.3) + y * rng.uniform(-0.3, 0.3) + rng.uniform(0, 6)) for _ in range(6)
    )
    texture = texture * (0.3 + np.abs(np.sin(x / 300))) + 10 * rng.standard_normal((720, 1280)) * (y > 300)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = options
        for number in range(frames):
            picture = np.roll(texture, (number // 3, 2 * number), (0, 1)) + 120
            for thing in range(5):
                cx, cy = (200 * thing + 7 * number * (thing + 1)) % 1280, (110 * thing + 3 * number) % 720
                picture[(x - cx) ** 2 + (y - cy) ** 2 < 3600] = 40 * thing + 20
            grey = np.clip(picture + 1.5 * rng.standard_normal(picture.shape), 0, 255).astype(np.uint8)
            colour = np.stack([grey, 255 - grey // 2, np.roll(grey, 40, 1)], -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colour, format="rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())


def loop(source: Path, target: Path, *, times: int) -> None:
    """Repeat a clip of closed GoPs by copying its packets."""
    with av.open(str(source)) as first:
        length = 1 + max(round(p.pts * p.time_base * 25) for p in first.demux(video=0) if p.size)
    with av.open(str(target), "w") as output:
        stream = None
        for number in range(times):
            with av.open(str(source)) as container:
                template = container.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(template)
                step = int(Fraction(length, 25) / template.time_base)
                for packet in container.demux(template):
                    if packet.size:
                        packet.pts += number * step
                        packet.dts += number * step
                        packet.stream = stream
                        output.mux(packet)


def demux(path: Path) -> tuple[bytes, list[av.Packet]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        extradata = bytes(stream.codec_context.extradata or b"")
        return extradata, [packet for packet in container.demux(stream) if packet.size]


def decode_all(path: Path) -> tuple[float, int]:
    """CPU seconds of one thread in FFmpeg's decoder, demuxing aside, and the number of frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        packets = list(container.demux(stream))
        start = time.thread_time()
        frames = sum(len(packet.decode()) for packet in packets)
        return time.thread_time() - start, frames


def timed(action: Callable[[], object]) -> float:
    start = time.thread_time()
    action()
    return time.thread_time() - start


def all_frames(path: Path, repeats: int, open_reader: OpenReader = ResidualReader) -> dict[str, Any]:
    """Measure every frame of a clip, and decode it."""
    extradata, packets = demux(path)
    reader = open_reader(extradata)
    data = [bytes(packet) for packet in packets]
    reader.measure(data[0], block=8)
    ours, theirs = [], []
    for _ in range(repeats):
        seconds, frames = decode_all(path)
        theirs.append(seconds)
        ours.append(timed(lambda: [reader.measure(packet, block=8) for packet in data]))
    return {
        "frames": frames,
        "kbit_per_frame": round(sum(map(len, data)) * 8 / frames / 1000, 1),
        "ffmpeg_ms": round(1000 * median(theirs) / frames, 3),
        "measure_ms": round(1000 * median(ours) / frames, 3),
        "ratio": round(median(a / b for a, b in zip(theirs, ours, strict=True)), 2),
    }


def sampled(path: Path, count: int, open_reader: OpenReader = ResidualReader) -> tuple[float, int]:
    """Open a clip, list packets and GoPs, measure `count` frames spread over it: CPU seconds, packets."""
    start = time.thread_time()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        entries = stream.index_entries
        sizes = [entry.size for entry in entries]
        keys = [number for number, entry in enumerate(entries) if entry.is_keyframe]
        assert len(keys) > 1
        chosen = np.linspace(0, len(sizes) - 1, count).round().astype(int)
        reader = open_reader(bytes(stream.codec_context.extradata or b""))
        with path.open("rb") as file:
            for number in chosen:
                file.seek(entries[int(number)].pos)
                reader.measure(file.read(sizes[number]), block=8)
    return time.thread_time() - start, len(sizes)


def long_clip(path: Path, repeats: int, peer: str | None, open_reader: OpenReader = ResidualReader) -> dict[str, Any]:
    """32 frames of the long clip against all of it, and against the peer on the same frames."""
    sampled(path, 2, open_reader)
    ours = []
    whole = []
    for repeat in range(repeats):
        ours.append(sampled(path, 32, open_reader)[0])
        if repeat < 3:
            whole.append(decode_all(path))
    report: dict[str, Any] = {
        "frames": whole[0][1],
        "sampled": 32,
        "measure_s": round(median(ours), 4),
        "ffmpeg_whole_s": round(median(seconds for seconds, _ in whole), 3),
    }
    report["share_percent"] = round(100 * report["measure_s"] / report["ffmpeg_whole_s"], 2)
    report["peer"] = "not asked for (--peer)"
    if peer:
        frames = np.linspace(0, whole[0][1] - 1, 32).round().astype(int).tolist()
        command = [peer, "-c", PEER, str(path), json.dumps(frames)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            report["peer"] = f"codec-video-prep does not run here: {result.stderr.strip().splitlines()[-1:]}"
        else:
            seconds, returned = json.loads(result.stdout.strip().splitlines()[-1])
            report["peer"] = "codec-video-prep, bit costs of the same frames"
            report["peer_s"], report["peer_frames"] = round(seconds, 3), returned
            report["times_faster_than_peer"] = round(seconds / report["measure_s"], 1)
    return report


def starting(path: Path, module: str = "h264") -> dict[str, Any]:
    """Compile in an empty cache, then start from it."""
    extradata, packets = demux(path)
    text = f"{extradata.hex()}\n{bytes(packets[0]).hex()}\n"
    with tempfile.TemporaryDirectory() as cache:
        runs = []
        for _ in range(4):
            environment = os.environ | {"NUMBA_CACHE_DIR": cache}
            command = [sys.executable, "-c", START.replace("CODEC", module)]
            result = subprocess.run(
                command, cwd=ROOT, env=environment, input=text, capture_output=True, text=True, check=True
            )
            runs.append(json.loads(result.stdout))
        size = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
    warm = runs[1:]
    return {
        "first_compile_s": round(runs[0][0], 1),
        "first_compile_cpu_s": round(runs[0][1], 1),
        "start_from_cache_s": round(median(run[0] for run in warm), 2),
        "start_from_cache_cpu_s": round(median(run[1] for run in warm), 2),
        "of_which_imports_s": round(median(run[2] for run in warm), 2),
        "cache_MiB": round(size / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips", type=Path, default=ROOT.parent / "shared" / "clips")
    parser.add_argument("--peer", help="interpreter with codec-video-prep")
    options = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    report: dict[str, Any] = {}

    paths = {name: options.clips / name for name in REAL}
    for name, (cabac, crf) in RENDERED.items():
        paths[name] = CACHE / f"{name}.mp4"
        if not paths[name].exists():
            encoding = {"preset": "fast", "crf": crf, "x264-params": f"cabac={cabac}:keyint=50:open-gop=0"}
            render(paths[name], frames=150, codec="libx264", options=encoding)
    long = CACHE / "five_minutes_720p.mp4"
    if not long.exists():
        loop(paths["rendered_720p_cabac_medium"], long, times=50)

    report["all_frames"] = compare_all(paths, options.repeats, ResidualReader)
    report["long_clip"] = long_clip(long, options.repeats, options.peer)
    report["start"] = starting(paths["rendered_720p_cabac_low"])
    write(report, "h264_residual.json")


def compare_all(paths: dict[str, Path], repeats: int, open_reader: OpenReader) -> dict[str, Any]:
    """`all_frames` of every clip that is here, printed as a table."""
    rows = {}
    print(f"{'all frames of':46s} {'frames':>6s} {'kbit':>6s} {'FFmpeg':>9s} {'measure':>9s} {'ratio':>6s}")
    for name, path in paths.items():
        if not path.exists():
            print(f"{name:46s} not here: {path}")
            continue
        row = rows[name] = all_frames(path, repeats, open_reader)
        print(
            f"{name:46s} {row['frames']:6d} {row['kbit_per_frame']:6.0f} {row['ffmpeg_ms']:6.3f} ms"
            f" {row['measure_ms']:6.3f} ms {row['ratio']:6.2f}",
            flush=True,
        )
    return rows


def write(report: dict[str, Any], name: str) -> None:
    """Print what remains of a report, and keep it."""
    for part in ("long_clip", "start"):
        print(part)
        for key, value in report[part].items():
            print(f"  {key:24s} {value}")
    target = ROOT / "bench" / "results" / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
