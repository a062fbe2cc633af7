"""Clips of the benchmark are recognised by what they show, and asked their own questions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import codecmeta
from compress.accuracy.clips import Clip
from compress.accuracy.recognition import own_questions
from compress.errors import CompressError

SPRITES = Path(__file__).resolve().parents[3] / "data" / "sprites"


def test_a_clip_of_the_repository_has_the_questions_that_lie_next_to_it() -> None:
    meta = codecmeta.extract(SPRITES / "sprites_07.mp4", frames="uniform:16", residual="none")
    asked = json.loads((SPRITES / "questions.json").read_text())["sprites_07.mp4"]
    assert [one.text for one in own_questions(meta, "a/sprites_07.mp4")] == [one["question"] for one in asked]
    for name in ("sprites_11.mp4", "sprites.mp4", "sprites_123456789012.mp4"):
        with pytest.raises(CompressError, match="not a clip of the benchmark"):
            own_questions(meta, name)
    assert meta.frames is not None
    for other in (None, meta.frames[::-1].copy()):
        with pytest.raises(CompressError, match="not a clip"):
            own_questions(replace(meta, frames=other), "sprites_07.mp4")


def test_a_clip_of_the_cache_has_its_questions(clip: Clip) -> None:
    assert own_questions(clip.meta, f"val/{clip.seed:06d}.mp4") == clip.questions
