"""Settings are varied one at a time, and only what is better beyond doubt and costs nothing is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.accuracy import tune as tuning
from bench.accuracy.tune import AXES, Axis, Trial, choose, defaults, tune, vary
from compress.accuracy.measure import FULL, Cell, Examined, Job, cell_name
from compress.accuracy.methods import MEASURED
from compress.accuracy.questions import FAMILIES
from compress.accuracy.statistics import Figure

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
        left_out = set(axis.values) - set(vary(method, axis))
        assert left_out <= {defaults(method)[axis.field]}


def trial(value: str, accuracy: float, low: float) -> Trial:
    figure = Figure(value=accuracy, low=accuracy, high=accuracy)
    return Trial(value=value, accuracy=figure, minus_default=Figure(value=0.1, low=low, high=1), kept=0.1, macs=1)


def test_only_what_is_surely_better_is_chosen() -> None:
    axis = Axis(field="fold", values=("a", "b", "c"))
    trials = [trial("a", 0.9, -0.01), trial("b", 0.7, 0.01), trial("c", 0.8, 0.02)]
    assert choose(axis, trials) == "c"
    assert choose(axis, trials[:1]) is None
    assert choose(Axis(field="layers", values=("a",), spends=True), trials) is None


def fake_measure(gain: Mapping[str, float]) -> Callable[..., list[Examined]]:
    """Answers in which settings add to the share of right ones, each for itself."""

    def measure(job: Job, count: int, **_: Any) -> list[Examined]:
        rng = np.random.default_rng(0)
        found = []
        for seed in range(count):
            luck = rng.random(len(FAMILIES))
            cells = {FULL: Cell(right=[1.0] * len(FAMILIES), exact=[1.0] * len(FAMILIES), account=None)}
            for method, retention in job.cells:
                set_now = {**method.settings, "map": method.map}
                rate = 0.4 + sum(gain.get(f"{field}={value}", 0) for field, value in set_now.items())
                account = {"tokens_in": 784.0, "tokens_out": 784 * retention, "macs": 1.0}
                right = (luck < rate).astype(float).tolist()
                cells[cell_name(method, retention)] = Cell(right=right, exact=right, account=account)
            found.append(Examined(seed=seed, families=list(FAMILIES), cells=cells))
        return found

    return measure


def test_passes_go_on_around_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting helps by so much that the other two are seen only in the second pass, where one of them harms."""
    gain = {"fold=core": 0.3, "map=texture": 0.15, "refill=no": -0.3, "merge_percent=0": 0.4, "fold=size": 0.1}
    monkeypatch.setattr(tuning, "measure", fake_measure(gain))
    monkeypatch.setattr(tuning, "describe", lambda *_: {})
    record = tune(MEASURED["metom"], JOB, 60, workers=1, passes=3)
    assert record["chosen"] == {"fold": "core", "map": "texture"}
    first, second = record["passes"]
    assert first["chosen"] == record["chosen"] and second["chosen"] == {}
    assert second["accuracy"]["value"] == pytest.approx(0.85, abs=0.05)
    assert (second["defaults"]["fold"], second["defaults"]["map"]) == ("core", "texture")
    trials = {(axis["field"], one["value"]): one for axis in first["axes"] for one in axis["trials"]}
    assert trials["refill", "no"]["minus_default"]["high"] < 0
    assert trials["merge_percent", "0"]["minus_default"]["low"] > 0
    assert trials["fold", "core"]["kept"] == pytest.approx(0.2)
    again = {(axis["field"], one["value"]) for axis in second["axes"] for one in axis["trials"]}
    assert ("fold", "core") not in again and {("fold", "size"), ("fold", "mean"), ("map", "carried")} <= again
    assert len(tune(MEASURED["metom"], JOB, 60, workers=1, passes=1)["passes"]) == 1


def test_nothing_is_chosen_among_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(job: Job, count: int, **_: Any) -> Sequence[Examined]:
        right = [1.0, 0.0] * (len(FAMILIES) // 2)
        cell = Cell(right=right, exact=right, account={"tokens_in": 784.0, "tokens_out": 78.0, "macs": 1.0})
        names = [FULL, *(cell_name(method, share) for method, share in job.cells)]
        return [Examined(seed=seed, families=list(FAMILIES), cells=dict.fromkeys(names, cell)) for seed in range(count)]

    monkeypatch.setattr(tuning, "measure", fake)
    monkeypatch.setattr(tuning, "describe", lambda *_: {})
    record = tune(MEASURED["infomerge"], JOB, 10, workers=1, passes=3)
    assert record["chosen"] == {} and len(record["passes"]) == 1


def test_only_the_settings_named_are_varied_and_other_methods_stay_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "tuning.json"
    monkeypatch.setattr(tuning, "measure", fake_measure({"fold=core": 0.3}))
    monkeypatch.setattr(tuning, "describe", lambda *_: {})
    for name, fields in (("metom", "fold,refill"), ("infomerge", "d,fold")):
        told = f"tune --methods {name} --fields {fields} --clips 30 --jobs 1 --out {out}"
        monkeypatch.setattr("sys.argv", told.split())
        tuning.main()
    metom, infomerge = json.loads(out.read_text())
    assert (metom["method"], metom["chosen"]) == ("metom", {"fold": "core"})
    assert [axis["field"] for axis in metom["passes"][0]["axes"]] == ["fold", "refill"]
    assert [axis["field"] for axis in infomerge["passes"][0]["axes"]] == ["d"]
    with pytest.raises(ValueError, match="metom has none of the settings c, d"):
        tune(MEASURED["metom"], JOB, 10, workers=1, passes=1, fields=["d", "c"])
