"""Prefill and tower of a mid-size LLaVA-OneVision with random weights, compressed against uncompressed, on one thread.

    python -m bench.prefill_cpu [--repeats 5] [--out bench/results/prefill_cpu.json]

Ratios within one run, in CPU time of this process. Every round holds a plain run, and a case is compared with the plain
run of its own round; medians of these ratios are shown, so that a slow minute of the machine meets both sides. The file
is written after every round.
  prefill      decoder alone, at the retained fractions of InfoMerge
  null         all tokens kept: what the hooks cost; in pairs with plain runs of their own, in turns first and second
  compression  saliency, signals, planning and merging, as a share of the prefill time saved; saliency by SigLIP's
               pooling head, as in the paper, and by the attention that tokens receive, where there is no head: what the
               attention of the encoder's last layer takes more than in the plain run
  tower        SigLIP with half of the patches merged, projector included
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.infomerge import InfoMerge
from compress.metom import BTM, RPM
from compress.models.inputs.prompt import prepare
from compress.models.inputs.random_weights import ByteTokenizer, build_random
from compress.ops.saliency import PoolingHead
from compress.profiling.bench import describe, synthetic_meta
from compress.profiling.measure import TTFT_CONTAINS, Null

FRAMES = 20
TTFT = TTFT_CONTAINS.replace("wall time", "CPU time")
GOALS = {0.5: 2.3, 0.3: 4.0, 0.15: 7.5, 0.1: 11.0, 0.05: 17.0}


class ProcessTimer:
    """Seconds of this process per stage: other processes on the machine do not count."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def stage(self, name: str) -> Any:
        """Return a context that adds its time to a stage."""
        timer = self

        class Span:
            def __enter__(self) -> None:
                self.start = time.process_time()

            def __exit__(self, *_: object) -> None:
                timer.seconds[name] = timer.seconds.get(name, 0.0) + time.process_time() - self.start

        return Span()


def watch(model: Any, timer: ProcessTimer, stack: ExitStack) -> None:
    """Time decoder, tower, projector and, within the tower, the attention that saliency is taken from."""
    for name, module in (
        ("prefill", model.model.language_model),
        ("tower", model.model.vision_tower),
        ("last attention", model.model.vision_tower.encoder.layers[-1].self_attn),
        ("projector", model.model.multi_modal_projector),
    ):
        span = timer.stage(name)
        stack.callback(module.register_forward_pre_hook(lambda *_, span=span: span.__enter__()).remove)
        stack.callback(module.register_forward_hook(lambda *_, span=span: span.__exit__()).remove)


def random_head(model: Any) -> PoolingHead:
    """Build a pooling head of the tower's size; its weights do not matter for time."""
    vision = model.config.vision_config
    width, hidden = vision.hidden_size, vision.intermediate_size
    shapes = {
        "post_layernorm.weight": (width,),
        "post_layernorm.bias": (width,),
        "head.probe": (1, 1, width),
        "head.attention.in_proj_weight": (3 * width, width),
        "head.attention.in_proj_bias": (3 * width,),
        "head.attention.out_proj.weight": (width, width),
        "head.attention.out_proj.bias": (width,),
        "head.layernorm.weight": (width,),
        "head.layernorm.bias": (width,),
        "head.mlp.fc1.weight": (hidden, width),
        "head.mlp.fc1.bias": (hidden,),
        "head.mlp.fc2.weight": (width, hidden),
        "head.mlp.fc2.bias": (width,),
    }
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return PoolingHead.fold(weights, heads=vision.num_attention_heads)


@dataclass(frozen=True, kw_only=True)
class PrefillCase:
    """What to measure: a method, or None for the plain model, at a retention, with a pooling head or without."""

    compressor: Any = None
    retention: float = 1.0
    head: PoolingHead | None = None

    @property
    def scores_attention(self) -> bool:
        """Whether saliency is the attention that tokens receive."""
        return isinstance(self.compressor, InfoMerge) and self.head is None


