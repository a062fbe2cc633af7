"""The benchmark of served models: which servers it starts, and what it makes of their figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import serving_gpu
from bench.serving_gpu import list_servers
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


def test_a_server_that_does_not_start_is_named(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(
        servers: Mapping[str, Sequence[str]], bodies: Sequence[Any], *, requests: int, clients: int
    ) -> dict[str, Any]:
        (name,) = servers
        if name.startswith("EVS"):
            raise ServerError("the server ended with 1")
        figures = dict.fromkeys(serving_gpu.COLUMNS, 1.0)
        return {name: {"clients": clients, "requests": requests, "errors": [], **figures}}

    (tmp_path / "clip.mp4").write_bytes(b"video")
    out = tmp_path / "out.json"
    words = [checkpoint, "--video", str(tmp_path / "clip.mp4"), "--methods", "btm", "--retention", "0.1"]
    monkeypatch.setattr(sys, "argv", ["serving_gpu", *words, "--clients", "1,8", "--out", str(out)])
    monkeypatch.setattr(serving_gpu, "compare", compare)
    monkeypatch.setattr(serving_gpu, "check_version", lambda: None)
    with pytest.raises(SystemExit) as ended:
        serving_gpu.main()
    assert ended.value.code == 0
    assert "EVS of vLLM 0.1: the server ended with 1" in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert [(row["server"], row["clients"]) for row in written["rows"]] == [
        ("vLLM", 1), ("vLLM", 8), ("btm 0.1", 1), ("btm 0.1", 8),
    ]  # fmt: skip
    assert written["device"].startswith("CPU")
