"""Time and memory of every method against a plain implementation of the same method, which keeps the same tokens.

    python -m bench.compare [--rounds 5] [--methods evs,fastvid]

Every method of the registry (MeToM by its stages rpm, btm and matm): from tokens and signals to the shortened tokens,
32 frames of 196 tokens of width 3584 in float32, on one CPU thread, retention 0.1 (DyCoke 0.475). A stage inside the
language model gets as many tokens and their attention, one before the encoder 32 x 27 x 27 densities, one inside it as
many patches of width 1152 in an encoder of 27 blocks. A method and its plain form are measured in one run,
interleaved, in processor time; times are medians, the ratio is the median of the rounds' ratios. Ours runs twice in
every round: what the two differ by is the noise. A plain form of more than five seconds runs once. Memory is what the
process holds at most during a call, less what it held before. Results go to bench/results/compare.json, in which the
rows of other methods stay, and a table to standard output.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.compare_plain_frames import earlytom_inside
from bench.compare_plain_merging import PLAIN_INSIDE, PLAIN_MERGING, PLAIN_UNSEEN, rpm, tome
from compress.encoder_merging import EncoderState
from compress.methods import METHODS, build
from compress.stage import BeforeEncoder, BeforeLLM, InnerTokens, InsideEncoder, InsideLLM, Signals, cuts_of

OUT = Path(__file__).resolve().parent / "results" / "compare.json"
FRAMES, GRID, WIDTH = 32, (14, 14), 3584
PATCHES = (27, 27)
DEPTH = 28
BLOCKS, ENCODER_WIDTH, KEYS = 27, 1152, 72
RETENTION = {"dycoke": 0.475}
AGREEING = {"btm": {"refill": "no"}, "infomerge": {"richness": "exact"}}
"""Settings in which a method keeps the tokens of its plain form, where these are not the defaults that are timed."""
LONG = 5.0
"""Seconds of a plain form from which on it runs once."""
ALIKE = 2e-3
"""How far values of the same tokens may differ, of a unit variance."""

Outcome = tuple[Tensor | None, Tensor]
Calls = tuple[Callable[[], Outcome], Callable[[], Outcome] | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What the stages of methods are given."""

    tokens: Tensor
    signals: Signals
    density: NDArray[np.float32]
    scores: Tensor
    patches: Tensor


