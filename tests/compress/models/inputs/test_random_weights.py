"""Models with random weights: what precision their parts are in, and configurations from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import transformers.utils

from compress.errors import ConfigError
from compress.models.inputs.checkpoint import load_model
from compress.models.inputs.preprocess import PixelSettings
from compress.models.inputs.random_weights import build_random, configure, names
from compress.models.opening import open_model
from tests.compress.models.material import BACKBONES, TOKENIZER, inputs_of, video_meta


@pytest.mark.parametrize("backbone", BACKBONES)
def test_rotary_frequencies_stay_in_float32(backbone: str) -> None:
    wide, half = build_random(backbone), build_random(backbone, dtype=torch.bfloat16)
    frequencies = {name: buffer for name, buffer in wide.named_buffers() if "inv_freq" in name}
    assert frequencies
    found = dict(half.named_buffers())
    for name, expected in frequencies.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], expected)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    rounded = dict(build_random(backbone).to(torch.bfloat16).named_buffers())
    assert any(not torch.equal(rounded[name].float(), expected) for name, expected in frequencies.items())


def write_config(folder: Path, part: str = "text_config", **changes: Any) -> Path:
    fields = json.loads(configure("llava-onevision-tiny").to_json_string())
    fields[part] |= changes
    file = folder / "a" / "b" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(fields))
    return file


@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_configuration_file_is_no_repository(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(path: str, *_: Any, **__: Any) -> None:
        raise AssertionError(f"{path} was looked for in the network")

    monkeypatch.setattr(transformers.utils, "cached_file", ask)
    monkeypatch.chdir(tmp_path)
    file = write_config(Path())
    model = build_random(str(file if named == "file" else file.parent))
    grey = inputs_of(model, video_meta())["pixel_values_videos"]
    assert grey.min() < 0
    (file.parent / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0, 0, 0]}))
    assert inputs_of(model, video_meta())["pixel_values_videos"].min() >= 0


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        ("text_config", {"hidden_size": "x"}, "hidden_size"),
        ("text_config", {"num_hidden_layers": 1}, "num_hidden_layers"),
        ("vision_config", {"patch_size": 0}, "cannot be built"),
        ("text_config", {"vocab_size": 50}, "vocabulary of 50; text as bytes takes 272"),
    ],
)
def test_odd_configurations_are_refused(part: str, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    file = write_config(tmp_path, part, **changes)
    with pytest.raises(ConfigError, match=says):
        open_model(checkpoint=None, random_config=str(file), device="cpu")


@pytest.mark.parametrize("text", ["[1]", "3", "{", "{}"])
def test_what_is_no_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="not a configuration that transformers can read"):
        configure(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_model(str(tmp_path))


def test_errors_of_transformers_stand_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no connection,\nand nothing in the cache.\n  Check both.")

    monkeypatch.setattr(transformers.utils, "cached_file", fail)
    with pytest.raises(ConfigError, match=r"OSError: no connection, and nothing in the cache\. Check both\.$"):
        load_model("far/away")


def test_every_name_stands_in_the_page_of_models() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in names() if f"`{name}`" not in page] == []


def test_a_folder_without_a_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json; give"):
        configure(str(tmp_path))


def test_a_repository_is_asked_for_its_pixels_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(transformers.utils, "cached_file", lambda path, name, **_: asked.append(name))
    for _ in range(3):
        assert PixelSettings().from_checkpoint("somebody/once") == PixelSettings()
    assert len(asked) == 2


def test_bytes_fit_the_size() -> None:
    assert max(TOKENIZER.encode("\U0010ffff")) < TOKENIZER.size
