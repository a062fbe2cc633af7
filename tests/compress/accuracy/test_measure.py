"""Measurements of a model with random weights: complete, resumable, and failing aloud."""

from __future__ import annotations

import ast
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codecmeta_cli.compress import app
from typer.testing import CliRunner

from compress.accuracy import measure as measuring
from compress.accuracy.answering import Examinee, Sheet, mark
from compress.accuracy.clips import Clip
from compress.accuracy.measure import (
    FULL,
    IDENTITY,
    Examined,
    Job,
    MeasurementError,
    cell_name,
    digest_weights,
    examine,
    measure,
)
from compress.accuracy.methods import MEASURED, Measured, choose
from compress.accuracy.questions import WORDS
from compress.accuracy.tower import TowerMemory
from compress.baselines import UniformStride
from compress.errors import ConfigError
from compress.methods import METHODS, build
from compress.metom import RPM, MeToM
from compress.settings import list_settings
from tests.compress.accuracy.fabricated import fabricate

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def weights(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(WORDS))
    return folder


def make_job(cache: Path, weights: Path, methods: str = "btm,random", **fields: Any) -> Job:
    return Job(
        cache=cache, split="val", methods=choose(methods), weights=weights, **{"retentions": (0.2, 0.1), **fields}
    )


def test_a_clip_has_every_cell(examinee: Examinee, clip: Clip, cache: Path, sheet: Sheet, memory: TowerMemory) -> None:
    job = make_job(cache, cache, "stride,random", retentions=(0.2,))
    found = examine(examinee, clip, job)
    assert list(found.cells) == [FULL, "everything@1", "stride@0.2", "random@0.2"]
    assert found.families == [question.family for question in clip.questions]
    right, exact = mark(sheet, examinee.answer_plain(sheet, memory))
    assert found.cells[FULL].right == found.cells["everything@1"].right == right.tolist()
    assert found.cells[FULL].exact == exact.tolist()
    logits, _ = examinee.answer_compressed(sheet, memory, clip.meta, UniformStride(retention=0.2))
    assert found.cells["stride@0.2"].right == mark(sheet, logits)[0].tolist()
    account = found.cells["random@0.2"].account
    assert account is not None and account["tokens_out"] == 157
    assert {0.0, 1.0} >= set(found.cells["stride@0.2"].right)
    fifths = {round(5 * value, 9) for value in found.cells["random@0.2"].right}
    assert fifths <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert Examined.from_json(json.dumps(dataclasses.asdict(found))) == found


@pytest.mark.parametrize("name", MEASURED)
def test_at_retention_1_every_method_gives_the_full_answers(
    name: str, examinee: Examinee, clip: Clip, sheet: Sheet, memory: TowerMemory
) -> None:
    method = MEASURED[name]
    compressor = method.build(1.0, seed=0, draw=0, occupied=clip.labels.occupied)
    logits, account = examinee.answer_compressed(sheet, memory, clip.meta, compressor, map=method.map)
    plain = examinee.answer_plain(sheet, memory)
    if {"before_encoder", "inside_llm"} & set(METHODS[method.base].stages if method.base in METHODS else ()):
        # Patches packed in one sequence, or a mask where there was none, go through other kernels.
        assert np.abs(logits - plain).max() < TOLERANCE
        assert (logits.argmax(axis=1) == plain.argmax(axis=1)).all()
    else:
        assert np.array_equal(logits, plain)
    assert (account.tokens_out, account.tokens_inner, account.patches) == (784, 784, 1)


def test_methods_are_built_with_their_settings(clip: Clip) -> None:
    held = clip.labels.occupied
    metom = MEASURED["metom"].build(0.3, seed=0, draw=0, occupied=held)
    assert isinstance(metom, MeToM) and (metom.retention, metom.layers) == (0.3, (2, 3))
    assert MEASURED["infomerge-no-tfd"].build(0.3, seed=0, draw=0, occupied=held).parameter("rho") == 0
    assert MEASURED["infomerge-no-uniqueness"].build(0.3, seed=0, draw=0, occupied=held).parameter("alpha") == 0
    assert MEASURED["infomerge-no-richness"].build(0.3, seed=0, draw=0, occupied=held).parameter("beta") == 0
    assert MEASURED["rpm-texture"].map == "texture"
    assert isinstance(MEASURED["rpm"].build(0.3, seed=0, draw=0, occupied=held), RPM)
    one, two = (MEASURED["random"].build(0.3, seed=7, draw=draw, occupied=held) for draw in (0, 1))
    assert one.seed != two.seed
    changed = MEASURED["metom"].with_settings("x", {"fold": "core"}, map="texture")
    assert changed.build(0.3, seed=0, draw=0, occupied=held).fold == "core"
    assert (changed.name, changed.map, changed.settings["layers"]) == ("x", "texture", "2,3")
    neutral = {name: entry.neutral for name, entry in METHODS.items() if entry.neutral}
    assert set(neutral) >= {"metom", "btm"}
    for name, fields in neutral.items():
        assert set(fields) <= {setting.name for setting in list_settings(build(name))}