def make_scene() -> Scene:
    """Four shots with a third of the positions almost still, as LLaVA-OneVision would hand them over."""
    generator = torch.Generator().manual_seed(0)
    count = GRID[0] * GRID[1]
    shot = torch.randn(4, count, WIDTH, generator=generator).repeat_interleave(FRAMES // 4, 0)
    noise = torch.randn(FRAMES, count, WIDTH, generator=generator)
    noise[:, ::3] *= 0.1
    look = torch.randn(4, 1152, generator=generator).repeat_interleave(FRAMES // 4, 0)
    features = look + 0.2 * torch.randn(FRAMES, 1152, generator=generator)
    saliency = torch.rand(FRAMES, count, generator=generator).softmax(dim=1)
    rng = np.random.default_rng(0)
    signals = Signals(
        saliency=saliency,
        frame_features=features,
        grid=GRID,
        density=rng.random((FRAMES, count), np.float32),
        packet_size=rng.integers(500, 5000, FRAMES),
    )
    coarse = torch.rand(FRAMES, 1, 7, 7, generator=generator)
    density = torch.nn.functional.interpolate(coarse, size=PATCHES, mode="bilinear")[:, 0]
    return Scene(
        tokens=0.3 + shot + 0.4 * noise,
        signals=signals,
        density=(0.8 * density + 0.2 * torch.rand(FRAMES, *PATCHES, generator=generator)).numpy(),
        scores=torch.rand(3, FRAMES * count, generator=generator),
        patches=torch.randn(FRAMES, PATCHES[0] * PATCHES[1], ENCODER_WIDTH, generator=generator),
    )


def calls_of(name: str, scene: Scene, *, settings: Mapping[str, str] | None = None) -> dict[str, Calls]:
    """Return per stage of a method how it runs, and how its plain form does; None where there is none."""
    method = build(name, retention=RETENTION.get(name, 0.1), settings=settings)
    if hasattr(method, "at_depth"):
        method = method.at_depth(DEPTH)
    found: dict[str, Calls] = {}
    if isinstance(method, BeforeEncoder):
        found["before_encoder"] = _before_encoder(method, name, scene)
    if isinstance(method, InsideEncoder):
        found["inside_encoder"] = _inside_encoder(method, name, scene)
    if isinstance(method, BeforeLLM):
        found["before_llm"] = _before_llm(method, name, scene)
    if isinstance(method, InsideLLM):
        found["inside_llm"] = _inside_llm(method, name, scene)
    return found


def _before_encoder(method: BeforeEncoder, plain: str, scene: Scene) -> Calls:
    def ours() -> Outcome:
        keep = method.before_encoder(scene.density).plan.keep
        return keep, torch.zeros(len(keep), 1)

    def theirs() -> Outcome:
        keep = rpm(scene.density, method.before_encoder(scene.density).nominal)
        return keep, torch.zeros(len(keep), 1)

    return ours, theirs if plain == "rpm" else None


def _inside_encoder(method: Any, plain: str, scene: Scene) -> Calls:
    frames, patches = FRAMES, PATCHES[0] * PATCHES[1]

    def ours() -> Outcome:
        hidden, size = scene.patches, torch.ones(frames, patches)
        keep = torch.arange(frames * patches)
        for block in method.merge_blocks(BLOCKS):
            state = EncoderState(
                block=block,
                depth=BLOCKS,
                hidden=hidden,
                keys=hidden[..., :KEYS],
                size=size,
                frames=frames,
                patches=patches,
            )
            merge = method.inside_encoder(state)
            if merge is None:
                continue
            hidden = merge.apply(hidden.flatten(0, 1)).view(merge.frames, -1, hidden.shape[2])
            size = torch.zeros(len(merge.keep)).index_add_(0, merge.origin, size.flatten()).view(merge.frames, -1)
            keep = keep[merge.keep]
        return keep, hidden.flatten(0, 1)

    if plain == "tome":
        return ours, lambda: tome(scene.patches, method.counts(patches, BLOCKS), KEYS)
    if plain == "earlytom":
        least = math.ceil(method.retention * frames)
        return ours, lambda: earlytom_inside(scene.patches, len(method.merge_blocks(BLOCKS)), least)
    return ours, None


def _before_llm(method: BeforeLLM, plain: str, scene: Scene) -> Calls:
    def ours() -> Outcome:
        found = method.before_llm(scene.tokens, scene.signals)
        return found.plan.keep, found.apply(scene.tokens)

    if plain not in PLAIN_MERGING:
        return ours, None
    count = method.before_llm(scene.tokens, scene.signals).achieved
    return ours, lambda: PLAIN_MERGING[plain](scene.tokens, scene.signals, count)


def _inside_llm(method: InsideLLM, plain: str, scene: Scene) -> Calls:
    count = FRAMES * GRID[0] * GRID[1]
    place = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), *map(torch.arange, (FRAMES, *GRID)))
    cuts = cuts_of(method) or ()

    def run(choose: Callable[[int, Tensor, Tensor, Tensor], Outcome]) -> Outcome:
        keep, values = torch.arange(count), scene.tokens.flatten(0, 1)
        for number, cut in enumerate(cuts):
            stays, values = choose(number, scene.scores[: len(cut.scored), keep], values, keep)
            keep = keep[stays]
        return keep, values

    def ours(number: int, scores: Tensor, hidden: Tensor, keep: Tensor) -> Outcome:
        shown = InnerTokens(cut=number, entered=count, place=place[keep], grids=(GRID,))
        found = method.inside_llm(scores, hidden, *([shown] if hasattr(method, "cuts") else []))
        return found.plan.keep, found.apply(hidden)

    counts: list[int] = []

    def counted(*given: Any) -> Outcome:
        found = ours(*given)
        counts.append(len(found[1]))
        return found

    run(counted)
    if plain in PLAIN_UNSEEN:
        return lambda: run(ours), lambda: PLAIN_UNSEEN[plain](scene.tokens, scene.signals, counts[0])
    if plain not in PLAIN_INSIDE:
        return lambda: run(ours), None

    def theirs(number: int, scores: Tensor, hidden: Tensor, keep: Tensor) -> Outcome:
        return PLAIN_INSIDE[plain](scores, hidden, counts[number])

    return lambda: run(ours), lambda: run(theirs)


def seconds(run: Callable[[], Any]) -> float:
    """Processor time, which other work on the machine changes least."""
    start = time.process_time()
    run()
    return time.process_time() - start


