"""LLaVA-OneVision-7B and Qwen2-VL-7B with random bf16 weights on an accelerator: what compression saves, and floors.

    python -m bench.gpu [--out bench/results/gpu.json] [--seconds 400]
    python -m bench.gpu --compile --models llava-onevision-7b --out bench/results/gpu_compiled.json
    python -m bench.gpu --device cpu --models llava-onevision-tiny qwen2-vl-tiny --frames 8 --repeats 1

Needs no network. A synthetic video with static background; all stages by CUDA events, cases in turns, medians. Every
prefill is reported with its floor: its operations over the ceiling of matrix products measured on the same machine, or
the time to read the weights at the measured bandwidth, whichever is longer.

Models share the given seconds; a round of cases that would not end in its model's share is left out. The figures are
written after every round, so that a run that is cut off leaves those it had. A case or a model that fails is named
there, and the others are measured; the exit code is 1 if any did.

With --compile the decoder's layers are compiled first, for all cases, the uncompressed one too: few tokens take as long
as their kernels take to launch, and compiled layers launch fewer. Compiling takes minutes of the given seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from compress.compressor import Pipeline
from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM, RPM, MeToM
from compress.models.inputs.prompt import prepare
from compress.models.inputs.random_weights import ByteTokenizer, build_random
from compress.profiling.bench import describe, synthetic_meta
from compress.profiling.measure import Case, Measurement, Null, measure_cases

PREFILL_GOALS = {0.15: 6.5, 0.10: 9.5, 0.05: 14.0}
COMPRESSION_GOAL = 0.002
METOM_TTFT_GOAL = 2.65
FLOOR_GOAL = 1.3


def time_best(run: Any, device: torch.device, *, repeats: int = 8) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """FLOP/s of a large matrix product, and bytes/s of reading memory."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    product = time_best(lambda: a @ b, device)
    block = torch.empty((1 << 30) if device.type == "cuda" else (1 << 24), dtype=torch.uint8, device=device)
    copy = torch.empty_like(block)
    moved = time_best(lambda: copy.copy_(block), device)
    return {"flops": 2 * side**3 / product, "bytes_per_second": 2 * block.numel() / moved}


def prefill_floor(model: Any, columns: int, inner: int, merge_layer: int, ceilings: dict[str, float]) -> float:
    """Seconds that the decoder's operations or its weights take at the measured ceilings; attention is causal."""
    text = model.config.text_config
    d, ff, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    kv = text.num_key_value_heads / text.num_attention_heads

    def flops(n: int) -> float:
        return float(2 * n * d * d * (2 + 2 * kv) + 2 * 3 * n * d * ff + 2 * n * n * d)

    work = merge_layer * flops(columns) + (layers - merge_layer) * flops(inner)
    weights = sum(weight.numel() * weight.element_size() for weight in model.model.language_model.layers.parameters())
    return float(max(work / ceilings["flops"], weights / ceilings["bytes_per_second"]))


