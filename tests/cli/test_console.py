"""The console of both commands: names on one line, and a progress bar that takes nothing from standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from codecmeta_cli.console import printable

from codecmeta import extract

ROOT = Path(__file__).resolve().parents[2]


def test_names_are_made_fit_to_be_shown() -> None:
    assert printable("a\nb\ud800c\x1b") == "a\\nb\\ud800c\\x1b"
    assert printable("clip.mp4", longest=20) == "clip.mp4"
    short = printable("ab" * 300, longest=91)
    assert len(short) == 91 and short.startswith("abab") and short.endswith("abab")


def run_on_terminal(program: str, *arguments: str) -> tuple[str, bytes]:
    """Return standard output through a pipe, and what a terminal on standard error shows."""
    pty = pytest.importorskip("pty")
    terminal, shown = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", f"from codecmeta_cli.{program} import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=shown,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}", "TERM": "xterm-256color"},
    ) as running:
        os.close(shown)
        assert running.stdout is not None
        written: list[str] = []
        reader = threading.Thread(target=lambda: written.append(running.stdout.read()))
        reader.start()
        seen = b""
        try:
            while part := os.read(terminal, 4096):
                seen += part
        except OSError:  # the end of a terminal on Linux
            pass
        reader.join()
    os.close(terminal)
    return written[0], seen


@pytest.mark.parametrize("program", ["codecmeta", "compress"])
def test_lines_go_to_the_pipe_and_the_bar_to_the_terminal(data: Path, tmp_path: Path, program: str) -> None:
    video = data / "still_h264.mp4"
    extract(video, frames="uniform:2", residual="none", pixels=48).save(tmp_path / "a.npz")
    arguments = {
        "codecmeta": ("extract", str(video), "--frames", "0", "--residual", "none", "--pixels", "none", "--jobs", "0"),
        "compress": ("run", "--meta", str(tmp_path / "a.npz"), "--method", "random"),
    }[program]
    written, seen = run_on_terminal(program, *arguments, "--out", str(tmp_path / "out"), "--json")
    assert [json.loads(line)["status"] for line in written.splitlines()] == ["done"]
    assert {"codecmeta": b"extracting", "compress": b"compressing"}[program] in seen
    assert b'"status"' not in seen