def peak_megabytes(run: Callable[[], Any]) -> float | None:
    """Return what the process holds at most during a call, less what it held before; None where Linux does not say."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins again
        before = _status("VmRSS")
        run()
        return max(_status("VmHWM") - before, 0) / 1024
    except (OSError, AttributeError):
        return None


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(field)))


def measure(name: str, stage: str, scene: Scene, calls: Calls, rounds: int) -> dict[str, Any]:
    """Time one stage of a method, after a check that both sides keep the same tokens with the same values."""
    ours, plain = calls
    keep, values = ours()
    row: dict[str, Any] = {"method": name, "stage": stage, "tokens_out": len(values)}
    row["ours_mb"] = peak_megabytes(ours)
    timed: list[tuple[float, float, float]] = []
    theirs: list[Outcome] = []
    first_plain = math.nan
    if plain is not None:
        spent: list[float] = []
        row["plain_mb"] = peak_megabytes(lambda: spent.append(seconds(lambda: theirs.append(plain()))))
        first_plain = spent[0] if spent and spent[0] > LONG else seconds(lambda: theirs.append(plain()))
        if AGREEING.get(name):
            keep, values = calls_of(name, scene, settings=AGREEING[name])[stage][0]()
        row |= _agreement(keep, values, *theirs[-1])
    long = first_plain > LONG
    for turn in range(rounds):
        before = seconds(plain) if plain is not None and not long and turn % 2 else first_plain
        one = seconds(ours)
        after = seconds(plain) if plain is not None and not long and not turn % 2 else before
        timed.append((one, after, seconds(ours)))
        if long and one > LONG / 5:
            break
    row |= {
        "rounds": len(timed),
        "ours_ms": 1e3 * statistics.median([t for a, _, b in timed for t in (a, b)]),
        "null": statistics.median([b / a for a, _, b in timed]),
    }
    if plain is not None:
        row["plain_ms"] = 1e3 * statistics.median([p for _, p, _ in timed])
        row["ratio"] = statistics.median([(a + b) / (2 * p) for a, p, b in timed])
    return row


def _agreement(keep: Tensor | None, values: Tensor, plain_keep: Tensor | None, plain: Tensor) -> dict[str, Any]:
    """Return the share of the tokens that both keep with equal values; by order where the plain form names none."""
    if keep is not None and plain_keep is not None:
        common = np.intersect1d(keep.numpy(), plain_keep.numpy(), return_indices=True)[1:]
        values, plain = values[torch.from_numpy(common[0])], plain[torch.from_numpy(common[1])]
    elif values.shape != plain.shape:
        return {"same": 0.0}
    total = len(values) if keep is None else len(keep)
    return {"same": float(((values - plain).abs().amax(dim=1) <= ALIKE).sum()) / total}


def write_row(row: dict[str, Any]) -> str:
    """Return a row of the table in Markdown."""

    def text(key: str, decimals: int) -> str:
        value = row.get(key)
        return "-" if value is None else f"{value:.{decimals}f}"

    share = row.get("same")
    same = "-" if share is None else "yes" if share == 1 else f"{100 * share:.1f} %"
    stage = row["stage"].replace("_", " ")
    return (
        f"| `{row['method']}` | {stage} | {row['tokens_out']} | {text('ours_ms', 1)} | {text('plain_ms', 1)} | "
        f"{text('ratio', 2)} | {text('null', 2)} | {text('ours_mb', 0)} | {text('plain_mb', 0)} | {same} |"
    )


def main() -> None:
    """Measure, write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", default=",".join(name for name in METHODS if name != "metom"))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scene = make_scene()
    about = {
        "shape": [FRAMES, GRID[0] * GRID[1], WIDTH],
        "dtype": "float32",
        "threads": 1,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    print("| method | stage | tokens out | ours, ms | plain, ms | ours / plain | null | ours, MB | plain, MB | same |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.methods.split(","):
        for stage, calls in calls_of(name, scene).items():
            row = measure(name, stage, scene, calls, options.rounds)
            print(write_row(row), flush=True)
            rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
            known = {(one["method"], one.get("stage", "before_llm")): one for one in rows} | {(name, stage): row}
            listed = [one for other in METHODS for key, one in known.items() if key[0] == other]
            options.out.write_text(json.dumps({"about": about, "rows": listed}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
