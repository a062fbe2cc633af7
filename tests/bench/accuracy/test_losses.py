"""Where evidence is lost: paired differences by family, lost questions, and which cells hold what is asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.accuracy.losses import compare, draw, find_lost, keep_cells, show_evidence
from compress.accuracy.answering import Examinee
from compress.accuracy.clips import Clip
from compress.accuracy.drawing import KINDS
from compress.accuracy.questions import FAMILIES
from tests.compress.accuracy.fabricated import fabricate, make_job


def test_differences_are_paired_and_by_family() -> None:
    job = make_job("stride,random,infomerge", retentions=(0.1,))
    results = fabricate(job)
    cells = compare(results, ["infomerge", "stride"], (0.1,))["0.1"]
    assert {*cells["infomerge"]["random"]} == {*FAMILIES, "macro"}
    assert cells["stride"]["stride"]["macro"] == {"value": 0, "low": 0, "high": 0}
    assert cells["infomerge"]["stride"]["macro"]["value"] > 0
    lost = list(find_lost(results, ["infomerge"], 0.1))
    assert not lost  # it is right wherever stride is
    turned = fabricate(make_job("infomerge,random,stride", retentions=(0.1,)))
    found = list(find_lost(turned, ["infomerge"], 0.1))
    assert found
    for one in found:
        cells_of = turned[one.seed].cells
        assert cells_of["infomerge@0.1"].right[one.question] == 0 and cells_of["stride@0.1"].right[one.question] == 1


def test_the_evidence_is_where_the_labels_say(clip: Clip) -> None:
    seen = set()
    for question in clip.questions:
        evidence = show_evidence(clip, question)
        kinds = {KINDS[kind] for kind in clip.labels.kind[evidence]}
        if question.family in ("digit", "place"):
            assert kinds == {"digit"}
        elif question.family == "event":
            assert kinds == {question.answer}
        elif question.family == "scene":
            assert not kinds
        else:
            assert kinds and all(kind in question.text for kind in kinds)
        seen.add(question.family)
    assert len(seen) > 3


@pytest.mark.parametrize("method", ["btm", "infomerge", "stride"])
def test_kept_cells_are_as_many_as_asked_for(method: str, examinee: Examinee, clip: Clip, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kept = keep_cells(examinee, clip, method, 0.1)
    assert kept.shape == (16, 7, 7) and abs(int(kept.sum()) - 78) <= 1
    file = tmp_path / "pictures" / "one.png"
    draw(clip, clip.questions[0], {method: kept, "all": np.ones_like(kept)}, file)
    assert file.read_bytes().startswith(b"\x89PNG")
