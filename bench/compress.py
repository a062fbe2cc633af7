"""Time of MeToM's BTM and of InfoMerge: against loops, against the prefill they save, and over the length of a video.

    python -m bench.compress [--growth] [--repeats 5]        (from the root; as a script it would shadow the package)

Everything is measured in one run, interleaved, medians. Results go to bench/results/compress.json, the growth plot to
docs/compress_growth.png. On a CUDA device the same stages are timed with events, and kernel launches are counted.
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
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from compress.budget import allocate
from compress.flops import LanguageModel
from compress.infomerge import InfoMerge
from compress.metom import BTM
from compress.ops.similarity import unit
from compress.stage import Signals

# By name: a package exports the class of the same name as its module.
btm_module = importlib.import_module("compress.metom.btm")
infomerge_module = importlib.import_module("compress.infomerge.infomerge")

ROOT = Path(__file__).resolve().parent.parent
RETENTION = 0.1
SHAPES = ((32, 196, 3584), (64, 169, 3584))
GROWTH = (8, 16, 32, 64, 128, 256, 512)

STAGES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "infomerge": (
        infomerge_module,
        (
            "transitions",
            "temporal_feature_difference",
            "uniqueness",
            "RichnessEstimate",
            "on_host",
            "select_salient",
            "score_candidates",
            "pick_anchors",
            "assign_tokens",
            "collect_pool",
            "assemble",
        ),
    ),
    "btm": (btm_module, ("check_finite", "match_across_frames", "unit")),
}


def make_video(frames: int, per_frame: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Signals]:
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
        saliency=torch.rand(frames, per_frame, generator=generator),
        frame_features=look + 0.2 * torch.randn(frames, 1152, generator=generator),
        density=rng.random((frames, per_frame)).astype(np.float32),
        packet_size=rng.lognormal(7, 0.8, frames),
    )
    return tokens.to(dtype), signals


def loop_infomerge(tokens: Tensor, signals: Signals, retention: float = RETENTION) -> Tensor:
    """InfoMerge as one would write it down: a loop over segments, frames and anchors, eigenvalues of every segment."""
    method = InfoMerge(retention=retention)
    frames, count, width = tokens.shape
    wide = tokens.float()
    assert signals.frame_features is not None
    assert signals.saliency is not None
    g = unit(signals.frame_features)
    t = [float(g[i] @ g[i + 1]) for i in range(frames - 1)]
    cuts = set(np.argsort(t, kind="stable")[: method.c - 1].tolist()) | {
        i for i in range(frames - 1) if t[i] < method.tau_seg
    }
    edges = [0, *sorted(i + 1 for i in cuts), frames]
    spans = list(pairwise(edges))
    total = round(retention * frames * count)
    salient = int((1 - method.d) * retention * count + 1e-9)

    static, u, e = [], [], []
    video_mean = wide.mean(dim=(0, 1))
    for a, b in spans:
        direction = unit(wide[a:b])
        change = torch.zeros(count)
        for p in range(count):
            f = direction[:, p] @ direction[:, p].T
            change[p] = (f[1:] - f[:-1]).abs().sum() / max((b - a - 1) * (b - a), 1)
        size = int(method.parameter("rho") * count + 1e-9) if b - a > 1 else 0
        static.append(set(change.argsort(stable=True)[:size].tolist()))
        u.append(1 - float(torch.cosine_similarity(wide[a:b].mean(dim=(0, 1)), video_mean, dim=0)))
        rows = wide[a:b].reshape(-1, width)
        gram = rows @ rows.T if len(rows) <= width else rows.T @ rows
        share = torch.linalg.eigvalsh(gram).clamp_min(0)
        share = share / share.sum()
        e.append(float(-torch.xlogy(share, share).sum()) / np.log(min(rows.shape)))
    lengths = np.array([b - a for a, b in spans])
    z = [(np.array(x) - np.mean(x)) / np.std(x, ddof=1) for x in (u, e)]
    m = method.parameter("alpha") * z[0] + method.parameter("beta") * z[1]
    weights = lengths / (1 + np.exp(-method.parameter("tau") * m))
    budgets = allocate(weights, total - frames * salient, lower=1, upper=lengths * (count - salient))

    out: dict[int, Tensor] = {}
    for (a, b), fixed, budget in zip(spans, static, budgets, strict=True):
        history: set[int] = set()
        seen = wide[a:b].clone()
        taken = []
        for frame in range(a, b):
            score = signals.saliency[frame].clone()
            spread = score.std(correction=0)
            for p in history:
                score[p] -= method.parameter("lam") * spread
            picked = score.argsort(descending=True, stable=True)[:salient].tolist()
            taken.append(set(picked))
            history |= set(picked) & fixed
            for p in set(picked) & fixed:
                seen[frame - a :, p] = wide[a:b, p].mean(dim=0)
            for p in picked:
                out[frame * count + p] = seen[frame - a, p]
        anchors = list(range(b - 1, a - 1, -method.p))[::-1]
        used: set[int] = set()
        for i, frame in enumerate(anchors):
            quota = int(budget) // len(anchors) + (i >= len(anchors) - int(budget) % len(anchors))
            rest = [p for p in range(count) if p not in taken[frame - a]]
            x = seen[frame - a, rest]
            d = torch.cdist(x, x) / width**0.5
            density = -(d.topk(method.k_nn, largest=False).values ** 2).mean(dim=1)
            score = torch.empty(len(rest))
            for j in range(len(rest)):
                denser = density > density[j]
                separation = d[j][denser].min() if bool(denser.any()) else d[j].max()
                score[j] = density[j] + separation.log()
            ranked = sorted(range(len(rest)), key=lambda j: (rest[j] in used, -float(score[j]), j))[:quota]
            centres = sorted(rest[j] for j in ranked)
            used |= set(centres) & fixed
            if not centres:
                continue
            pool = [
                (r, p)
                for r in range(b - a)
                for p in range(count)
                if p not in taken[r] and not (a + r == frame and p in centres)
            ]
            features = seen[[r for r, _ in pool], [p for _, p in pool]]
            best = (unit(features) @ unit(seen[frame - a, centres]).T).argmax(dim=1)
            for j, centre in enumerate(centres):
                joined = features[best == j]
                value = seen[frame - a, centre]
                out[frame * count + centre] = 0.6 * value + 0.4 * joined.mean(dim=0) if len(joined) else value
    return torch.stack([out[i] for i in sorted(out)]).to(tokens.dtype)


def loop_btm(tokens: Tensor, signals: Signals, retention: float = RETENTION) -> Tensor:
    """BTM as one would write it down: all pairs in one matrix and one list, then a loop over pairs and tokens."""
    method = BTM(retention=retention)
    frames, count, width = tokens.shape
    flat = tokens.float().reshape(-1, width)
    assert signals.packet_size is not None
    budgets = method.frame_budgets(signals.packet_size, tokens_per_frame=count)
    core = []
    for t in range(frames):
        order = np.argsort(-np.asarray(signals.density)[t], kind="stable")[: budgets[t]]
        core += sorted(t * count + int(p) for p in order)
    value = {i: flat[i] for i in core}
    owner = {i: i for i in core}
    direction = unit(flat[core])
    similarity = direction @ direction.T
    frame = torch.tensor(core) // count
    similar = torch.triu((similarity > method.tau_tem) & (frame[:, None] != frame[None])).nonzero()
    strength = similarity[similar[:, 0], similar[:, 1]]
    taken: set[int] = set()
    for i, j in similar[strength.argsort(descending=True, stable=True)].tolist():
        a, b = core[i], core[j]
        if a not in taken and b not in taken:
            taken |= {a, b}
            value[a] = (value[a] + value.pop(b)) / 2
            owner[b] = a
    merged: dict[int, list[Tensor]] = {i: [] for i in value}
    core_set = set(core)
    for t in range(frames):
        own = [owner[i] for i in core if i // count == t]
        if not own:
            continue
        targets = unit(torch.stack([value[i] for i in own]))
        for p in range(count):
            i = t * count + p
            if i not in core_set:
                merged[own[int((targets @ flat[i]).argmax())]].append(flat[i])
    out = [torch.stack([value[i], *merged[i]]).mean(dim=0) for i in sorted(value)]
    return torch.stack(out).to(tokens.dtype)


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
        begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize(self.device)
        return float(begin.elapsed_time(end)) / 1e3


@contextmanager
def timed_stages(name: str, clock: Clock) -> Iterator[dict[str, float]]:
    """Time inside the functions that the method calls, by name."""
    module, names = STAGES[name]
    spent: dict[str, float] = defaultdict(float)

    def wrap(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            kept: list[Any] = []
            spent[label] += clock(lambda: kept.append(function(*args, **kwargs)))
            return kept[0]

        return timed

    with ExitStack() as stack:
        for stage in names:
            stack.enter_context(patch.object(module, stage, wrap(getattr(module, stage), stage)))
        yield spent


def gemm_rate(dtype: torch.dtype, clock: Clock) -> float:
    """Multiply-accumulates per second of a GEMM of the language model's MLP on 1024 tokens."""
    a = torch.randn(1024, 3584, device=clock.device, dtype=dtype)
    b = torch.randn(3584, 4736, device=clock.device, dtype=dtype)
    clock(lambda: a @ b)
    return a.shape[0] * a.shape[1] * b.shape[1] / statistics.median(clock(lambda: a @ b) for _ in range(5))


