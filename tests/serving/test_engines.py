"""Engines that are refused, and what a server says of a version that it was not made for."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

from vllm.model_executor.models.config import MODELS_CONFIG_MAP

from compress.errors import ConfigError
from compress.serving.vllm import register, version
from compress.serving.vllm.families import FAMILIES
from compress.serving.vllm.models import check_engine
from compress.serving.vllm.registration import V2_RUNNER


def engine(**changes: Any) -> Any:
    """Describe an engine as vLLM does, on one device and with nothing special."""
    found = {
        "parallel_config": SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=1),
        "speculative_config": None,
        "lora_config": None,
        "use_v2_model_runner": False,
        "compilation_config": SimpleNamespace(compile_mm_encoder=False),
    }
    return SimpleNamespace(**found | changes)


def test_a_plain_engine_is_served() -> None:
    check_engine(engine())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"parallel_config": SimpleNamespace(tensor_parallel_size=2, pipeline_parallel_size=1)},
            "tensor parallelism, in which every rank would plan by itself",
        ),
        (
            {"parallel_config": SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=2)},
            "pipeline parallelism",
        ),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"lora_config": object()}, "LoRA"),
        ({"use_v2_model_runner": True}, "VLLM_USE_V2_MODEL_RUNNER=0"),
        ({"compilation_config": SimpleNamespace(compile_mm_encoder=True)}, "compile_mm_encoder"),
    ],
)
def test_what_was_not_tried_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_engine(engine(**changes))


def test_the_model_runner_is_chosen_for_our_architectures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.setenv(V2_RUNNER, "1")
    chosen = MODELS_CONFIG_MAP[FAMILIES["Qwen3VLForConditionalGeneration"].served]
    chosen.verify_and_update_model_config(None)
    assert os.environ[V2_RUNNER] == "1", "what the user chose stays"
    monkeypatch.delenv(V2_RUNNER)
    chosen.verify_and_update_model_config(None)
    assert os.environ.pop(V2_RUNNER) == "0"
    assert "Qwen3VLForConditionalGeneration" not in MODELS_CONFIG_MAP


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version.installed_version() == version.SUPPORTED
    version.check_version()
    monkeypatch.setattr(version, "SUPPORTED", "0.99.0")
    with pytest.raises(ConfigError, match=r"vLLM 0\.32\.0 is installed; compress serves with vLLM 0\.99\.0"):
        version.check_version()
