"""The benchmark of served models: which servers it starts, and what it makes of their figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import serving_gpu
from bench.serving import RequestError
from bench.serving_gpu import list_servers
from compress.errors import ConfigError
from compress.serving.vllm.server import ServerError


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen3VLForConditionalGeneration"]}))
    return str(tmp_path)


def test_every_method_has_a_server_per_retention_next_to_plain_vllm(checkpoint: str) -> None:
    servers = list_servers(checkpoint, ["btm", "cover"], (0.3, 0.1), ["--port", "1"])
    assert list(servers) == [
        "vLLM", "EVS of vLLM 0.3", "btm 0.3", "cover 0.3", "EVS of vLLM 0.1", "btm 0.1", "cover 0.1",
    ]  # fmt: skip
    assert servers["vLLM"] == ("serve", checkpoint, "--port", "1")
    assert servers["EVS of vLLM 0.1"][-2:] == ("--video-pruning-rate", "0.9")
    assert "--hf-overrides" in servers["btm 0.3"]


@pytest.fixture
def arguments(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the command line of a small run, of servers that answer by rule."""

    @contextmanager
    def server_of(arguments: Sequence[str], log: Path) -> Iterator[Sequence[str]]:
        assert log.parent.is_dir()
        if "--hf-overrides" not in arguments and "--video-pruning-rate" in arguments:
            raise ServerError("the server ended with 1")
        yield arguments

    def measure(endpoint: Sequence[str], bodies: Sequence[Any], *, requests: int, clients: int) -> dict[str, Any]:
        if "--hf-overrides" in endpoint and clients > 1:
            raise RequestError("the answer broke off")
        figures = dict.fromkeys(serving_gpu.COLUMNS, 1.0)
        return {"clients": clients, "requests": requests, "errors": [], **figures}

    monkeypatch.setattr(serving_gpu, "server_of", server_of)
    monkeypatch.setattr(serving_gpu, "measure", measure)
    monkeypatch.setattr(serving_gpu, "check_version", lambda: None)
    (tmp_path / "clip.mp4").write_bytes(b"video")
    return [checkpoint, "--video", str(tmp_path / "clip.mp4"), "--methods", "btm", "--retention", "0.1"]


def test_a_server_that_fails_is_named_and_the_others_are_measured(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["serving_gpu", *arguments, "--clients", "1,8", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        serving_gpu.main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "EVS of vLLM 0.1: the server ended with 1" in said
    assert "btm 0.1: the answer broke off" in said
    written = json.loads(out.read_text())
    assert [(row["server"], row["clients"]) for row in written["rows"]] == [("vLLM", 1), ("vLLM", 8), ("btm 0.1", 1)]
    assert list(written["failed"]) == ["EVS of vLLM 0.1", "btm 0.1"]
    assert written["device"].startswith("CPU")


@pytest.mark.parametrize("clients", ["0", "1,x", ""])
def test_clients_are_numbers(arguments: list[str], monkeypatch: pytest.MonkeyPatch, clients: str) -> None:
    monkeypatch.setattr(sys, "argv", ["serving_gpu", *arguments, "--clients", clients])
    with pytest.raises(ConfigError, match="give numbers above 0"):
        serving_gpu.main()
