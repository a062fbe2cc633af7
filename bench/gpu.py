"""LLaVA-OneVision-7B and Qwen2-VL-7B with random bf16 weights on an accelerator: what compression saves, and floors.

    python -m bench.gpu [--commit HASH] [--out bench/results/gpu.json] [--seconds 330]
    python -m bench.gpu --device cpu --models llava-onevision-tiny qwen2-vl-tiny --frames 4 --repeats 1
    python -m bench.gpu_table bench/results/gpu.json

Needs no network. A synthetic video with static background; all stages by CUDA events, cases in turns, medians. Every
prefill is reported with its floor: its operations over the ceiling of matrix products measured on the same machine, or
the time to read the weights at the measured bandwidth, whichever is longer. First of all, what decoding 32 frames and
their metadata takes on the machine's own cores, and the methods alone; last, what the first token of every case asks of
the device: kernels, recorded graphs, copies and waits.

Every model is measured as it is and then with the decoder's layers compiled, for all cases, the uncompressed one too:
few tokens take as long as their kernels take to launch, and compiled layers launch fewer. --compile chooses one of the
two.

Models share the given seconds; a round of cases that would not end in its share is left out. The figures are written
after every round, so that a run that is cut off leaves those it had. A case or a model that fails is named there, and
the others are measured; the exit code is 1 if any did. The last command prints the table of the documentation.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.compress import SHAPES, count_calls
from bench.compress import measure as measure_methods
from bench.gpu_floors import measure_ceilings, prefill_floor, tower_floor
from compress.baselines.evs import EVS
from compress.compressor import Pipeline
from compress.cover import Cover
from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM, RPM, MeToM
from compress.metom.rpm import DEFAULT_TARGET_KEEP
from compress.models.inputs.prompt import prepare
from compress.models.inputs.random_weights import ByteTokenizer, build_random
from compress.profiling.bench import describe, synthetic_meta
from compress.profiling.measure import Case, Measurement, Null, measure_cases

PREFILL_GOALS = {0.15: 6.5, 0.10: 9.5, 0.05: 14.0}
COMPRESSION_GOAL = 0.002
METOM_TTFT_GOAL = 2.65
FLOOR_GOAL = 1.3


def build_cases(depth: int) -> list[Case]:
    """Build the cases: the plain model, the null case, MeToM and InfoMerge, and stages on and off."""
    metom = MeToM().at_depth(depth)
    cases = [Case(name="uncompressed", compressor=None), Case(name="null", compressor=Null())]
    # On a GPU the default stage before the encoder is left out; any other is not.
    with_patches = MeToM(rpm=RPM(target_keep=DEFAULT_TARGET_KEEP)).at_depth(depth)
    for share in (0.5, 0.3):
        cases.append(Case(name=f"metom {share:g}", compressor=replace(metom, retention=share), retention=share))
        name = f"metom {share:g}, patches too"
        cases.append(Case(name=name, compressor=replace(with_patches, retention=share), retention=share))
    cases.append(Case(name="btm 0.3", compressor=BTM(retention=0.3), retention=0.3))
    cases.append(Case(name="rpm+btm 0.3", compressor=Pipeline(RPM(), BTM(retention=0.3)), retention=0.3))
    matm = MATM().at_depth(depth)
    cases.append(Case(name="btm+matm 0.3", compressor=Pipeline(BTM(retention=0.3), matm), retention=0.3))
    for share in PREFILL_GOALS:
        cases.append(Case(name=f"infomerge {share:g}", compressor=InfoMerge(retention=share), retention=share))
    for name, method in (("cover", Cover(retention=0.15)), ("evs", EVS(retention=0.15))):
        cases.append(Case(name=f"{name} 0.15", compressor=method, retention=0.15))
    half = Pipeline(RPM(target_keep=0.5), InfoMerge(retention=0.15), matm)
    cases.append(Case(name="rpm 0.5+infomerge 0.15+matm", compressor=half, retention=0.15))
    return cases


def judge(found: list[Measurement], floors: dict[str, float]) -> dict[str, Any]:
    """Every goal with what was reached."""
    plain = found[0].seconds
    pooled = next((one.seconds for one in found if one.name == "null"), None)
    goals: dict[str, Any] = {}
    for one in found:
        if one.name.startswith("infomerge"):
            goals[f"{one.name}: prefill"] = (plain["prefill"] / one.seconds["prefill"], PREFILL_GOALS[one.retention])
            goals[f"{one.name}: compression, seconds"] = (one.seconds["compress"], COMPRESSION_GOAL)
        if one.name == "metom 0.3":
            goals["metom 0.3: ttft"] = (plain["ttft"] / one.seconds["ttft"], METOM_TTFT_GOAL)
            if pooled is not None:
                goals["metom 0.3: ttft, over the null case"] = (pooled["ttft"] / one.seconds["ttft"], None)
        if one.retention >= 0.15:
            goals[f"{one.name}: prefill over floor"] = (one.seconds["prefill"] / floors[one.name], FLOOR_GOAL)
    return {name: {"reached": reached, "goal": goal} for name, (reached, goal) in goals.items()}


def account(
    name: str,
    model: Any,
    cases: list[Case],
    found: list[Measurement],
    text: int,
    options: Any,
    ceilings: Any,
    *,
    compiled: bool,
) -> dict[str, Any]:
    """Collect the figures of one architecture with floors and goals, ready for JSON."""
    record = describe(found, model=name, device=options.device) | {"compiled": compiled}
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
        print(f"  {goal}: {figures['reached']:.4g} (goal {'-' if figures['goal'] is None else figures['goal']})")


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
    name: str,
    options: argparse.Namespace,
    ceilings: dict[str, float],
    begin: float,
    deadlines: list[tuple[bool, float]],
    save: Callable[[str, Any], None],
) -> None:
    """All cases of one architecture; what is known goes to ``save`` after every round.

    Args:
        name: of the architecture.
        options: of the command.
        ceilings: of the machine.
        begin: when the run began.
        deadlines: whether layers are compiled, and the seconds after the beginning by which that is to end.
        save: takes the name of a record and the record.
    """
    device = torch.device(options.device)
    start = time.monotonic()
    model = build_random(name, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, device=options.device)
    print(f"{name}: built in {time.monotonic() - start:.1f} s", flush=True)
    meta = synthetic_meta(frames=options.frames)
    inputs = prepare(model, meta, "What happens in the video?", tokenizer=ByteTokenizer())
    for compiled, seconds in deadlines:
        title = f"{name}, compiled" if compiled else name
        if compiled:
            compile_layers(model)
        measure = partial(measure_cases, model, inputs, meta)
        cases, failures = try_cases(measure, build_cases(model.config.text_config.num_hidden_layers))
        print(f"{title}: every case once, {time.monotonic() - start:.0f} s", flush=True)
        if failures:
            save(title, {"failures": failures})
        describe_all = partial(account, name, model, cases, options=options, ceilings=ceilings, compiled=compiled)

        def progress(
            line: str,
            found: list[Measurement],
            title: str = title,
            failures: dict[str, str] = failures,
            describe_all: Callable[..., dict[str, Any]] = describe_all,
        ) -> None:
            print(f"{title}: {line}, {time.monotonic() - start:.0f} s", flush=True)
            if found:
                text = inputs["input_ids"].shape[1] - found[0].tokens_in
                save(title, {**describe_all(found=found, text=text), "failures": failures})

        found = measure(
            cases,
            repeats=options.repeats,
            warmup=options.warmup,
            new_tokens=options.new_tokens,
            limit=begin + seconds - time.monotonic(),
            progress=progress,
        )
        text = inputs["input_ids"].shape[1] - found[0].tokens_in
        print(f"\n{title}: {found[0].tokens_in} visual and {text} other tokens, {time.monotonic() - start:.0f} s")
        record = describe_all(found=found, text=text)
        show(found, record)
        if device.type == "cuda":
            calls = {case.name: count_first_token(model, inputs, meta, case) for case in cases}
            save(title, {**record, "failures": failures, "calls": calls})


@torch.inference_mode()
def count_first_token(model: Any, inputs: Any, meta: Any, case: Case) -> dict[str, int] | str:
    """Count what the first token asks of the CUDA device, or say why it cannot be counted."""
    with ExitStack() as stack:
        if case.compressor is not None:
            stack.enter_context(case.compressor.attach(model, meta))
        generate = partial(model.generate, **inputs, max_new_tokens=1, do_sample=False)
        try:
            return count_calls(generate)
        except RuntimeError as error:
            return f"{type(error).__name__}: {error}"


def measure_extraction(frames: int, *, seconds: int, side: tuple[int, int], repeats: int = 5) -> dict[str, Any]:
    """Measure what decoding frames of a clip takes here, alone and with the metadata, by the wall clock."""
    from bench.extract_clips import render
    from codecmeta import extract

    with tempfile.TemporaryDirectory() as folder:
        clip = render(Path(folder) / "clip.mp4", seconds=seconds, width=side[0], height=side[1])
        ways: dict[str, dict[str, Any]] = {"pixels": {"residual": "none"}, "pixels and metadata": {}}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(repeats + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                extract(clip, frames=f"uniform:{frames}", **way)
                if turn:
                    times[name].append(time.perf_counter() - start)
    return {
        "clip": f"{seconds} s of H.264, {side[0]} x {side[1]}, {frames} frames",
        "cores": os.cpu_count(),
        "seconds": {name: statistics.median(values) for name, values in times.items()},
    }


def current_commit() -> str:
    """Return the commit that is checked out, marked where files differ from it; unknown outside a repository."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=330.0, help="for all of it; the building of models counts")
    parser.add_argument("--compile", choices=("both", "on", "off"), default="both", help="the decoder's layers")
    parser.add_argument("--commit", help="what is measured, where the checkout does not know it")
    parser.add_argument("--out", type=Path, default=Path("bench/results/gpu.json"))
    options = parser.parse_args()
    begin = time.monotonic()
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    if cuda and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu with tiny models shows that the script works")
    dtype = torch.bfloat16 if cuda else torch.float32
    ceilings = measure_ceilings(device, dtype)
    print(
        f"matrix products {ceilings['flops'] / 1e12:.2f} TFLOP/s, copying {ceilings['bytes_per_second'] / 1e9:.0f} GB/s"
    )
    size = {"seconds": 60, "side": (1280, 720)} if cuda else {"seconds": 2, "side": (320, 176)}
    result: dict[str, Any] = {
        "complete": False,
        "commit": options.commit or current_commit(),
        "ceilings": ceilings,
        "methods": measure_methods(SHAPES[0] if cuda else (4, 9, 64), dtype, device, options.repeats),
        "models": {},
    }
    try:
        result["extraction"] = measure_extraction(options.frames, **size)
    except Exception as error:  # a machine for models may lack what videos need
        result["extraction"] = {"error": f"{type(error).__name__}: {error}"}
    print(f"extraction: {result['extraction']}")
    for row in result["methods"]:
        print(f"{row['method']}: {1e3 * row['seconds']:.2f} ms, {row['calls']}")
    ways = [on for on, name in ((False, "off"), (True, "on")) if options.compile in (name, "both")]

    def save(title: str, record: dict[str, Any]) -> None:
        result["models"][title] = record
        write(result, options.out)

    left = options.seconds - (time.monotonic() - begin)
    for number, name in enumerate(options.models):
        spent = options.seconds - left
        shares = [
            (on, spent + left * (number + (turn + 1) / len(ways)) / len(options.models)) for turn, on in enumerate(ways)
        ]
        try:
            run_model(name, options, ceilings, begin, shares, save)
        except Exception as error:
            print(f"{name} fails:\n{traceback.format_exc()}", flush=True)
            known = result["models"].get(name, {"failures": {}})
            save(name, {**known, "failures": {**known["failures"], "model": f"{type(error).__name__}: {error}"}})
        release_memory()
    again = measure_ceilings(device, dtype)
    result["ceiling_drift"] = again["flops"] / ceilings["flops"]
    print(f"\nthe ceiling at the end: {result['ceiling_drift']:.3f} of that at the beginning")
    write({**result, "complete": True, "seconds": time.monotonic() - begin}, options.out)
    if "error" in result["extraction"] or any(record["failures"] for record in result["models"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
