"""The command `compress serve-args`: the line on standard output, and what differs from attach next to it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from codecmeta_cli.compress import app
from typer.testing import CliRunner


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen3VLForConditionalGeneration"]}))
    return str(tmp_path)


def test_the_line_is_all_of_standard_output(checkpoint: str) -> None:
    found = CliRunner().invoke(app, ["serve-args", checkpoint, "--retention", "0.1", "--", "--port", "8001"])
    assert found.exit_code == 0, found.stderr
    words = shlex.split(found.stdout)
    assert words[:5] == ["vllm", "serve", checkpoint, "--video-pruning-rate", "0.9"]
    assert words[-2:] == ["--port", "8001"]
    assert found.stdout.count("\n") == 1
    assert "differs from attach: frames" in found.stderr
    assert "not supported: rpm: no patches merge before the encoder of this family" in found.stderr


def test_retention_is_the_method_s_own_unless_given(checkpoint: str) -> None:
    found = CliRunner().invoke(app, ["serve-args", checkpoint, "--method", "btm", "--set", "gop=total"])
    assert shlex.split(found.stdout)[4] == "0.7"
    assert '"settings": {"gop": "total"}' in found.stdout


def test_patches_merge_before_the_encoder_where_the_family_can(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen2VLForConditionalGeneration"]}))
    found = CliRunner().invoke(app, ["serve-args", str(tmp_path), "--rpm", "target_keep=0.6"])
    assert found.exit_code == 0, found.stderr
    assert '"rpm": {"target_keep": "0.6"}' in found.stdout


@pytest.mark.parametrize("command", ["serve-args", "serve"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--method", "matm"], "matm cannot be served: it shortens the prompt between two decoder layers"),
        (["--method", "btm", "--set", "refill=no"], "btm cannot be served: without refill its count of tokens"),
        (["--method", "nothing"], "unknown method 'nothing'"),
        (["--retention", "1"], "retention 1 keeps all tokens"),
        (["--rpm", "target_keep=0.6"], "rpm: patches of Qwen3VLForConditionalGeneration cannot merge"),
        (["--rpm", "target=0.6"], "RPM has no field 'target'"),
        (["--", "--video-pruning-rate=0.5"], "--video-pruning-rate cannot be given"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(
    checkpoint: str, command: str, options: list[str], reason: str
) -> None:
    found = CliRunner().invoke(app, [command, checkpoint, *options])
    assert found.exit_code == 2
    assert found.stdout == ""
    assert reason in found.stderr


def test_serving_needs_vllm(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.serving.vllm.version.installed_version", lambda: None)
    found = CliRunner().invoke(app, ["serve", checkpoint, "--retention", "0.1"])
    assert found.exit_code == 2
    assert "no vLLM is installed; compress serves with vLLM 0.32.0 only" in found.stderr
