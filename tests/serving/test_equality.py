"""A served model answers as `attach` does: the same tokens, the same log-probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

from compress.errors import ConfigError
from compress.methods import METHODS
from compress.serving.vllm.settings import ServedMethod
from tests.serving.checkpoints import MODELS
from tests.serving.engine import Job, Outcome, Question, difference, run

EQUAL = 1e-5
"""Difference of log-probabilities in float32 that counts as none."""
OTHER = 0.1
"""Difference that counts as another answer."""
FIRST = "qwen2.5-vl"


def served_methods() -> list[str]:
    """List the methods that can be served."""
    found = []
    for name in METHODS:
        try:
            ServedMethod(method=name, retention=0.25)
        except ConfigError:
            continue
        found.append(name)
    return found


def compare(plain: Outcome, served: Outcome) -> float:
    """Return the largest difference over all answers."""
    (expected,) = plain.answers
    pairs = [pair for found in served.answers for pair in zip(expected, found, strict=True)]
    assert [found.prompt for _, found in pairs] == [one.prompt for one, _ in pairs], "the same tokens enter"
    return max(difference(one, found) for one, found in pairs)


@pytest.mark.parametrize("model", MODELS)
def test_methods(model: str, checkpoint: Callable[[str], str], question: Question) -> None:
    names = served_methods() if model == FIRST else ["infomerge", "btm"]
    jobs = [Job(checkpoint=checkpoint(model), questions=(question,), method=name) for name in (None, *names)]
    expected = run(*jobs)
    served = run(*(replace(job, options={}) for job in jobs))
    found = {
        job.method or "uncompressed": compare(one, other)
        for job, one, other in zip(jobs, expected, served, strict=True)
    }
    plain = served[0].answers[0][0]
    apart = {
        job.method: float(abs(one.answers[0][0].logprobs[0] - plain.logprobs[0]).max())
        for job, one in zip(jobs[1:], served[1:], strict=True)
    }
    assert {name: value for name, value in found.items() if not value < EQUAL} == {}
    assert {name: value for name, value in apart.items() if not value > OTHER} == {}, "compression changes answers"
    for job, one in zip(jobs[1:], served[1:], strict=True):
        assert f"compress: {job.method} keeps" in one.log


@pytest.mark.parametrize("model", ["qwen2.5-vl", "qwen3-vl", "llava-onevision"])
def test_ways_of_running(
    model: str, checkpoint: Callable[[str], str], question: Question, records: dict[str, str]
) -> None:
    """Chunks of a prompt, beginnings that are cached, batches of unlike videos, an engine in its own process."""
    others = Question(records=(records["others"],), text="and here, what is it that can be seen?", opening="so. ")
    bare = replace(question, codec=False, text="why?")
    batch = (question, others, bare)
    job = Job(checkpoint=checkpoint(model), questions=batch, method="infomerge")
    (expected,) = run(job)
    ways = {
        "batch": {},
        "chunks of 32": {"max_num_batched_tokens": 32, "enable_chunked_prefill": True},
        "chunks of 48": {"max_num_batched_tokens": 48, "enable_chunked_prefill": True},
        "cached": {"enable_prefix_caching": True, "block_size": 32},
        "not cached": {"enable_prefix_caching": False, "mm_processor_cache_gb": 0},
    }
    jobs = [replace(job, options=options, rounds=((0, 1, 2),) * 2) for options in ways.values()]
    jobs.append(replace(job, options={}, environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}))
    found = {way: compare(expected, outcome) for way, outcome in zip((*ways, "own process"), run(*jobs), strict=True)}
    assert {way: value for way, value in found.items() if not value < EQUAL} == {}


def test_several_videos_in_a_prompt(checkpoint: Callable[[str], str], records: dict[str, str]) -> None:
    """No reference by `attach` here: each order gives its own answer, and chunks give the same."""
    pair = Question(records=(records["digits"], records["others"]))
    swapped = Question(records=(records["others"], records["digits"]))
    job = Job(
        checkpoint=checkpoint("qwen2.5-vl"), questions=(pair, swapped), method="btm", options={}, rounds=((0, 1),) * 2
    )
    whole, chunks = run(job, replace(job, options={"max_num_batched_tokens": 40, "enable_chunked_prefill": True}))
    first, second = whole.answers[0]
    assert abs(first.logprobs[0] - second.logprobs[0]).max() > 100 * EQUAL
    for answers in (whole.answers[1], *chunks.answers):
        assert difference(first, answers[0]) < EQUAL
        assert difference(second, answers[1]) < EQUAL


def test_without_metadata_the_method_does_without(checkpoint: Callable[[str], str], question: Question) -> None:
    bare = replace(question, codec=False)
    jobs = [Job(checkpoint=checkpoint(FIRST), questions=(bare,), method=name) for name in ("infomerge", "cover")]
    for one, other in zip(run(*jobs), run(*(replace(job, options={}) for job in jobs)), strict=True):
        assert compare(one, other) < EQUAL


def test_patches_merge_before_the_encoder(checkpoint: Callable[[str], str], question: Question) -> None:
    """RPM changes no count of tokens, and the saliency that is read behind it is that of merged patches."""
    plain = Job(checkpoint=checkpoint("qwen2-vl"), questions=(question,), method="infomerge")
    jobs = [replace(plain, rpm={"target_keep": "0.05"}, method=name) for name in ("infomerge", "btm")]
    expected = run(*jobs)
    *served, alone = run(*(replace(job, options={}) for job in (*jobs, plain)))
    for one, other in zip(expected, served, strict=True):
        assert compare(one, other) < EQUAL
    assert "rpm: texture" in served[0].log
    # neighbours resemble each other: merged, even to a twentieth, they move the answer by 0.009
    assert abs(served[0].answers[0][0].logprobs[0] - alone.answers[0][0].logprobs[0]).max() > 100 * EQUAL


def test_saliency_can_be_left_out(checkpoint: Callable[[str], str], question: Question) -> None:
    job = Job(checkpoint=checkpoint(FIRST), questions=(question,), method="infomerge", attach={"saliency": "none"})
    (expected,) = run(job)
    (served,) = run(replace(job, overrides={"saliency": "none"}, options={}))
    assert compare(expected, served) < EQUAL
    assert "saliency: distance to frame mean" in served.log
