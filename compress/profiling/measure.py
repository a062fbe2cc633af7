"""Savings by compression on a model: time per stage, tokens, operations and memory, case by case, interleaved."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from compress.attach import Attachable
from compress.flops import LanguageModel
from compress.models.adapters.adapter import adapt
from compress.plan import MergePlan
from compress.profiling.timing import COMPRESS, DECODER, PROJECTOR, RPM, TOWER, StageTimer
from compress.stage import Compression, Signals

STAGES = (TOWER, PROJECTOR, RPM, COMPRESS, DECODER)
TTFT = "ttft"
OTHER = "other"
TTFT_CONTAINS = (
    "TTFT: wall time of generate(max_new_tokens=1) on prepared inputs, that is vision tower, projector, compression "
    "(signals, planning, merging), language-model prefill, output head and the overhead of generate; not in it are "
    "reading and resizing the video and tokenising"
)


@dataclass(frozen=True, kw_only=True)
class Null(Attachable):
    """Null method, which keeps every token: the cost of the hooks only.

    Attributes:
        signals: none are read, so that none are measured.
    """

    signals: ClassVar[tuple[str, ...]] = ()

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """Return the identity."""
        count = tokens.shape[0] * tokens.shape[1]
        plan = MergePlan.identity(count, device=tokens.device)
        return Compression(method="null", plan=plan, frames=tokens.shape[0], nominal=count)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Case to measure.

    Attributes:
        name: of the row.
        compressor: None for the plain model.
        retention: nominal.
    """

    name: str
    compressor: Any
    retention: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A case, in medians over its repeats.

    Attributes:
        name: of the case.
        retention: nominal.
        tokens_in: visual tokens of the prompt.
        tokens_out: those that enter the language model.
        tokens_inner: those after the merge inside it; as tokens_out without one.
        merge_layer: the decoder layer before which that is; None without one.
        patches: share of patches that the encoder sees.
        seconds: per stage, with ttft and other (ttft less the stages).
        decode: seconds per further token.
        macs: multiply-accumulates of the prefill over visual tokens (InfoMerge, eqs. 13-16).
        memory: largest bytes allocated on the accelerator, 0 elsewhere.
        spread: 10th and 90th percentile of ttft.
    """

    name: str
    retention: float
    tokens_in: int
    tokens_out: int
    tokens_inner: int
    merge_layer: int | None
    patches: float
    seconds: Mapping[str, float]
    decode: float
    macs: float
    memory: int
    spread: tuple[float, float]


def measure_cases(
    model: Any,
    inputs: Mapping[str, Tensor],
    meta: Any,
    cases: Sequence[Case],
    *,
    repeats: int = 5,
    warmup: int = 1,
    new_tokens: int = 8,
    limit: float = math.inf,
    progress: Callable[[str, list[Measurement]], None] | None = None,
) -> list[Measurement]:
    """Measure cases in turns, so that a slow moment of the machine affects all of them.

    Args:
        model: a supported model.
        inputs: of ``generate``, for one video.
        meta: its metadata.
        cases: what to measure.
        repeats: measured rounds.
        warmup: rounds before them.
        new_tokens: further tokens by which decoding is timed; 0 leaves it out.
        limit: seconds after which no round begins that may not end by then; the first measured one always does.
        progress: called after every round with a line and what is known so far.

    Returns:
        A measurement per case.
    """
    start = time.monotonic()
    runs: list[list[dict[str, Any]]] = [[] for _ in cases]
    found: list[Measurement] = []
    longest = 0.0
    for turn in range(warmup + repeats):
        begin = time.monotonic()
        if begin - start + longest > limit and (found or turn < warmup):
            continue
        for case, record in zip(cases, runs, strict=True):
            figures = _measure_once(model, inputs, meta, case, new_tokens=new_tokens if turn >= warmup else 0)
            if turn >= warmup:
                record.append(figures)
        if turn >= warmup:
            found = [_summarise(model, case, record) for case, record in zip(cases, runs, strict=True)]
        longest = max(longest, time.monotonic() - begin)
        if progress is not None:
            warming = turn < warmup
            number, count = (turn + 1, warmup) if warming else (turn + 1 - warmup, repeats)
            progress(f"{'warm-up round' if warming else 'round'} {number} of {count}", found)
    return found


def _measure_once(
    model: Any, inputs: Mapping[str, Tensor], meta: Any, case: Case, *, new_tokens: int
) -> dict[str, Any]:
    device = next(model.parameters()).device
    timer = StageTimer(device)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with ExitStack() as stack:
        session = None if case.compressor is None else stack.enter_context(case.compressor.attach(model, meta))
        if session is not None:
            session.timer = timer.stage
        adapter = adapt(model) if session is None else session.adapter
        with timer.watch(adapter):
            ttft = _seconds(model, inputs, device, 1)
            stages = timer.read()
        memory = torch.cuda.max_memory_allocated(device) if cuda else 0
        decode = 0.0
        if new_tokens:
            decode = max(_seconds(model, inputs, device, 1 + new_tokens) - ttft, 0.0) / new_tokens
        tokens = sum(len(video.index) for video in adapter.locate(inputs["input_ids"], (), inputs))
        result = session.results[0] if session is not None and session.results else None
        inner = session.inside[0] if session is not None and session.inside else None
        layers = None if session is None else session.layer_tokens
    patches = 1.0
    if result is not None and result.before_encoder is not None:
        patches = result.before_encoder.plan.retention
    elif result is not None and result.inside_encoder is not None:
        patches = result.inside_encoder.retention
    out = tokens if result is None else result.tokens_out
    return {
        "tokens_in": tokens if result is None else result.tokens_in,
        "tokens_out": out,
        "tokens_inner": out if inner is None else inner.achieved,
        "patches": patches,
        "seconds": {**stages, TTFT: ttft, OTHER: ttft - sum(stages.values())},
        "decode": decode,
        "memory": memory,
        "layer_tokens": [out] * len(adapter.layers) if layers is None else layers,
        "merge_layer": None if session is None or inner is None else session.compressor.merge_layer,
    }


@torch.inference_mode()
def _seconds(model: Any, inputs: Mapping[str, Tensor], device: torch.device, tokens: int) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _summarise(model: Any, case: Case, runs: Sequence[Mapping[str, Any]]) -> Measurement:
    names = {name for run in runs for name in run["seconds"]}
    ttft = sorted(run["seconds"][TTFT] for run in runs)
    last = runs[-1]
    size = LanguageModel.of(model.config.text_config)
    return Measurement(
        name=case.name,
        retention=case.retention,
        tokens_in=last["tokens_in"],
        tokens_out=last["tokens_out"],
        tokens_inner=last["tokens_inner"],
        merge_layer=last["merge_layer"],
        patches=last["patches"],
        seconds={name: statistics.median(run["seconds"].get(name, 0.0) for run in runs) for name in sorted(names)},
        decode=statistics.median(run["decode"] for run in runs),
        macs=float(size.prefill_layers(last["layer_tokens"])),
        memory=max(run["memory"] for run in runs),
        spread=(ttft[len(ttft) // 10], ttft[-1 - len(ttft) // 10]),
    )
