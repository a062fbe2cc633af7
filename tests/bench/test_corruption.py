"""Damaged files, seeded: no verdict is `complete` where pictures are lost, and whole files are not suspected."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.corruption import (
    OPTIONS,
    Finding,
    Trial,
    count_pictures,
    extract_and_load,
    plan_trials,
    run_trial,
    summarise,
)
from bench.corruption_inputs import KINDS, damage, make_clips

SEEDS = 200


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_clips(tmp_path_factory.mktemp("clips"))


def test_damage_depends_on_its_seed_only() -> None:
    content = bytes(range(256)) * 40
    for seed in range(40):
        kind, damaged = damage(content, seed=seed)
        assert (kind, damaged) == damage(content, seed=seed)
        assert kind == KINDS[seed % len(KINDS)]
    assert len({damage(content, seed=seed)[1] for seed in range(40)}) > 35


def test_whole_files_are_complete(clips: list[Path], tmp_path: Path) -> None:
    for path in clips:
        for options in OPTIONS.values():
            outcome, evidence = extract_and_load(path, tmp_path / "record.npz", options)
            assert outcome == "complete", (path.name, evidence)


def test_no_loss_goes_unnoticed(clips: list[Path]) -> None:
    pictures = {path.name: count_pictures(path) for path in clips}
    assert set(pictures.values()) == {36}
    findings: list[Finding] = []
    for trial in plan_trials(clips, seeds=range(SEEDS)):
        findings += run_trial(str(clips[0].parent), trial, pictures[trial.clip])
    assert [found for found in findings if found.fault] == []
    assert sum(found.lost > 0 for found in findings) > SEEDS // 2
    assert len({found.outcome for found in findings if found.lost}) > 3
    assert summarise(findings)["trials"] == SEEDS


def test_a_fault_is_one() -> None:
    """Were a verdict blind, the benchmark would say so."""
    blind = Finding(
        trial=Trial(clip="a.mkv", seed=1), options=next(iter(OPTIONS)), kind="cut", outcome="complete", lost=3,
        fault=True, evidence="",
    )  # fmt: skip
    summary = summarise([blind])
    assert len(summary["faults"]) == 1
    assert summary["containers"]["mkv"]["complete, pictures lost"] == 1
