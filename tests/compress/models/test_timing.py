"""Seconds per stage: parts of a whole, whichever hooks come first."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.metom import RPM
from compress.models.timing import RPM as PLANNING
from compress.models.timing import TOWER, StageTimer
from tests.compress.models.material import BACKBONES, inputs_of, sharp_model, video_meta

SLOW = 0.5
"""Seconds of planning, far more than a tiny tower takes."""


@pytest.mark.parametrize("backbone", BACKBONES)
def test_planning_is_no_part_of_the_tower_and_takes_nothing_from_it(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    plan = RPM.before_encoder

    def plan_slowly(self: RPM, density: Any) -> Any:
        time.sleep(SLOW)
        return plan(self, density)

    monkeypatch.setattr(RPM, "before_encoder", plan_slowly)
    timer = StageTimer(torch.device("cpu"))
    with RPM().attach(model, meta) as session:
        session.timer = timer.stage
        with timer.watch(session.adapter):
            start = time.perf_counter()
            model.generate(**inputs, max_new_tokens=1, do_sample=False)
            whole = time.perf_counter() - start
    seconds = timer.read()
    assert seconds[PLANNING] >= SLOW
    assert 0 < seconds[TOWER] < SLOW
    assert sum(seconds.values()) < whole
