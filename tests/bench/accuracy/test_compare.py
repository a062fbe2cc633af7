"""Weights compared with the package's: only requested families count, and differences are those of the same clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.accuracy import compare
from bench.accuracy.compare import restrict, subtract
from bench.accuracy.gather import read_run
from compress.accuracy.measure import Cell, Examined, Job
from compress.accuracy.questions import FAMILIES
from compress.accuracy.results import tabulate
from tests.compress.accuracy.fabricated import ABOUT, fabricate, make_job

JOB = make_job("btm,random", retentions=(0.3, 0.1))
RESULTS = fabricate(JOB)


def lose(results: list[Examined], family: str, cell: str) -> list[Examined]:
    """Return the same results, except that a cell answers nothing of a family."""
    found = []
    for one in results:
        right = [
            0.0 if kind == family else mark for kind, mark in zip(one.families, one.cells[cell].right, strict=True)
        ]
        found.append(replace(one, cells={**one.cells, cell: replace(one.cells[cell], right=right)}))
    return found


def test_other_families_leave_no_trace() -> None:
    kept = restrict(RESULTS, ("colour", "scene"))
    assert {kind for one in kept for kind in one.families} == {"colour", "scene"}
    assert restrict(lose(RESULTS, "digit", "btm@0.1"), ("colour", "scene")) == kept
    whole, part = (
        {(row.method, row.retention): row for row in tabulate(JOB, results, ABOUT)} for results in (RESULTS, kept)
    )
    for cell, row in part.items():
        assert row.families == {name: whole[cell].families[name] for name in ("colour", "scene")}
        assert row.macro.accuracy.value == pytest.approx(
            np.mean([score.accuracy.value for score in row.families.values()])
        )


def test_a_difference_is_one_of_shares_of_the_own_full_model() -> None:
    worse = lose(RESULTS, "colour", "btm@0.1")
    found = subtract(worse, RESULTS, "btm@0.1")
    own, theirs = (
        next(row for row in tabulate(JOB, results, ABOUT) if (row.method, row.retention) == ("btm", 0.1))
        for results in (worse, RESULTS)
    )
    assert found["macro"]["value"] == pytest.approx(own.macro.corrected.value - theirs.macro.corrected.value)
    assert found["colour"]["high"] < 0
    for name in FAMILIES[1:]:
        assert found[name] == {"value": 0, "low": 0, "high": 0}
    assert set(subtract(worse, RESULTS, "btm@0.3")) == {"macro", *FAMILIES}
    assert subtract(worse, RESULTS, "btm@0.3")["macro"] == {"value": 0, "low": 0, "high": 0}


def test_the_command_writes_both_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(job: Job, count: int, *, workers: int) -> list[Examined]:
        results = fabricate(job, clips=count)
        return results if job.weights is None else lose(results, "scene", "random@0.1")

    def describe(job: Job, results: list[Examined]) -> dict[str, Any]:
        return {"weights": str(job.weights), "questions": sum(len(one.families) for one in results)}

    monkeypatch.setattr(compare, "measure", measure)
    monkeypatch.setattr(compare, "describe", describe)
    files = [tmp_path / "new" / name for name in ("ours.jsonl", "shipped.jsonl")]
    told = f"--weights w --families scene,digit --clips 16 --methods btm,random --retention 0.3,0.1 --out {files[0]}"
    monkeypatch.setattr("sys.argv", ["compare", *told.split(), "--jobs", "1", "--shipped-out", str(files[1])])
    compare.main()
    ours, shipped = (read_run(file) for file in files)
    assert (ours["about"]["weights"], shipped["about"]["weights"]) == ("w", "None")
    assert ours["about"]["questions"] == shipped["about"]["questions"] == 32
    for row in ours["rows"]:
        lost = row["minus_shipped"]["scene"]["value"] < 0
        assert lost == ((row["method"], row["retention"]) == ("random", 0.1))
        assert row["minus_shipped"].keys() == {"macro", "scene", "digit"}
    assert all("minus_shipped" not in row for row in shipped["rows"])
    head, _, first, *table = capsys.readouterr().out.splitlines()
    assert head == "| method | shipped | other | other less shipped | digit | scene |"
    assert first == "| `everything`, 100 % | 100.0 | 100.0 | +0.0 (+0.0 to +0.0) | +0.0 | +0.0 |"
    assert [line.split(" | ")[0] for line in table] == [
        "| `btm`, 30 %",
        "| `btm`, 10 %",
        "| `random`, 30 %",
        "| `random`, 10 %",
    ]
    assert " | +0.0 | -" in table[-1]
    assert json.loads(files[0].read_text().splitlines()[0])["method"] == "everything"


def test_cells_keep_what_became_of_tokens() -> None:
    (one, *_) = restrict(RESULTS, ("order",))
    cell: Cell = one.cells["btm@0.1"]
    assert cell.account == RESULTS[0].cells["btm@0.1"].account
