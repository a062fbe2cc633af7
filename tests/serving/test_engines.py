"""Engines that are refused, and what a server says of a version that it was not made for."""

from __future__ import annotations

import logging
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


QWEN3 = "Qwen3VLForConditionalGeneration"


def configured(video: dict[str, Any] | None) -> dict[str, Any]:
    """Let vLLM configure a served architecture with options of its loader, and return what it made of them."""
    register()
    multimodal = SimpleNamespace(media_io_kwargs={} if video is None else {"video": video})
    chosen = MODELS_CONFIG_MAP[FAMILIES[QWEN3].served]
    chosen.verify_and_update_model_config(SimpleNamespace(multimodal_config=multimodal))
    found: dict[str, Any] = multimodal.media_io_kwargs["video"]
    return found


def test_the_model_runner_is_chosen_for_our_architectures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(V2_RUNNER, "1")
    configured(None)
    assert os.environ[V2_RUNNER] == "1", "what the user chose stays"
    monkeypatch.delenv(V2_RUNNER)
    configured(None)
    assert os.environ.pop(V2_RUNNER) == "0"
    assert QWEN3 not in MODELS_CONFIG_MAP


@pytest.mark.parametrize("given", [None, {}, {"video_backend": "codecmeta"}])
def test_frames_are_chosen_as_the_family_does_unless_a_rule_is_named(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any] | None
) -> None:
    monkeypatch.setenv(V2_RUNNER, "0")
    assert configured(given) == {"video_backend": "codecmeta", "sampling": "qwen3_vl"}
    assert configured({**(given or {}), "sampling": "opencv", "num_frames": 8})["sampling"] == "opencv"


def test_an_option_that_the_rule_does_not_read_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(V2_RUNNER, "0")
    with pytest.raises(ConfigError, match=r"with sampling qwen3_vl reads no 'num_frames'; allowed are .*max_frames"):
        configured({"num_frames": 16})


def test_another_loader_stays_and_the_log_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(V2_RUNNER, "0")
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    with caplog.at_level(logging.INFO, "vllm.compress"):
        assert configured({"video_backend": "opencv", "num_frames": 16}) == {
            "video_backend": "opencv",
            "num_frames": 16,
        }
    assert "videos are read by the loader opencv, without codec metadata" in caplog.text


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version.installed_version() == version.SUPPORTED
    version.check_version()
    monkeypatch.setattr(version, "SUPPORTED", "0.99.0")
    with pytest.raises(ConfigError, match=r"vLLM 0\.32\.0 is installed; compress serves with vLLM 0\.99\.0"):
        version.check_version()