def test_every_method_is_measured() -> None:
    answering = {name for name, entry in METHODS.items() if entry.stages != ("at_decoding",)}  # an answer is one step
    assert answering == {method.base for method in choose("all")} & set(METHODS)
    assert set(METHODS) - answering == {"dycoke-decoding"}
    assert MEASURED["flashvid-inner"].kept == "tokens_inner"


def test_methods_by_name() -> None:
    assert [method.name for method in choose("btm, oracle")] == ["btm", "oracle"]
    assert {method.group for method in choose("default")} == {"method", "baseline"}
    assert {method.name for method in choose("stage")} == {"rpm", "btm", "matm"}
    assert len(choose("all,random")) == len(MEASURED)
    with pytest.raises(ConfigError, match="unknown measured method 'x'"):
        choose("btm,x")


def test_the_label_of_weights_is_that_of_what_is_loaded(weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(weights, copy)
    assert digest_weights(copy) == digest_weights(weights)
    (copy / "training.json").write_text("{}")  # which the wheel lacks
    assert digest_weights(copy) == digest_weights(weights)
    words = (copy / "vocab.json").read_text()
    (copy / "vocab.json").write_text(words + " ")
    assert digest_weights(copy) != digest_weights(weights)


def test_a_run_asks_what_no_run_before_it_asked(cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(cache, weights)
    whole = measure(job, 3)
    assert len(job.stores) == 4  # the plain model, the identity, two methods
    store = next(path for path in job.stores if path.name.startswith("btm-"))
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[:2]) + lines[2][:50])  # interrupted
    asked: list[tuple[int, list[str]]] = []
    original = measuring.examine

    def watched(examinee: Examinee, clip: Clip, job: Job, *, known: Collection[str]) -> Examined:
        found = original(examinee, clip, job, known=known)
        asked.append((clip.seed, list(found.cells)))
        return found

    monkeypatch.setattr(measuring, "examine", watched)
    steps: list[int] = []
    again = measure(job, 3, progress=steps.append)
    assert asked == [(2, ["btm@0.2", "btm@0.1"])] and steps == [2, 3]
    for one, two in zip(whole, again, strict=True):
        assert one.families == two.families and list(one.cells) == list(two.cells)
        assert [cell.right for cell in one.cells.values()] == [cell.right for cell in two.cells.values()]
    assert len(store.read_text().splitlines()) == 3
    more = measure(make_job(cache, weights, "btm,stride", retentions=(0.1, 0.05)), 1)[0]
    assert list(more.cells) == [FULL, "everything@1", "btm@0.1", "btm@0.05", "stride@0.1", "stride@0.05"]
    assert sorted(asked[1][1]) == ["btm@0.05", "stride@0.05", "stride@0.1"]
    assert more.cells["btm@0.1"] == whole[0].cells["btm@0.1"]
    measure(dataclasses.replace(job, methods=(MEASURED["btm"].with_settings("btm", {"fold": "core"}),)), 1)
    assert asked[2] == (0, ["btm@0.2", "btm@0.1"])  # other settings by the same name


def test_workers_find_the_same(cache: Path, weights: Path) -> None:
    job = make_job(cache, weights, "infomerge", retentions=(0.15,))
    together = measure(job, 3, workers=2)
    for path in job.stores:
        path.unlink()
    alone = measure(job, 3)
    assert [one.cells["infomerge@0.15"].right for one in together] == [
        one.cells["infomerge@0.15"].right for one in alone
    ]


def test_a_method_that_fails_is_no_wrong_answer(examinee: Examinee, clip: Clip, cache: Path) -> None:
    broken = dataclasses.replace(MEASURED["metom"], settings={"layers": "2,9"})
    job = dataclasses.replace(make_job(cache, cache), methods=(broken,))
    with pytest.raises(MeasurementError, match=r"metom@0\.2 on val/3: .*layers"):
        examine(examinee, clip, job)