def tower_floor(model: Any, frames: int, share: float, ceilings: dict[str, float]) -> float | None:
    """Seconds that a SigLIP tower's operations take at the ceiling; None for other towers."""
    vision = model.config.vision_config
    if not hasattr(vision, "intermediate_size") or not hasattr(model.model, "vision_tower"):
        return None
    n = (vision.image_size // vision.patch_size) ** 2 * share
    d, ff = vision.hidden_size, vision.intermediate_size
    per_layer = 2 * n * (4 * d * d + 2 * d * ff) + 4 * n * n * d
    return float(frames * vision.num_hidden_layers * per_layer / ceilings["flops"])


def build_cases(depth: int) -> list[Case]:
    """Build the cases: the plain model, the null case, MeToM and InfoMerge, and stages on and off."""
    metom = MeToM().at_depth(depth)
    cases = [Case(name="uncompressed", compressor=None), Case(name="null", compressor=Null())]
    for share in (0.5, 0.3):
        cases.append(Case(name=f"metom {share:g}", compressor=replace(metom, retention=share), retention=share))
    cases.append(Case(name="btm 0.3", compressor=BTM(retention=0.3), retention=0.3))
    cases.append(Case(name="rpm+btm 0.3", compressor=Pipeline(RPM(), BTM(retention=0.3)), retention=0.3))
    matm = MATM().at_depth(depth)
    cases.append(Case(name="btm+matm 0.3", compressor=Pipeline(BTM(retention=0.3), matm), retention=0.3))
    for share in PREFILL_GOALS:
        cases.append(Case(name=f"infomerge {share:g}", compressor=InfoMerge(retention=share), retention=share))
    half = Pipeline(RPM(target_keep=0.5), InfoMerge(retention=0.15), matm)
    cases.append(Case(name="rpm 0.5+infomerge 0.15+matm", compressor=half, retention=0.15))
    return cases


def judge(found: list[Measurement], floors: dict[str, float]) -> dict[str, Any]:
    """Every goal with what was reached."""
    plain = found[0].seconds
    goals: dict[str, Any] = {}
    for one in found:
        if one.name.startswith("infomerge"):
            goals[f"{one.name}: prefill"] = (plain["prefill"] / one.seconds["prefill"], PREFILL_GOALS[one.retention])
            goals[f"{one.name}: compression, seconds"] = (one.seconds["compress"], COMPRESSION_GOAL)
        if one.name == "metom 0.3":
            goals["metom 0.3: ttft"] = (plain["ttft"] / one.seconds["ttft"], METOM_TTFT_GOAL)
        if one.retention >= 0.15:
            goals[f"{one.name}: prefill over floor"] = (one.seconds["prefill"] / floors[one.name], FLOOR_GOAL)
    return {name: {"reached": reached, "goal": goal} for name, (reached, goal) in goals.items()}


def account(
    name: str, model: Any, cases: list[Case], found: list[Measurement], text: int, options: Any, ceilings: Any
) -> dict[str, Any]:
    """Collect the figures of one architecture with floors and goals, ready for JSON."""
    record = describe(found, model=name, device=options.device) | {"compiled": options.compile}
    depth = model.config.text_config.num_hidden_layers
    floors, towers = {}, {}
    for case, one in zip(cases, found, strict=True):
        merge = getattr(case.compressor, "merge_layer", depth) if one.tokens_inner != one.tokens_out else depth
        floors[one.name] = prefill_floor(model, one.tokens_out + text, one.tokens_inner + text, merge, ceilings)
        towers[one.name] = tower_floor(model, options.frames, one.patches, ceilings)
    return record | {
        "prefill_floor_seconds": floors,
        "tower_floor_seconds": towers,
        "goals": judge(found, floors) if found else {},
    }


def show(found: list[Measurement], record: dict[str, Any]) -> None:
    """Print the figures as a table, and the goals."""
    print(f"{'case':28} {'tokens':>11} {'tower':>8} {'floor':>7} {'rpm':>7} {'compr.':>7} {'prefill':>8} {'floor':>7} "
          f"{'x floor':>7} {'x':>6} {'other':>7} {'ttft':>8} {'x':>5} {'decode':>7} ms")  # fmt: skip
    for one in found:
        floor, tower = record["prefill_floor_seconds"][one.name], record["tower_floor_seconds"][one.name]
        s, plain = one.seconds, found[0].seconds
        ms = {stage: 1000 * s.get(stage, 0.0) for stage in ("tower", "rpm", "compress", "prefill", "other", "ttft")}
        print(
            f"{one.name:28} {one.tokens_out:5d}/{one.tokens_inner:5d} {ms['tower']:8.2f} "
            f"{'-' if tower is None else format(1000 * tower, '7.2f'):>7} {ms['rpm']:7.2f} {ms['compress']:7.2f} "
            f"{ms['prefill']:8.2f} {1000 * floor:7.2f} {s['prefill'] / floor:7.2f} "
            f"{plain['prefill'] / s['prefill']:6.2f} {ms['other']:7.2f} {ms['ttft']:8.2f} "
            f"{plain['ttft'] / s['ttft']:5.2f} {1000 * one.decode:7.2f}"
        )
    for goal, figures in record["goals"].items():
        print(f"  {goal}: {figures['reached']:.4g} (goal {figures['goal']:g})")


def compile_layers(model: Any) -> None:
    """Compile each layer of the decoder for itself, for prompts of any length."""
    layers = model.model.language_model.layers
    # All layers share one code object, whose compiled forms are counted together.
    torch._dynamo.config.recompile_limit = 8 * len(layers)
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)


