"""LLaVA-OneVision's pooling of a video at the width of the 7B size: the model's own against the session's.

    python -m bench.pooling [--device cuda] [--out bench/results/pooling.json]

Ratios within one run, the cases in turns, medians; the model's own is measured twice, for the null case.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from compress.models.adapters.adapter import adapt
from compress.models.inputs.random_weights import build_random
from compress.profiling.bench import describe

WIDTH = 3584


def seconds(pool: Any, features: torch.Tensor) -> float:
    """Of one call."""
    wait = torch.cuda.synchronize if features.is_cuda else (lambda: None)
    wait()
    start = time.perf_counter()
    pool(features)
    wait()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("bench/results/pooling.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build_random("llava-onevision-mid")
    adapter: Any = adapt(model)
    rows: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.randn(options.frames, 27 * 27, WIDTH, device=options.device, dtype=dtype)
        cases = {
            "model": model.model.apply_pooling,
            "session": adapter.pool_features,
            "model again": model.model.apply_pooling,
        }
        with torch.inference_mode():
            same = torch.equal(cases["model"](features), cases["session"](features))
            runs = [{name: seconds(pool, features) for name, pool in cases.items()} for _ in range(options.repeats)]
        row = {f"{name}, seconds": statistics.median(run[name] for run in runs) for name in cases}
        row["speed_up"] = statistics.median(run["model"] / run["session"] for run in runs)
        row["null"] = statistics.median(run["model"] / run["model again"] for run in runs)
        rows[str(dtype).removeprefix("torch.")] = row | {"equal": same}
        print(f"{dtype}: {row['model, seconds']:.4f} s -> {row['session, seconds']:.4f} s, {row['speed_up']:.1f} x "
              f"(null case {row['null']:.2f}), values {'equal' if same else 'differ'}")  # fmt: skip
    record = describe([], model="llava-onevision, 3584 wide", device=options.device)
    del record["ttft"], record["cases"]
    record |= {"frames": options.frames, "repeats": options.repeats, "pooling": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
