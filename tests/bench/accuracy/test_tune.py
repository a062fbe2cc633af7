"""Settings are varied one at a time, and only what is better beyond doubt and costs nothing is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.accuracy import tune as tuning
from bench.accuracy.measure import FULL, Cell, Examined, Job, cell_name
from bench.accuracy.methods import MEASURED
from bench.accuracy.questions import FAMILIES
from bench.accuracy.statistics import Figure
from bench.accuracy.tune import AXES, Axis, Trial, choose, defaults, tune, vary

HELD = np.zeros((16, 7, 7), bool)
JOB = Job(cache=Path("unused"), split="val", methods=(), retentions=(0.3, 0.1))


@pytest.mark.parametrize("name", AXES)
def test_every_value_is_allowed_and_differs_from_the_default(name: str) -> None:
    method = MEASURED[name]
    plain = method.build(0.3, seed=0, draw=0, occupied=HELD)
    for axis in AXES[name]:
        for value, changed in vary(method, axis).items():
            built = changed.build(0.3, seed=0, draw=0, occupied=HELD)
            assert built != plain or changed.map != method.map, (axis.field, value)
            assert changed.name == f"{name}:{axis.field}={value}"
    assert {axis.field for axis in AXES[name]} <= set(defaults(method))


def trial(value: str, accuracy: float, low: float) -> Trial:
    figure = Figure(value=accuracy, low=accuracy, high=accuracy)
    return Trial(value=value, accuracy=figure, minus_default=Figure(value=0.1, low=low, high=1), kept=0.1, macs=1)


def test_only_what_is_surely_better_is_chosen() -> None:
    axis = Axis(field="fold", values=("a", "b", "c"))
    trials = [trial("a", 0.9, -0.01), trial("b", 0.7, 0.01), trial("c", 0.8, 0.02)]
    assert choose(axis, trials) == "c"
    assert choose(axis, trials[:1]) is None
    assert choose(Axis(field="layers", values=("a",), spends=True), trials) is None


def test_a_better_setting_is_found_and_tried_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers in which two settings help, one of them by more, and one harms."""
    gain = {"metom:fold=core": 0.3, "metom:map=texture": 0.2, "metom:refill=yes": -0.2, "metom:chosen": 0.4}
    spending = {"metom:merge_percent=0": 0.4}

    def fake(job: Job, count: int, **_: Any) -> list[Examined]:
        rng = np.random.default_rng(0)
        found = []
        for seed in range(count):
            luck = rng.random(len(FAMILIES))
            cells = {FULL: Cell(right=[1.0] * len(FAMILIES), exact=[1.0] * len(FAMILIES), account=None)}
            for method, retention in job.cells:
                rate = 0.5 + gain.get(method.name, 0) + spending.get(method.name, 0)
                account = {"tokens_in": 784.0, "tokens_out": 784 * retention, "macs": 1.0}
                right = (luck < rate).astype(float).tolist()
                cells[cell_name(method, retention)] = Cell(right=right, exact=right, account=account)
            found.append(Examined(seed=seed, families=list(FAMILIES), cells=cells))
        return found

    monkeypatch.setattr(tuning, "measure", fake)
    monkeypatch.setattr(tuning, "describe", lambda *_: {})
    record = tune(MEASURED["metom"], JOB, 60, workers=1)
    assert record["chosen"] == {"fold": "core", "map": "texture"}
    assert record["together"]["minus_default"]["value"] == pytest.approx(0.4, abs=0.06)
    trials = {(axis["field"], one["value"]): one for axis in record["axes"] for one in axis["trials"]}
    assert trials["refill", "yes"]["minus_default"]["high"] < 0
    assert trials["merge_percent", "0"]["minus_default"]["low"] > 0
    assert trials["fold", "size"]["minus_default"]["value"] == 0
    assert trials["fold", "core"]["kept"] == pytest.approx(0.2)


def test_nothing_is_chosen_among_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(job: Job, count: int, **_: Any) -> Sequence[Examined]:
        right = [1.0, 0.0] * (len(FAMILIES) // 2)
        cell = Cell(right=right, exact=right, account={"tokens_in": 784.0, "tokens_out": 78.0, "macs": 1.0})
        names = [FULL, *(cell_name(method, share) for method, share in job.cells)]
        return [Examined(seed=seed, families=list(FAMILIES), cells=dict.fromkeys(names, cell)) for seed in range(count)]

    monkeypatch.setattr(tuning, "measure", fake)
    monkeypatch.setattr(tuning, "describe", lambda *_: {})
    record = tune(MEASURED["infomerge"], JOB, 10, workers=1)
    assert record["chosen"] == {} and "together" not in record
