"""`--model demo`: the small model of the package answers on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from codecmeta_cli.compress import app
from typer.testing import CliRunner

from compress.accuracy.answering import Examinee, Sheet
from compress.accuracy.clips import Clip
from compress.accuracy.questions import WORDS
from compress.accuracy.tower import TowerMemory
from compress.demo import WordTokenizer
from compress.models.opening import open_model, sample_question


@pytest.fixture
def weights(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights where the trained ones would be."""
    model.save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "vocab.json").write_text(json.dumps(WORDS))
    monkeypatch.setattr("compress.demo.model.WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def metas(clip: Clip, tmp_path: Path) -> Path:
    (tmp_path / "meta").mkdir()
    clip.meta.save(tmp_path / "meta" / "clip.mp4.npz")
    return tmp_path / "meta"


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_demo_is_a_model_by_name(weights: Path, model: Any) -> None:
    opened, tokenizer = open_model(checkpoint="demo", random_config=None, device="cpu")
    assert isinstance(tokenizer, WordTokenizer)
    for name, tensor in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], tensor)
    assert tokenizer.encode(sample_question("demo"))
    assert sample_question("other") != sample_question("demo")


@pytest.mark.parametrize("retention", [0.2, 1])
def test_it_answers_with_and_without_compression(
    weights: Path, metas: Path, retention: float, examinee: Examinee, sheet: Sheet, memory: TowerMemory, clip: Clip
) -> None:
    question = clip.questions[0]
    result = invoke(
        "ask", "--meta", metas, "--model", "demo", "--prompt", question.text, "--method", "infomerge", "--retention",
        retention, "--new-tokens", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (line,) = [json.loads(one) for one in result.stdout.splitlines()]
    assert (line["tokens_in"], line["tokens_out"]) == (784, round(784 * retention))
    if retention == 1:
        plain = examinee.answer_plain(sheet, memory)[0]
        assert line["answer"] == examinee.tokenizer.decode([int(plain.argmax())])


def test_words_it_does_not_know_are_wrong_usage(weights: Path, metas: Path) -> None:
    result = invoke("ask", "--meta", metas, "--model", "demo", "--prompt", "Why is the sky blue ?")
    assert result.exit_code == 2
    assert "does not know 'Why'" in result.stderr


def test_missing_weights_are_told(metas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.demo.model.WEIGHTS", tmp_path / "nowhere")
    result = invoke("ask", "--meta", metas, "--model", "demo", "--prompt", "which digit was shown ?")
    assert result.exit_code == 2
    assert "does not hold the demo model" in result.stderr


def test_it_is_benchmarked(weights: Path, metas: Path) -> None:
    result = invoke(
        "bench", "--model", "demo", "--meta", metas / "clip.mp4.npz", "--retentions", 0.1, "--repeats", 1,
        "--new-tokens", 0, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout.splitlines()[-1])
    assert [case["name"] for case in record["cases"]] == ["uncompressed", "null", "metom 0.1", "infomerge 0.1"]
