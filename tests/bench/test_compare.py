"""Plain forms keep the tokens of the methods that they are measured against."""

from __future__ import annotations

from typing import Any

import pytest

from bench import compare
from bench.compare import AGREEING, calls_of, measure
from compress.methods import METHODS


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a scene small enough for loops."""
    small = {"FRAMES": 16, "GRID": (8, 8), "WIDTH": 96, "PATCHES": (9, 9), "BLOCKS": 6, "ENCODER_WIDTH": 48, "KEYS": 24}
    for name, value in small.items():
        monkeypatch.setattr(compare, name, value)
    return compare.make_scene()


def test_every_method_has_a_row_for_every_stage_that_can_be_timed(scene: Any) -> None:
    timed = {"before_encoder", "inside_encoder", "before_llm", "inside_llm"}
    for name, entry in METHODS.items():
        assert set(calls_of(name, scene)) == timed & set(entry.stages), name


@pytest.mark.parametrize("name", [name for name in METHODS if name != "metom"])
def test_plain_forms_keep_the_same_tokens(name: str, scene: Any) -> None:
    for stage, calls in calls_of(name, scene).items():
        row = measure(name, stage, scene, calls, 1)
        assert row["tokens_out"] > 0
        assert row["ours_ms"] > 0
        assert row["same"] == 1, (name, stage)
        if name in AGREEING:
            assert compare._agreement(*calls[0](), *calls_of("random", scene)["before_llm"][0]())["same"] < 0.5
