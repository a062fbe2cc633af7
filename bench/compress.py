"""Time of MeToM's BTM and of InfoMerge: against loops, against the prefill they save, and over the length of a video.

    python -m bench.compress [--device cpu|cuda] [--growth] [--repeats 5]

(From the root; as a script it would shadow the package.) Everything is measured in one run, interleaved, medians.
Results go to bench/results/compress.json, in which the rows of other devices stay; the growth plot goes to
docs/compress_growth.png. On a CUDA device the same stages are timed with events, and kernel launches, copies and waits
are counted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from bench.compress_loops import loop_btm, loop_infomerge
from compress.flops import LanguageModel
from compress.infomerge import InfoMerge
from compress.metom import BTM
from compress.stage import Signals

# By name: a package exports the class of the same name as its module.
btm_module = importlib.import_module("compress.metom.btm")
evidence_module = importlib.import_module("compress.infomerge.evidence")
infomerge_module = importlib.import_module("compress.infomerge.infomerge")

ROOT = Path(__file__).resolve().parent.parent
RETENTION = 0.1
SHAPES = ((32, 196, 3584), (64, 169, 3584))
GPU_GOAL = 0.002
"""Seconds on an accelerator of the class of an H200."""

GROWTH = (8, 16, 32, 64, 128, 256, 512)

STAGES: dict[str, tuple[tuple[Any, tuple[str, ...]], ...]] = {
    "infomerge": (
        (
            evidence_module,
            ("transitions", "temporal_feature_difference", "uniqueness", "measure_richness", "on_host", "fetch"),
        ),
        (
            infomerge_module,
            (
                "select_salient",
                "score_candidates",
                "on_host",
                "pick_anchors",
                "assign_tokens",
                "collect_pool",
                "assemble",
            ),
        ),
    ),
    "btm": ((btm_module, ("check_finite", "fetch", "match_across_frames", "unit")),),
}


def make_video(
    frames: int, per_frame: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Signals]:
    """Shots of 4 frames over a falling spectrum, a third of the positions nearly static."""
    generator = torch.Generator().manual_seed(0)
    shots = -(-frames // 4)
    falling = torch.arange(1, width + 1) ** -0.4

    def draw(count: int) -> Tensor:
        return torch.randn(count, per_frame, width, generator=generator) * falling

    tokens = draw(shots).repeat_interleave(4, 0)[:frames]
    noise = torch.full((per_frame, 1), 0.5)
    noise[::3] = 0.05
    for start in range(0, frames, 32):
        tokens[start : start + 32] += noise * draw(min(32, frames - start))
    look = torch.randn(shots, 1152, generator=generator).repeat_interleave(4, 0)[:frames]
    rng = np.random.default_rng(0)
    signals = Signals(
        saliency=torch.rand(frames, per_frame, generator=generator).to(device),
        frame_features=(look + 0.2 * torch.randn(frames, 1152, generator=generator)).to(device),
        density=rng.random((frames, per_frame)).astype(np.float32),
        packet_size=rng.lognormal(7, 0.8, frames),
    )
    return tokens.to(device, dtype), signals


def shorten(method: Any, tokens: Tensor, signals: Signals) -> Tensor:
    """Plan and apply."""
    shorter: Tensor = method.before_llm(tokens, signals).apply(tokens)
    return shorter


class Clock:
    """CPU time of the one computing thread, which other processes do not disturb; event time on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, call: Callable[[], object]) -> float:
        """Seconds that the call takes."""
        if self.device.type != "cuda":
            start = time.thread_time()
            call()
            return time.thread_time() - start
        torch.cuda.synchronize(self.device)
        begin: Any = torch.cuda.Event(enable_timing=True)
        end: Any = torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(self.device)  # the current device may be another
        begin.record(stream)
        call()
        end.record(stream)
        torch.cuda.synchronize(self.device)
        return float(begin.elapsed_time(end)) / 1e3


