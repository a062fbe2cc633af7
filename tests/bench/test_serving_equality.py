"""The table of served answers next to those of `attach`: whole, within what it claims, and as the page gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress.errors import ConfigError
from compress.methods import METHODS
from compress.serving.vllm.settings import ServedMethod

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "qwen2.5-vl": "Qwen2.5-VL",
    "qwen3-vl": "Qwen3-VL",
    "qwen2-vl": "Qwen2-VL",
    "llava-onevision": "LLaVA-OneVision",
}
APART = "moved by compression"
WAYS = {
    "plain",
    "second request by prefix cache",
    "batch of unlike videos",
    "chunked prefill",
    "engine in its own process",
}


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, dict[str, float]]]:
    """Read the table."""
    found: dict[str, Any] = json.loads((ROOT / "bench" / "results" / "serving_equality.json").read_text())["models"]
    return found


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


def test_every_served_method_is_measured_on_every_model_in_every_way(models: dict[str, Any]) -> None:
    assert list(models) == list(MODELS)
    for cases in models.values():
        assert sorted(cases) == sorted(["uncompressed", *served_methods()])
        for method, found in cases.items():
            assert set(found) == (WAYS if method == "uncompressed" else WAYS | {APART})


def test_the_page_gives_the_table(models: dict[str, dict[str, dict[str, float]]]) -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    for model, cases in models.items():
        differences = [value for found in cases.values() for way, value in found.items() if way != APART]
        apart = [found[APART] for found in cases.values() if APART in found]
        assert max(differences) < 1e-5
        assert min(apart) > 0.1
        row = f"| {MODELS[model]} | {len(apart)} | {len(WAYS)} | {max(differences):.1e} | {min(apart):.2f} |"
        assert row in page
