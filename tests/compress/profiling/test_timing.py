"""Which stage a moment counts for: parts of a whole, whichever hooks come first."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.metom import RPM, MeToM
from compress.profiling.timing import COMPRESS, DECODER, TOWER, StageTimer
from compress.profiling.timing import RPM as PLANNING
from tests.compress.models.material import BACKBONES, inputs_of, sharp_model, video_meta

SLOW = 1000.0
"""Seconds of planning, by a clock that every reading moves on by one; far more than readings in a tower."""


class Clock:
    """A clock of the tests' own, so that a busy machine changes nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize("backbone", ["llava-onevision-tiny", "qwen2-vl-tiny"])
def test_planning_is_over_before_the_tower_begins(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1)
    monkeypatch.setattr(StageTimer, "_mark", lambda self: float(next(clock)))
    model, meta = sharp_model(backbone), video_meta()
    timer = StageTimer(torch.device("cpu"))
    with MeToM(layers=(0, 1)).attach(model, meta) as session, timer.watch(session.adapter):
        session.timer = timer.stage
        with torch.no_grad():
            model(**inputs_of(model, meta))
    spans: dict[str, Any] = {name: (start, end) for name, start, end, _ in timer._spans}
    assert spans[PLANNING][0] < spans[PLANNING][1] < spans[TOWER][0] < spans[TOWER][1]
    assert spans[TOWER][1] < spans[COMPRESS][0] < spans[COMPRESS][1] < spans[DECODER][0]
    seconds = timer.read()
    assert seconds[TOWER] == spans[TOWER][1] - spans[TOWER][0] > 0


def test_events_lie_on_the_stream_of_the_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        """Remembers where it was recorded."""

        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any = "of the current device") -> None:
            streams.append(stream)

        def elapsed_time(self, end: Event) -> float:
            return 1000.0

    streams: list[Any] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    timer = StageTimer(torch.device("cuda:1"))
    with timer.stage(PLANNING):
        pass
    assert streams == ["of cuda:1"] * 2
    assert timer.read() == {PLANNING: 1.0}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_planning_is_no_part_of_the_tower_and_takes_nothing_from_it(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    plan = RPM.before_encoder

    def plan_slowly(self: RPM, density: Any) -> Any:
        clock.now += SLOW
        return plan(self, density)

    clock = Clock()
    monkeypatch.setattr("compress.profiling.timing.time", clock)
    monkeypatch.setattr(RPM, "before_encoder", plan_slowly)
    timer = StageTimer(torch.device("cpu"))
    with RPM().attach(model, meta) as session:
        session.timer = timer.stage
        with timer.watch(session.adapter):
            start = clock.perf_counter()
            model.generate(**inputs, max_new_tokens=1, do_sample=False)
            whole = clock.perf_counter() - start
    seconds = timer.read()
    assert seconds[PLANNING] >= SLOW
    assert 0 < seconds[TOWER] < SLOW
    assert sum(seconds.values()) < whole