def measure(
    model: Any, inputs: dict[str, Any], meta: Any, case: PrefillCase, run: Callable[[], Any]
) -> dict[str, float]:
    timer = ProcessTimer()

    def head(features: Tensor) -> tuple[Tensor, Tensor]:
        assert case.head is not None
        with timer.stage("saliency"):
            return case.head(features)

    with ExitStack() as stack:
        session = None
        if case.compressor is not None:
            pooling_head: Any = None if case.head is None else head
            session = stack.enter_context(case.compressor.attach(model, meta, pooling_head=pooling_head))
            session.timer = timer.stage
        watch(model, timer, stack)
        start = time.process_time()
        run()
        timer.seconds["ttft"] = time.process_time() - start
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
    head = random_head(model)
    cases = {"plain": PrefillCase()}
    for retention in GOALS:
        cases[f"infomerge {retention:g}"] = PrefillCase(
            compressor=InfoMerge(retention=retention), retention=retention, head=head
        )
    for retention in (0.5, 0.1):
        cases[f"by attention {retention:g}"] = PrefillCase(
            compressor=InfoMerge(retention=retention), retention=retention
        )
    for retention in (0.3, 0.1):
        cases[f"btm {retention:g}"] = PrefillCase(compressor=BTM(retention=retention), retention=retention)
    cases["rpm 0.5"] = PrefillCase(compressor=RPM(target_keep=0.5))
    null_case = PrefillCase(compressor=Null())

    @torch.inference_mode()
    def run() -> None:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)

    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in (*cases, "null")}
    hooks: list[float] = []
    record: dict[str, Any] = {}
    for turn in range(options.repeats + 1):
        found = {name: measure(model, inputs, meta, case, run) for name, case in cases.items()}
        for name, case in cases.items():
            if case.scores_attention:
                found[name]["saliency"] = found[name]["last attention"] - found["plain"]["last attention"]
        # The second of two runs finds warm caches, so they take turns.
        order = ("plain", "null") if turn % 2 else ("null", "plain")
        pair = {
            name: measure(model, inputs, meta, null_case if name == "null" else cases["plain"], run) for name in order
        }
        if turn:
            hooks.append((pair["null"]["prefill"] + pair["null"]["compress"]) / pair["plain"]["prefill"])
            for name, seconds in (found | {"null": pair["null"]}).items():
                rounds[name].append(seconds)
            record = describe([], model=options.config, device="cpu")
            record |= {"ttft": TTFT, "frames": options.frames, "repeats": turn} | summarise(cases, rounds, hooks)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(f"round {turn} of {options.repeats}", flush=True)
    show(record)


def summarise(
    cases: dict[str, PrefillCase], rounds: dict[str, list[dict[str, float]]], hooks: list[float]
) -> dict[str, Any]:
    """Return medians of the rounds, and of their ratios to the plain runs."""

    def median(name: str, *stages: str) -> float:
        return statistics.median(sum(one.get(stage, 0.0) for stage in stages) for one in rounds[name])

    def against_plain(name: str, ratio: Callable[[dict[str, float], dict[str, float]], float]) -> float:
        return statistics.median(ratio(plain, one) for plain, one in zip(rounds["plain"], rounds[name], strict=True))

    def share_of_saved(plain: dict[str, float], one: dict[str, float]) -> float:
        return (one["compress"] + one.get("saliency", 0.0)) / (plain["prefill"] - one["prefill"])

    rows = [
        {
            "case": name,
            "tokens": median(name, "tokens"),
            "prefill_seconds": median(name, "prefill"),
            "speed_up": against_plain(name, lambda plain, one: plain["prefill"] / one["prefill"]),
            "goal": GOALS[case.retention],
            "compress_seconds": median(name, "compress"),
            "saliency_seconds": median(name, "saliency"),
            "share_of_saved": against_plain(name, share_of_saved),
            "share_goal": 0.03,
            "first_token_seconds": median(name, "ttft"),
        }
        for name, case in cases.items()
        if name not in ("plain", "rpm 0.5")
    ]
    null = {
        "prefill_ratio": statistics.median(hooks),
        "prefill_ratios": hooks,
        "compress_share_of_prefill": median("null", "compress") / median("null", "prefill"),
        "goal": 1.03,
    }
    tower = {
        "patches": median("rpm 0.5", "patches"),
        "plain_seconds": median("plain", "tower", "projector"),
        "merged_seconds": median("rpm 0.5", "tower", "projector"),
        "planning_seconds_within": median("rpm 0.5", "rpm"),
        "speed_up": against_plain(
            "rpm 0.5",
            lambda plain, one: (plain["tower"] + plain["projector"]) / (one["tower"] + one["projector"]),
        ),
        "goal": 1.6,
    }
    plain = {"plain_prefill_seconds": median("plain", "prefill"), "plain_first_token_seconds": median("plain", "ttft")}
    return {**plain, "null": null, "cases": rows, "tower": tower}


def show(record: dict[str, Any]) -> None:
    """Print what was found."""
    null, tower = record["null"], record["tower"]
    print(f"plain prefill {record['plain_prefill_seconds']:.3f} s")
    print(f"null: {null['prefill_ratio']:.4f} of the plain prefill (goal 1.03), {min(null['prefill_ratios']):.3f} to "
          f"{max(null['prefill_ratios']):.3f}; the compression inside it "
          f"{100 * null['compress_share_of_prefill']:.2f} %")  # fmt: skip
    titles = ("case", "tokens", "prefill s", "x", "goal", "compr. s", "saliency", "of saved")
    widths = (16, 6, 9, 6, 5, 8, 8, 8)
    print(*(title.rjust(width) for title, width in zip(titles, widths, strict=True)))
    for row in record["cases"]:
        print(
            f"{row['case']:>16} {row['tokens']:6.0f} {row['prefill_seconds']:9.3f} {row['speed_up']:6.2f} "
            f"{row['goal']:>5} {row['compress_seconds']:8.4f} {row['saliency_seconds']:8.4f} "
            f"{row['share_of_saved']:8.2%}"
        )
    print(
        f"tower and projector with {tower['patches']:.0%} of patches: {tower['plain_seconds']:.3f} -> "
        f"{tower['merged_seconds']:.3f} s, {tower['speed_up']:.2f} x (goal 1.6), "
        f"planning {tower['planning_seconds_within']:.3f} s of it"
    )


if __name__ == "__main__":
    main()
