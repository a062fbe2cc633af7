"""Caches of an engine never give one video's answer for another, nor that of other settings."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

from compress.serving.vllm.processors import CompressingProcessor
from compress.serving.vllm.settings import ServedMethod
from tests.serving.engine import Job, Question, difference, run
from tests.serving.test_equality import EQUAL, OTHER


def test_other_packet_sizes_are_another_video(checkpoint: Callable[[str], str], records: dict[str, str]) -> None:
    """The same frames twice, in one engine with all caches on."""
    questions = tuple(Question(records=(records[name],)) for name in ("digits", "resized"))
    job = Job(checkpoint=checkpoint("qwen2.5-vl"), questions=questions, method="btm")
    served_job = Job(**{**vars(job), "options": {"enable_prefix_caching": True}, "rounds": ((0, 1),) * 2})
    (expected,), (served,) = run(job), run(served_job)
    for answers in served.answers:
        for one, other in zip(expected.answers[0], answers, strict=True):
            assert difference(one, other) < EQUAL
        assert abs(answers[0].logprobs[0] - answers[1].logprobs[0]).max() > OTHER / 10


class PlainHashes:
    def _get_mm_hashes(self, inputs: Any) -> dict[str, list[str]]:
        return {"video": ["a", "b"], "image": ["c"]}


class Processor(CompressingProcessor, PlainHashes):
    def __init__(self, served: ServedMethod) -> None:
        self.served = served
        config = SimpleNamespace(mm_hasher_algorithm="sha256")
        self.info = SimpleNamespace(ctx=SimpleNamespace(get_mm_config=lambda: config))


def test_other_settings_are_another_key() -> None:
    methods = [
        ServedMethod(method="infomerge", retention=0.1),
        ServedMethod(method="infomerge", retention=0.2),
        ServedMethod(method="infomerge", retention=0.1, settings={"tau": "2"}),
        ServedMethod(method="infomerge", retention=0.1, saliency="none"),
        ServedMethod(method="btm", retention=0.1),
        ServedMethod(method="btm", retention=0.1, map="innovation"),
    ]
    hashes = [Processor(served)._get_mm_hashes(None) for served in methods]
    assert len({one["video"][0] for one in hashes}) == len(methods)
    assert hashes[0]["video"][0] != hashes[0]["video"][1]
    assert all(one["image"] == ["c"] for one in hashes), "images are not compressed"
    assert Processor(methods[0])._get_mm_hashes(None) == hashes[0]
