"""Time of every comparison method against a plain implementation of the same method, which keeps the same tokens.

    python -m bench.compare [--repeats 7] [--methods evs,fastvid]

From tokens and signals to the shortened tokens, 32 frames of 196 tokens of width 3584 in float32, on one CPU thread,
retention 0.1 (DyCoke 0.475). A method and its plain form are measured in one run, interleaved, in processor time; times
are medians, the ratio is the median of the rounds' ratios. Ours runs twice in every round: what the two differ by is
the noise. Results go to bench/results/compare.json, in which the rows of other methods stay, and a table to standard
output.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.compare_plain import PLAIN
from compress.methods import build
from compress.stage import Signals

OUT = Path(__file__).resolve().parent / "results" / "compare.json"
FRAMES, GRID, WIDTH = 32, (14, 14), 3584
RETENTION = {"dycoke": 0.475}


def scene() -> tuple[Tensor, Signals]:
    """Four shots with a third of the positions almost still, as LLaVA-OneVision would hand them over."""
    generator = torch.Generator().manual_seed(0)
    count = GRID[0] * GRID[1]
    shot = torch.randn(4, count, WIDTH, generator=generator).repeat_interleave(FRAMES // 4, 0)
    noise = torch.randn(FRAMES, count, WIDTH, generator=generator)
    noise[:, ::3] *= 0.1
    look = torch.randn(4, 1152, generator=generator).repeat_interleave(FRAMES // 4, 0)
    features = look + 0.2 * torch.randn(FRAMES, 1152, generator=generator)
    saliency = torch.rand(FRAMES, count, generator=generator).softmax(dim=1)
    return 0.3 + shot + 0.4 * noise, Signals(saliency=saliency, frame_features=features, grid=GRID)


def seconds(run: Callable[[], Any]) -> float:
    """Processor time, which other work on the machine changes least."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(name: str, tokens: Tensor, signals: Signals, repeats: int) -> dict[str, Any]:
    """Time one method, after a check that both sides keep the same tokens with the same values."""
    method = build(name, retention=RETENTION.get(name, 0.1))

    def ours() -> tuple[Tensor, Tensor]:
        result = method.before_llm(tokens, signals)
        return result.plan.keep, result.apply(tokens)

    keep, values = ours()
    count = len(keep)
    theirs_keep, theirs_values = PLAIN[name](tokens, signals, count)
    same = torch.equal(keep, theirs_keep)
    far = float((values - theirs_values).abs().max()) if same else float("nan")
    rounds: list[tuple[float, float, float]] = []
    for turn in range(repeats):
        plain = [seconds(lambda: PLAIN[name](tokens, signals, count))] if turn % 2 else []
        first = seconds(ours)
        plain = plain or [seconds(lambda: PLAIN[name](tokens, signals, count))]
        rounds.append((first, plain[0], seconds(ours)))
    return {
        "method": name,
        "tokens_out": count,
        "same_tokens": same,
        "largest_difference": far,
        "ours_ms": 1e3 * statistics.median([t for a, _, b in rounds for t in (a, b)]),
        "plain_ms": 1e3 * statistics.median([p for _, p, _ in rounds]),
        "ratio": statistics.median([(a + b) / (2 * p) for a, p, b in rounds]),
        "null": statistics.median([b / a for a, _, b in rounds]),
    }


def main() -> None:
    """Measure, write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--methods", default=",".join(PLAIN))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens, signals = scene()
    about = {
        "shape": [FRAMES, GRID[0] * GRID[1], WIDTH],
        "dtype": "float32",
        "threads": 1,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    print("| method | tokens out | ours, ms | plain, ms | ours / plain | null | same tokens |")
    print("|---|---|---|---|---|---|---|")
    for name in options.methods.split(","):
        row = {**measure(name, tokens, signals, options.repeats), "repeats": options.repeats}
        print(
            f"| `{name}` | {row['tokens_out']} | {row['ours_ms']:.1f} | {row['plain_ms']:.1f} | {row['ratio']:.2f} | "
            f"{row['null']:.2f} | {'yes' if row['same_tokens'] else 'NO'} |",
            flush=True,
        )
        rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
        known = {**{one["method"]: one for one in rows}, name: row}
        listed = [known[one] for one in PLAIN if one in known]
        options.out.write_text(json.dumps({"about": about, "rows": listed}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
