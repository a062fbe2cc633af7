"""Command lines of servers: read back as vLLM reads them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from compress.errors import ConfigError
from compress.serving.vllm.command import ServeCommand, write_command
from compress.serving.vllm.families import FAMILIES
from compress.serving.vllm.settings import ServedMethod
from compress.serving.vllm.video_options import SAMPLINGS


def checkpoint(folder: Path, architecture: object) -> str:
    (folder / "config.json").write_text(json.dumps({"architectures": architecture}))
    return str(folder)


def read_back(command: ServeCommand) -> dict[str, str]:
    program, verb, _, *rest = shlex.split(str(command))
    assert (program, verb) == ("vllm", "serve")
    return dict(zip(rest[::2], rest[1::2], strict=True))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_line_says_what_the_plug_in_reads(tmp_path: Path, architecture: str) -> None:
    served = ServedMethod(method="btm", retention=1 / 3, settings={"gop": "total"}, map="innovation")
    command = write_command(checkpoint(tmp_path, [architecture]), served, more=["--port", "8001"])
    options = read_back(command)
    overrides = json.loads(options["--hf-overrides"])
    assert overrides["architectures"] == [f"Compress{architecture}"]
    again = ServedMethod.parse(overrides["compress"], float(options["--video-pruning-rate"]))
    assert (again.method, again.settings, again.map) == (served.method, served.settings, served.map)
    assert again.count(7, 300) == served.count(7, 300) == 700
    assert options["--port"] == "8001"
    loader = json.loads(options["--media-io-kwargs"])["video"]
    assert loader["video_backend"] == "codecmeta"
    assert loader["sampling"] in SAMPLINGS


def test_frames_are_chosen_by_options_that_the_rule_of_the_family_reads(tmp_path: Path) -> None:
    served = ServedMethod(method="infomerge", retention=0.1)
    found = {}
    for architecture in ("Qwen3VLForConditionalGeneration", "LlavaOnevisionForConditionalGeneration"):
        command = write_command(checkpoint(tmp_path, [architecture]), served, fps=1.5, max_frames=8)
        found[architecture[:5]] = json.loads(read_back(command)["--media-io-kwargs"])["video"]
    assert found["Qwen3"]["max_frames"] == found["Llava"]["num_frames"] == 8
    assert found["Qwen3"]["fps"] == found["Llava"]["fps"] == 1.5


def test_differences_are_stated(tmp_path: Path) -> None:
    served = ServedMethod(method="infomerge", retention=0.1, saliency="none")
    llava = write_command(checkpoint(tmp_path, ["LlavaOnevisionForConditionalGeneration"]), served).differences
    assert [one.partition(":")[0] for one in llava] == ["frames", "saliency"]
    plain = ServedMethod(method="infomerge", retention=0.1)
    qwen = write_command(checkpoint(tmp_path, ["Qwen2VLForConditionalGeneration"]), plain).differences
    assert [one.partition(":")[0] for one in qwen] == ["frames", "positions"]


@pytest.mark.parametrize(
    ("architecture", "frames", "patches"),
    [
        ("Qwen2_5_VLForConditionalGeneration", "2 per second, from 4 to 768, an even number", False),
        ("Qwen3VLForConditionalGeneration", "2 per second, from 4 to 768", False),
        ("Qwen2VLForConditionalGeneration", "2 per second, from 4 to 768, an even number", True),
        ("LlavaOnevisionForConditionalGeneration", "32 at equal distances", False),
    ],
)
def test_the_limits_of_each_family_are_stated(tmp_path: Path, architecture: str, frames: str, patches: bool) -> None:
    model = checkpoint(tmp_path, [architecture])
    command = write_command(model, ServedMethod(method="infomerge", retention=0.1))
    assert f"takes ({frames}), in their own size" in command.differences[0]
    assert any(limit.startswith("rpm: no patches merge") for limit in command.family.limits) != patches
    for word in ("images", "tensor and pipeline parallelism", "LoRA", "speculative decoding", "V2 model runner"):
        assert word in " ".join(command.family.limits)
    chosen = write_command(model, command.served, fps=1, max_frames=8)
    assert "takes (by --fps and --max-frames)" in chosen.differences[0]


@pytest.mark.parametrize("more", [["--hf-overrides", "{}"], ["--hf_overrides.x=1"], ["--video_pruning_rate=0.5"]])
def test_what_compress_writes_cannot_be_given_again(tmp_path: Path, more: list[str]) -> None:
    model = checkpoint(tmp_path, ["Qwen3VLForConditionalGeneration"])
    with pytest.raises(ConfigError, match="cannot be given: compress writes it"):
        write_command(model, ServedMethod(method="infomerge", retention=0.1), more=more)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        (["LlamaForCausalLM"], "LlamaForCausalLM cannot be served compressed"),
        ([], "names no architecture"),
        (None, "names no architecture"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, architecture: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        write_command(checkpoint(tmp_path, architecture), ServedMethod(method="infomerge", retention=0.1))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json that can be read"):
        write_command(str(tmp_path), ServedMethod(method="infomerge", retention=0.1))


@pytest.mark.parametrize("options", [{"fps": 0}, {"max_frames": -1}, {"fps": 31}, {"max_frames": 769}])
def test_impossible_frames_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    model = checkpoint(tmp_path, ["Qwen3VLForConditionalGeneration"])
    with pytest.raises(ConfigError, match=r"allowed are numbers above 0"):
        write_command(model, ServedMethod(method="infomerge", retention=0.1), **options)


def test_a_retention_that_keeps_all_is_refused(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, ["Qwen3VLForConditionalGeneration"])
    with pytest.raises(ConfigError, match="keeps all tokens"):
        write_command(model, ServedMethod(method="infomerge", retention=1.0))
