"""Runs that are ended while they write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codecmeta import extract

ROOT = Path(__file__).resolve().parents[2]
SLOW_DISK = """
import os, signal, sys, time
# as in a terminal, whatever the tests themselves were started by
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
def fsync(descriptor):
    print("writing", file=sys.stderr, flush=True)
    time.sleep(60)
os.fsync = fsync
from codecmeta_cli.{program} import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has other signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("program", ["codecmeta", "compress"])
def test_nothing_half_written_stays(data: Path, tmp_path: Path, program: str, number: int) -> None:
    video, out = data / "still_h264.mp4", tmp_path / "out"
    extract(video, frames="uniform:2", residual="none").save(tmp_path / "a.npz")
    arguments = {
        "codecmeta": ["extract", str(video), "--frames", "0", "--jobs", "0"],
        "compress": ["run", "--meta", str(tmp_path / "a.npz")],
    }[program]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_DISK.format(program=program), *arguments, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"},
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line == "writing\n":
                break
        assert [path for path in out.rglob(".*") if path.suffix == ".tmp"]
        running.send_signal(number)
        left = running.stderr.read()
    assert running.returncode == 128 + number, left
    assert "Traceback" not in left
    assert [path for path in out.rglob("*") if path.is_file() and path.name != "manifest.jsonl"] == []