def count_launches(call: Callable[[], object]) -> int:
    """Kernels that a call launches on the CUDA device."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
    return sum(event.count for event in profiler.key_averages() if "LaunchKernel" in event.key)


def measure(
    shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, repeats: int
) -> list[dict[str, Any]]:
    """One row per method for one video."""
    frames, per_frame, width = shape
    tokens, signals = make_video(frames, per_frame, width, dtype)
    tokens = tokens.to(device)
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
        calls["infomerge, loops"] = lambda: loop_infomerge(tokens, signals)
        calls["btm, loops"] = lambda: loop_btm(tokens, signals)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
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
                "kernel_launches": count_launches(calls[name]) if device.type == "cuda" else None,
            }
        )
    return rows


def grow(device: torch.device, repeats: int) -> dict[str, Any]:
    """Time over the number of frames, 196 tokens each."""
    seconds: dict[str, list[float]] = {"InfoMerge": [], "BTM, all pairs": [], "BTM, window 1": []}
    clock = Clock(device)
    for frames in GROWTH:
        tokens, signals = make_video(frames, 196, 3584, torch.bfloat16)
        tokens = tokens.to(device)
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


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="measure the growth curves as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    devices = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()
    target = ROOT / "bench" / "results" / "compress.json"
    report: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    report |= {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "not measured: no CUDA device",
        "retention": RETENTION,
        "rows": [],
    }
    for device in devices:
        for shape in SHAPES:
            for dtype in (torch.float32, torch.bfloat16):
                for row in measure(shape, dtype, device, arguments.repeats):
                    report["rows"].append(row)
                    speedup = f"{row['speedup_over_loops']:6.1f} x loops" if row["speedup_over_loops"] else ""
                    print(
                        f"{row['device']:4s} {row['shape']} {row['dtype']:8s} {row['method']:17s} "
                        f"{row['seconds'] * 1e3:9.1f} ms "
                        f"{row['share_of_prefill_saved']:8.3%} of the prefill saved {speedup}",
                        flush=True,
                    )
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.growth:
        report["growth"] = grow(devices[-1], max(1, arguments.repeats // 2))
        plot(report["growth"], ROOT / "docs" / "compress_growth.png")
        target.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
