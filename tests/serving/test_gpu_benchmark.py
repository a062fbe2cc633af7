"""The benchmark for machines with a GPU, run on a CPU with a tiny model: every server starts and answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

from bench.serving_gpu import COLUMNS
from tests.serving.engine import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ("sprites_07.mp4", "sprites_73.mp4")
RETENTION = 0.25
SERVERS = ("vLLM", "EVS of vLLM 0.25", "btm 0.25")
CLIENTS = (1, 4)


def test_every_server_takes_the_load_of_every_number_of_clients(
    checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    out = tmp_path / "gpu.json"
    words = [checkpoint("qwen2.5-vl"), "--video", *(str(ROOT / "data" / "sprites" / clip) for clip in CLIPS)]
    words += ["--methods", "btm", "--retention", str(RETENTION), "--clients", ",".join(map(str, CLIENTS))]
    words += ["--requests", "8", "--out", str(out), "--", "--port", str(port), "--dtype", "float32"]
    words += ["--max-model-len", "2048", "--max-num-seqs", "4", "--enforce-eager", "--skip-mm-profiling"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.serving_gpu", *words],
        env={**os.environ, **SETTINGS},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    written = json.loads(out.read_text())
    assert written["failed"] == {}
    rows = written["rows"]
    assert [(row["server"], row["clients"]) for row in rows] == [(name, count) for name in SERVERS for count in CLIENTS]
    for row in rows:
        assert (row["errors"], row["wrong"]) == ([], 0)
        assert all(row[column] >= 0 for column in COLUMNS)
        assert f"{row['server']:24s} {row['clients']:8d} " in done.stdout
    whole, _, short = rows[:: len(CLIENTS)]
    encoded, kept = (short["video_tokens"][state] for state in ("encoded", "kept"))
    assert 0 < kept < encoded
    assert whole["video_tokens"] == {"encoded": 0, "kept": 0}
    # of a prompt, in the mean of the eight questions
    assert whole["prompt_tokens"] - short["prompt_tokens"] == pytest.approx((encoded - kept) / 8)
    assert kept / encoded == pytest.approx(RETENTION, abs=0.01)
