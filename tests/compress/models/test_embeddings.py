"""Embeddings that `compress run --embeddings` writes: what stands for a video in the model's own prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers")

from codecmeta_cli.compress import app

import codecmeta
from compress import open_model, prepare, read_tokens

TINY = "llava-onevision-tiny"


@pytest.fixture(scope="module")
def metas(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("meta")
    codecmeta.extract(data / "event_h264.mp4", frames="uniform:4", pixels=96).save(folder / "event.npz")
    return folder


def run(metas: Path, out: Path, *more: str, model: str = TINY, positions: str = "contiguous") -> Any:
    words = ["run", "--meta", str(metas), "--out", str(out), "--random-weights", model, "--method", "infomerge"]
    return CliRunner().invoke(app, [*words, "--set", f"positions={positions}", "--embeddings", *more])


def rows_of_plain_prompt(metas: Path) -> torch.Tensor:
    """Return what the model without any compressor puts in place of the video."""
    model, tokenizer = open_model(random_config=TINY)
    inputs = prepare(model, codecmeta.load(metas / "event.npz"), "", tokenizer=tokenizer)
    seen: list[torch.Tensor] = []

    def note(_: object, __: object, kwargs: dict[str, torch.Tensor]) -> None:
        seen.append(kwargs["inputs_embeds"][0])

    with torch.inference_mode():
        handle = model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
        model(**inputs)
        handle.remove()
    return seen[0][inputs["input_ids"][0] == model.config.video_token_id]


def test_all_rows_are_those_of_the_plain_model_where_nothing_is_merged(metas: Path, tmp_path: Path) -> None:
    assert run(metas, tmp_path, "--retention", "1").exit_code == 0
    written = np.load(tmp_path / "event.npy", allow_pickle=False)
    plain = rows_of_plain_prompt(metas).numpy()
    assert written.shape == plain.shape
    np.testing.assert_allclose(written, plain, atol=1e-6)


def test_shortened_rows_end_with_the_newline(metas: Path, tmp_path: Path) -> None:
    assert run(metas, tmp_path, "--retention", "0.2").exit_code == 0
    written = np.load(tmp_path / "event.npy", allow_pickle=False)
    tokens = read_tokens(tmp_path / "event.safetensors").tokens.numpy()
    plain = rows_of_plain_prompt(metas).numpy()
    assert len(tokens) == round(0.2 * (len(plain) - 1))
    np.testing.assert_array_equal(written[:-1], tokens)
    np.testing.assert_allclose(written[-1], plain[-1], atol=1e-6)


def test_a_later_run_writes_what_is_missing(metas: Path, tmp_path: Path) -> None:
    assert '"done"' in run(metas, tmp_path, "--json").stdout
    assert '"kept"' in run(metas, tmp_path, "--json").stdout
    (tmp_path / "event.npy").unlink()
    assert '"done"' in run(metas, tmp_path, "--json").stdout
    assert (tmp_path / "event.npy").is_file()


def test_original_positions_are_refused(metas: Path, tmp_path: Path) -> None:
    found = run(metas, tmp_path, positions="original")
    assert found.exit_code == 2
    assert "infomerge keeps original positions" in found.stderr
    assert "set positions=contiguous" in found.stderr


def test_models_with_other_positions_are_refused(metas: Path, tmp_path: Path) -> None:
    found = run(metas, tmp_path, model="qwen2.5-vl-tiny")
    assert found.exit_code == 2
    assert "they are written of LLaVA-OneVision" in found.stderr


def test_the_embedded_encoder_has_none(metas: Path, tmp_path: Path) -> None:
    words = ["run", "--meta", str(metas), "--out", str(tmp_path), "--embeddings"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2
    assert "--embeddings are those of a model" in found.stderr