@contextmanager
def timed_stages(name: str, clock: Clock) -> Iterator[dict[str, float]]:
    """Time inside the functions that the method calls, by name."""
    spent: dict[str, float] = defaultdict(float)

    def wrap(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            kept: list[Any] = []
            spent[label] += clock(lambda: kept.append(function(*args, **kwargs)))
            return kept[0]

        return timed

    with ExitStack() as stack:
        for module, names in STAGES[name]:
            for stage in names:
                stack.enter_context(patch.object(module, stage, wrap(getattr(module, stage), stage)))
        yield spent


def gemm_rate(dtype: torch.dtype, clock: Clock) -> float:
    """Multiply-accumulates per second of a GEMM of the language model's MLP on 1024 tokens."""
    a = torch.randn(1024, 3584, device=clock.device, dtype=dtype)
    b = torch.randn(3584, 4736, device=clock.device, dtype=dtype)
    clock(lambda: a @ b)
    return a.shape[0] * a.shape[1] * b.shape[1] / statistics.median(clock(lambda: a @ b) for _ in range(5))


def count_calls(call: Callable[[], object]) -> dict[str, int]:
    """Count what a call requests of the CUDA device: kernels, copies and waits of the host."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
    counts = {event.key: event.count for event in profiler.key_averages()}
    parts = {
        "kernels": ("LaunchKernel",),
        "graphs": ("GraphLaunch",),
        "copies": ("cudaMemcpyAsync",),
        "waits": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"),
    }
    return {
        name: sum(count for key, count in counts.items() if any(part in key for part in keys))
        for name, keys in parts.items()
    }


def measure(
    shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, repeats: int
) -> list[dict[str, Any]]:
    """One row per method for one video."""
    frames, per_frame, width = shape
    tokens, signals = make_video(frames, per_frame, width, dtype, device)
    clock = Clock(device)
    methods: dict[str, Any] = {
        "infomerge, fast": InfoMerge(retention=RETENTION, richness="fast"),
        "infomerge, exact": InfoMerge(retention=RETENTION, richness="exact"),
        "btm": BTM(retention=RETENTION),
        "btm, window 1": BTM(retention=RETENTION, window=1),
    }
    calls: dict[str, Callable[[], Any]] = {
        name: partial(shorten, method, tokens, signals) for name, method in methods.items()
    }
    if device.type == "cpu":
        calls["infomerge, loops"] = lambda: loop_infomerge(tokens, signals, RETENTION)
        calls["btm, loops"] = lambda: loop_btm(tokens, signals, RETENTION)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(1 if device.type == "cpu" else 4):  # there shapes are recorded and checked first
            call()
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(clock(call))

    rate = gemm_rate(dtype, clock)
    model = LanguageModel()
    rows = []
    for name, method in methods.items():
        result = method.before_llm(tokens, signals)
        saved = float(model.prefill(frames * per_frame) - model.prefill(result.achieved))
        median = statistics.median(times[name])
        kind = name.split(",")[0]
        with timed_stages(kind, clock) as spent:
            method.before_llm(tokens, signals)
        stages = dict(spent)
        stages["apply"] = clock(partial(result.apply, tokens))
        loops = times.get(f"{kind}, loops")
        rows.append(
            {
                "method": name,
                "shape": list(shape),
                "dtype": str(dtype).removeprefix("torch."),
                "device": device.type,
                "tokens_in": frames * per_frame,
                "tokens_out": result.achieved,
                "seconds": median,
                "stages": {stage: round(seconds, 6) for stage, seconds in stages.items()},
                "loops_seconds": statistics.median(loops) if loops else None,
                "speedup_over_loops": statistics.median(loops) / median if loops else None,
                "gemm_mac_per_second": rate,
                "prefill_saved_seconds": saved / rate,
                "share_of_prefill_saved": median / (saved / rate),
                "goal_seconds": GPU_GOAL if device.type == "cuda" else None,
                "calls": count_calls(calls[name]) if device.type == "cuda" else None,
            }
        )
    return rows


def grow(device: torch.device, repeats: int) -> dict[str, Any]:
    """Time over the number of frames, 196 tokens each."""
    seconds: dict[str, list[float]] = {"InfoMerge": [], "BTM, all pairs": [], "BTM, window 1": []}
    clock = Clock(device)
    for frames in GROWTH:
        tokens, signals = make_video(frames, 196, 3584, torch.bfloat16, device)
        for name, method in (
            ("InfoMerge", InfoMerge(retention=RETENTION)),
            ("BTM, all pairs", BTM(retention=RETENTION)),
            ("BTM, window 1", BTM(retention=RETENTION, window=1)),
        ):
            call = partial(shorten, method, tokens, signals)
            runs = [clock(call) for _ in range(repeats)]
            seconds[name].append(statistics.median(runs))
            print(f"{frames:4d} frames  {name:15s} {seconds[name][-1]:8.3f} s", flush=True)
    exponents = {
        name: float(np.polyfit(np.log(GROWTH[2:]), np.log(values[2:]), 1)[0]) for name, values in seconds.items()
    }
    return {"frames": list(GROWTH), "seconds": seconds, "exponent_from_32_frames": exponents, "device": device.type}


def plot(growth: dict[str, Any], path: Path) -> None:
    """Draw the growth curves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), dpi=110)
    for name, values in growth["seconds"].items():
        axes.loglog(growth["frames"], values, marker="o", markersize=3, label=name)
    first = growth["seconds"]["InfoMerge"][2] / 32
    axes.loglog(growth["frames"], [first * n for n in growth["frames"]], "k:", linewidth=0.8, label="linear")
    axes.set_xlabel("frames of 196 tokens")
    axes.set_ylabel(f"seconds ({growth['device']})")
    axes.set_xticks(growth["frames"], [str(n) for n in growth["frames"]])
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(path)


def show(row: dict[str, Any]) -> str:
    """Format one row as a line."""
    against = f"{row['speedup_over_loops']:6.1f} x loops" if row["speedup_over_loops"] else ""
    if row["calls"]:
        against = f"goal {1e3 * GPU_GOAL:g} ms; " + ", ".join(f"{count} {name}" for name, count in row["calls"].items())
    return (
        f"{row['device']:4s} {row['shape']} {row['dtype']:8s} {row['method']:17s} {row['seconds'] * 1e3:9.2f} ms "
        f"{row['share_of_prefill_saved']:8.3%} of the prefill saved {against}"
    )


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="measure the growth curves as well")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu measures on the processor")
    torch.set_num_threads(1)
    target = ROOT / "bench" / "results" / "compress.json"
    report: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    rows = [row for row in report.get("rows", []) if row["device"] != device.type]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    machines = report.get("machines", {}) | {device.type: {"name": name, "threads": 1, "torch": torch.__version__}}
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            for row in measure(shape, dtype, device, arguments.repeats):
                rows.append(row)
                print(show(row), flush=True)
    report |= {"machines": machines, "retention": RETENTION, "rows": rows}
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.growth:
        report["growth"] = grow(device, max(1, arguments.repeats // 2))
        plot(report["growth"], ROOT / "docs" / "compress_growth.png")
        target.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