def test_an_identity_that_changes_answers_is_refused(
    examinee: Examinee, clip: Clip, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(self: Measured, retention: float, **_: Any) -> Any:
        return UniformStride(retention=0.9)

    monkeypatch.setattr(Measured, "build", lossy)
    with pytest.raises(MeasurementError, match="differ from those of the plain model"):
        examine(examinee, clip, make_job(cache, cache))
    assert IDENTITY.base == "everything"


def test_what_answers_depend_on_is_in_their_name(cache: Path, weights: Path) -> None:
    job = make_job(cache, weights)
    others = [
        dataclasses.replace(job, split="test"),
        dataclasses.replace(job, weights=cache),
        dataclasses.replace(job, device="cuda"),
    ]
    assert len({one.digest() for one in (job, *others)}) == 4
    assert make_job(cache, weights, "btm", retentions=(0.3,)).digest() == job.digest()
    assert dataclasses.replace(job, cache=weights).digest() == job.digest()
    assert cell_name(MEASURED["btm"], 0.05) == "btm@0.05"


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_measures(cache: Path, weights: Path, tmp_path: Path) -> None:
    command = (
        "accuracy", "--weights", weights, "--cache", cache, "--split", "val", "--slice", 3, "--methods", "btm,random",
        "--retention", "0.2,0.1", "--jobs", 1, "--out", tmp_path / "a.jsonl",
    )  # fmt: skip
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [(line["method"], line["retention"]) for line in lines] == [
        ("everything", 1.0), ("btm", 0.2), ("btm", 0.1), ("random", 0.2), ("random", 0.1),
    ]  # fmt: skip
    assert lines[0]["about"]["clips"] == 3
    assert "everything" in result.stdout and "random" in result.stdout
    again = invoke(*command, "--json")
    assert [json.loads(line)["method"] for line in again.stdout.splitlines()] == [line["method"] for line in lines]


def test_the_command_draws_and_tabulates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(measuring, "measure", lambda job, count, **_: fabricate(job, clips=count))
    command = ("accuracy", "--cache", tmp_path, "--slice", 10, "--retention", "0.2,0.05", "--methods", "infomerge")
    result = invoke(*command, "--plot", tmp_path / "b" / "a.png", "--markdown", tmp_path / "a.md")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "b" / "a.png").stat().st_size > 10_000
    assert (tmp_path / "a.md").read_text().startswith("Chance-corrected")
    assert "80 questions about 10 clips of the split test" in result.stdout
    assert "\n5 %" in result.stdout  # accuracy per family at the lowest retention, since 10 % was not measured


def test_figures_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before stays."""
    monkeypatch.setattr(measuring, "measure", lambda job, count, **_: fabricate(job, clips=count))
    (tmp_path / "a.jsonl").write_text("before")

    def fill(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill)
    result = invoke("accuracy", "--cache", tmp_path, "--slice", 3, "--methods", "btm", "--out", tmp_path / "a.jsonl")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "compress: the figures cannot be written: No space left on device\n"
    assert (tmp_path / "a.jsonl").read_text() == "before"


def test_a_failing_method_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise MeasurementError("btm@0.1 on test/0: broken")

    monkeypatch.setattr(measuring, "measure", fail)
    result = invoke("accuracy", "--cache", tmp_path)
    assert result.exit_code == 1
    assert "btm@0.1 on test/0: broken" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "x"), "unknown measured method"),
        (("--retention", "0.1,much"), "write retained fractions with commas"),
        (("--retention", "1.5"), "retention is 1.5"),
        (("--weights", "/nowhere"), "does not hold the demo model"),
        (("--device", "nowhere"), "device 'nowhere' cannot be used"),
        (("--out", "."), "--out is '.', a folder"),
        (("--plot", "a.nothing"), "its ending is its format"),
        (("--cache", __file__), "test_measure.py"),
    ],
)
def test_wrong_usage(cache: Path, arguments: tuple[str, str], message: str) -> None:
    result = invoke("accuracy", "--cache", cache, "--slice", 1, "--jobs", 1, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_package_imports_nothing_of_the_repositorys_studies() -> None:
    """An installed wheel has no `bench` and no `tests`."""
    files = sorted(Path(measuring.__file__).parent.glob("*.py"))
    assert len(files) > 10
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        roots = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        roots |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not roots & {"bench", "tests", "cli", "codecmeta_cli"}, file
