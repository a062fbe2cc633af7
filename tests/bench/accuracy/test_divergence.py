"""Divergence next to accuracy: the same marks as `compress accuracy`, joined runs, and orders that agree or do not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.accuracy.divergence import ask, correlate, join, summarise, tables
from compress.accuracy.clips import Clip
from compress.accuracy.measure import Job, cell_name, examine
from compress.accuracy.methods import IDENTITY, choose
from tests.compress.accuracy.conftest import Examinee


def test_answers_are_those_of_the_accuracy_run(examinee: Examinee, clip: Clip, tmp_path: Path) -> None:
    job = Job(cache=tmp_path, split="test", methods=choose("random,fastv"), retentions=(0.1,))
    found, divergences = ask(examinee, clip, job)
    assert found.cells.keys() == examine(examinee, clip, job).cells.keys()
    for name, cell in examine(examinee, clip, job).cells.items():
        assert found.cells[name].right == pytest.approx(cell.right)
    identity = divergences[cell_name(IDENTITY, 1.0)]
    assert max(identity["kl"]) == 0 and min(identity["agree"]) == 1
    assert max(divergences["random@0.1"]["kl"]) > 0
    rows = {row["method"]: row for row in summarise([found], [divergences])}
    assert rows["everything"]["kl_mean"] == 0 and rows["everything"]["corrected"] == 1
    assert rows["random"]["kl_90"] >= rows["random"]["kl_median"]


def test_runs_of_the_same_clips_are_joined_and_others_refused(examinee: Examinee, clip: Clip, tmp_path: Path) -> None:
    files = []
    for name in ("stride", "frames"):
        job = Job(cache=tmp_path, split="test", methods=choose(name), retentions=(0.1,))
        examined, divergences = ask(examinee, clip, job)
        files.append(tmp_path / name)
        files[-1].write_text(json.dumps({"examined": asdict(examined), "divergences": divergences}) + "\n")
    found, divergences = join(files)
    assert {"stride@0.1", "frames@0.1"} <= found[0].cells.keys() & divergences[0].keys()
    other = json.loads(files[1].read_text())
    other["examined"]["seed"] += 1
    files[1].write_text(json.dumps(other) + "\n")
    with pytest.raises(ValueError, match="differ"):
        join(files)


def _rows(kl: list[float]) -> list[dict[str, Any]]:
    return [
        {"method": name, "retention": 0.1, "corrected": accuracy, "kl_mean": far, "agree": 1 - far}
        for name, accuracy, far in zip(("stride", "evs", "rpm", "everything"), (0.3, 0.6, 0.9, 1.0), kl, strict=True)
    ]


def test_orders_agree_or_are_reversed() -> None:
    same, reversed_ = _rows([0.6, 0.3, 0.1, 0.0]), _rows([0.1, 0.3, 0.6, 0.0])
    assert correlate(same, 0.1) == {"kl": 1.0, "agree": 1.0}
    assert correlate(reversed_, 0.1) == {"kl": -1.0, "agree": -1.0}
    assert correlate(reversed_, 0.1, kept="tokens_out") == {"kl": -1.0, "agree": -1.0}  # rpm keeps patches
    table = "\n".join(tables({"0": same, "1": reversed_}, [0.1]))
    assert "| `rpm` | 90.0 / 90.0 | 1 / 1 | 0.100 / 0.600 | 1 / 3 | 90.0 / 40.0 | 1 / 3 |" in table
    assert "everything" not in table
