"""Launches and waits of methods on a simulated accelerator: what a GPU would be asked for, counted without one.

    python -m bench.launches [--frames 32] [--tokens 196] [--width 3584] [--out bench/results/launches.json]

Tensors say that they are on an accelerator and are computed on the CPU; every operation that would start a kernel there
is counted, copies from the host apart, and every operation for which the host would wait. A method is planned and
applied. The first call of a shape runs its operations one by one; the second records what can be recorded, it and the
third are checked, and from the fourth on that is one launch, as a CUDA graph is: `recorded` counts what it holds.
Greedy picks are then one launch, too, that of a Triton kernel.
Kernels that a library starts within one operation are not seen, nor are times: neither is a measurement of a GPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.compress import make_video
from compress.baselines.divprune import DivPrune
from compress.baselines.evs import EVS
from compress.baselines.vidcom2 import VidCom2
from compress.cover import Cover
from compress.infomerge import InfoMerge
from compress.metom import BTM, RPM
from tests.oracle.accelerator import DEVICE, Accelerator

GOALS = {"launches": 60, "waits": 1}
"""For InfoMerge with fast richness and for BTM."""

WITH_GOALS = ("infomerge, fast", "btm")


def count(call: Callable[[], Any], *, graphs: bool) -> dict[str, int]:
    """Count what a call asks of the accelerator, the first one or, with recordings, one of many."""
    with Accelerator(graphs=graphs) as accelerator:
        for _ in range(4 if graphs else 1):
            accelerator.reset()
            call()
        return {
            "launches": accelerator.launches.total(),
            "copies": accelerator.copies,
            "waits": accelerator.waits.total(),
            "recorded": accelerator.recorded,
        }


def count_methods(frames: int, per_frame: int, width: int) -> dict[str, dict[str, dict[str, int]]]:
    """Count for every method its first call and its further ones."""
    tokens, signals = make_video(frames, per_frame, width, torch.bfloat16, torch.device("cpu"))
    density = np.random.default_rng(0).random((frames, 27, 27)).astype(np.float32)
    assert signals.saliency is not None and signals.frame_features is not None
    saliency, features = signals.saliency, signals.frame_features

    def before_llm(method: Any) -> None:
        there = replace(signals, saliency=saliency.to(DEVICE), frame_features=features.to(DEVICE))
        video = tokens.to(DEVICE)
        accelerator = Accelerator.current()
        accelerator.reset()
        method.before_llm(video, there).apply(video)

    calls: dict[str, Callable[[], Any]] = {
        "infomerge, fast": lambda: before_llm(InfoMerge(retention=0.1)),
        "infomerge, exact": lambda: before_llm(InfoMerge(retention=0.1, richness="exact")),
        "btm": lambda: before_llm(BTM()),
        "metom's rpm": lambda: RPM().before_encoder(density).plan.to(DEVICE),
        "vidcom2": lambda: before_llm(VidCom2(retention=0.1)),
        "evs": lambda: before_llm(EVS(retention=0.1)),
        "divprune": lambda: before_llm(DivPrune(retention=0.1)),
        "cover": lambda: before_llm(Cover(retention=0.1)),
    }
    found = {}
    for name, call in calls.items():
        found[name] = {"first": count(call, graphs=False), "further": count(call, graphs=True)}
        row = " ".join(
            f"{when}: " + ", ".join(f"{value} {key}" for key, value in counts.items() if value)
            for when, counts in found[name].items()
        )
        print(f"{name:18s} {row}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=196)
    parser.add_argument("--width", type=int, default=3584)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = (options.frames, options.tokens, options.width)
    methods = count_methods(*shape)
    for name in WITH_GOALS:
        for key, goal in GOALS.items():
            print(f"{name}: {methods[name]['further'][key]} {key} (goal {goal})")
    if options.out is not None:
        record = {"shape": list(shape), "torch": torch.__version__, "goals": GOALS, "methods": methods}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
