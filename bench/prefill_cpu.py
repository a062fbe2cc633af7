"""Prefill and tower of a mid-size LLaVA-OneVision with random weights, compressed against uncompressed, on one thread.

    python -m bench.prefill_cpu [--repeats 5] [--out bench/results/prefill_cpu.json]

Ratios within one run: cases take turns and medians are compared, in time of this process, not of the clock. Each case
is measured against the plain model:
  prefill      decoder alone, at the retained fractions of InfoMerge
  null         all tokens kept: what the hooks cost
  compression  signals, planning and merging, and what saliency adds to the tower, as a share of the prefill time saved
  tower        SigLIP with half of the patches merged, projector included
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from compress.infomerge import InfoMerge
from compress.metom import BTM, RPM
from compress.models.bench import describe, synthetic_meta
from compress.models.measure import Null
from compress.models.prompt import prepare
from compress.models.random_weights import ByteTokenizer, build_random

FRAMES = 20
GOALS = {0.5: 2.3, 0.3: 4.0, 0.15: 7.5, 0.1: 11.0, 0.05: 17.0}


class ProcessTimer:
    """Seconds of this process per stage: other processes on the machine do not count."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def stage(self, name: str) -> Any:
        """A context that adds its time to a stage."""
        timer = self

        class Span:
            def __enter__(self) -> None:
                self.start = time.process_time()

            def __exit__(self, *_: object) -> None:
                timer.seconds[name] = timer.seconds.get(name, 0.0) + time.process_time() - self.start

        return Span()


def watch(model: Any, timer: ProcessTimer) -> list[Any]:
    handles = []
    for name, module in (
        ("prefill", model.model.language_model),
        ("tower", model.model.vision_tower),
        ("projector", model.model.multi_modal_projector),
    ):
        span = timer.stage(name)
        handles.append(module.register_forward_pre_hook(lambda *_, span=span: span.__enter__()))
        handles.append(module.register_forward_hook(lambda *_, span=span: span.__exit__()))
    return handles


def measure(model: Any, inputs: dict[str, Any], meta: Any, compressor: Any, run: Callable[[], Any]) -> dict[str, float]:
    timer = ProcessTimer()
    with nullcontext() if compressor is None else compressor.attach(model, meta) as session:
        if session is not None:
            session.timer = timer.stage
        handles = watch(model, timer)
        start = time.process_time()
        run()
        timer.seconds["ttft"] = time.process_time() - start
        for handle in handles:
            handle.remove()
        if session is not None:
            timer.seconds["tokens"] = session.results[0].tokens_out
            before = session.results[0].before_encoder
            timer.seconds["patches"] = 1.0 if before is None else before.plan.retention
    return timer.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="llava-onevision-mid")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results/prefill_cpu.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build_random(options.config)
    meta = synthetic_meta(frames=options.frames)
    inputs = prepare(model, meta, "What happens in the video?", tokenizer=ByteTokenizer())
    cases: dict[str, Any] = {"plain": None, "null": Null()}
    for retention in GOALS:
        cases[f"infomerge {retention:g}"] = InfoMerge(retention=retention)
    for retention in (0.3, 0.1):
        cases[f"btm {retention:g}"] = BTM(retention=retention)
    cases["rpm 0.5"] = RPM(target_keep=0.5)

    @torch.inference_mode()
    def run() -> None:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)

    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for turn in range(options.repeats + 1):
        for name, compressor in cases.items():
            seconds = measure(model, inputs, meta, compressor, run)
            if turn:
                rounds[name].append(seconds)
        print(f"round {turn} of {options.repeats}", flush=True)

    def median(name: str, stage: str) -> float:
        return statistics.median(one.get(stage, 0.0) for one in rounds[name])

    plain, towers = median("plain", "prefill"), median("plain", "tower") + median("plain", "projector")
    rows = []
    print(f"{'case':16} {'tokens':>6} {'prefill s':>9} {'x':>6} {'goal':>5} {'compress s':>10} {'of saved':>8}")
    print(f"{'plain':16} {'':6} {plain:9.3f}")
    for name in cases:
        if name in ("plain", "rpm 0.5"):
            continue
        prefill, work = median(name, "prefill"), median(name, "compress")
        if name.startswith("infomerge"):
            work += max(0.0, median(name, "tower") - median("plain", "tower"))
        goal = GOALS.get(float(name.split()[1])) if " " in name else None
        saved = work / (plain - prefill) if goal else None
        rows.append(
            {
                "case": name,
                "tokens": median(name, "tokens"),
                "prefill_seconds": prefill,
                "speed_up": plain / prefill,
                "goal": goal,
                "compress_seconds": work,
                "share_of_saved": saved,
            }
        )
        shown = "" if saved is None else f"{100 * saved:7.1f}%"
        print(
            f"{name:16} {median(name, 'tokens'):6.0f} {prefill:9.3f} {plain / prefill:6.2f} {goal or '':>5} "
            f"{work:10.4f} {shown}"
        )
    merged = median("rpm 0.5", "tower") + median("rpm 0.5", "projector")
    planning = median("rpm 0.5", "rpm")
    tower = {
        "patches": median("rpm 0.5", "patches"),
        "plain_seconds": towers,
        "merged_seconds": merged,
        "planning_seconds_within": planning,
        "speed_up": towers / merged,
        "goal": 1.6,
    }
    print(
        f"tower and projector with {100 * tower['patches']:.0f} % of patches: {towers:.3f} -> {merged:.3f} s, "
        f"{towers / merged:.2f} x (goal 1.6), planning {planning:.3f} s of it"
    )
    record = describe([], model=options.config, device="cpu")
    record |= {"frames": options.frames, "repeats": options.repeats, "plain_prefill_seconds": plain}
    record |= {"cases": rows, "tower": tower}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