def try_cases(measure: Callable[..., list[Measurement]], cases: list[Case]) -> tuple[list[Case], dict[str, str]]:
    """Return the cases that work, each run once with a further token, and the errors of the others.

    The plain model must work.
    """
    works, failures = [], {}
    for case in cases:
        try:
            # Decoding has masks and positions of its own, which must not fail first in a measured round.
            measure([case], repeats=1, warmup=0, new_tokens=1)
            works.append(case)
        except Exception as error:
            if case.compressor is None:
                raise
            failures[case.name] = f"{type(error).__name__}: {error}"
            print(f"{case.name} fails:\n{traceback.format_exc()}", flush=True)
        if case.name in failures:
            release_memory()  # only here, where the exception no longer holds what the case had allocated
    return works, failures


def release_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_model(
    name: str, options: argparse.Namespace, ceilings: dict[str, float], deadline: float, save: Callable[[Any], None]
) -> None:
    """All cases of one architecture; what is known goes to ``save`` after every round."""
    device = torch.device(options.device)
    start = time.monotonic()
    model = build_random(name, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, device=options.device)
    print(f"{name}: built in {time.monotonic() - start:.1f} s", flush=True)
    if options.compile:
        compile_layers(model)
    meta = synthetic_meta(frames=options.frames)
    inputs = prepare(model, meta, "What happens in the video?", tokenizer=ByteTokenizer())
    measure = partial(measure_cases, model, inputs, meta)
    cases, failures = try_cases(measure, build_cases(model.config.text_config.num_hidden_layers))
    print(f"{name}: every case once, {time.monotonic() - start:.0f} s", flush=True)
    if failures:
        save({"failures": failures})

    def progress(line: str, found: list[Measurement]) -> None:
        print(f"{name}: {line}, {time.monotonic() - start:.0f} s", flush=True)
        if found:
            text = inputs["input_ids"].shape[1] - found[0].tokens_in
            save({**account(name, model, cases, found, text, options, ceilings), "failures": failures})

    found = measure(
        cases,
        repeats=options.repeats,
        warmup=options.warmup,
        new_tokens=options.new_tokens,
        limit=deadline - time.monotonic(),
        progress=progress,
    )
    text = inputs["input_ids"].shape[1] - found[0].tokens_in
    print(f"\n{name}: {found[0].tokens_in} visual and {text} other tokens, {time.monotonic() - start:.0f} s")
    show(found, account(name, model, cases, found, text, options, ceilings))


def write(result: dict[str, Any], path: Path) -> None:
    """Write the figures whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_suffix(".part")
    partial_file.write_text(json.dumps(result, indent=1) + "\n")
    partial_file.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["llava-onevision-7b", "qwen2-vl-7b"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=400.0, help="for all models; their building counts")
    parser.add_argument("--compile", action="store_true", help="compile the decoder's layers first")
    parser.add_argument("--out", type=Path, default=Path("bench/results/gpu.json"))
    options = parser.parse_args()
    begin = time.monotonic()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu with tiny models shows that the script works")
    ceilings = measure_ceilings(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    print(
        f"matrix products {ceilings['flops'] / 1e12:.2f} TFLOP/s, copying {ceilings['bytes_per_second'] / 1e9:.0f} GB/s"
    )
    result: dict[str, Any] = {"complete": False, "ceilings": ceilings, "models": {}}
    for number, name in enumerate(options.models, 1):
        deadline = begin + options.seconds * number / len(options.models)

        def save(record: dict[str, Any], name: str = name) -> None:
            result["models"][name] = record
            write(result, options.out)

        try:
            run_model(name, options, ceilings, deadline, save)
        except Exception as error:
            print(f"{name} fails:\n{traceback.format_exc()}", flush=True)
            known = result["models"].get(name, {"failures": {}})
            save({**known, "failures": {**known["failures"], "model": f"{type(error).__name__}: {error}"}})
        release_memory()
    again = measure_ceilings(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    result["ceiling_drift"] = again["flops"] / ceilings["flops"]
    print(f"\nthe ceiling at the end: {result['ceiling_drift']:.3f} of that at the beginning")
    write({**result, "complete": True, "seconds": time.monotonic() - begin}, options.out)
    if any(record["failures"] for record in result["models"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
