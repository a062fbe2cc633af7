"""The command `codecmeta warmup`: what a shell makes of the lines that it prints, and folders that it refuses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from codecmeta_cli.codecmeta import app
from typer.testing import CliRunner

from codecmeta.batch import warmup


@pytest.mark.parametrize("name", ["kernels", "it's $(touch x) mine"])
def test_a_shell_takes_the_environment_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "compile_kernels", lambda **options: [])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    result = CliRunner().invoke(app, ["warmup", "--cache", str(tmp_path / name)])
    assert result.exit_code == 0
    script = f'{result.stdout}printf %s "$NUMBA_CACHE_DIR"'
    shown = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout == str(tmp_path / name)
    assert not (tmp_path / "x").exists()


def test_a_cache_that_cannot_be_written_is_refused_before_kernels_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warmup, "compile_kernels", lambda **options: pytest.fail("compiled"))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        result = CliRunner().invoke(app, ["warmup", "--cache", str(place)])
        assert result.exit_code == 2
        assert f"--cache {place}: " in result.stderr and "give a folder" in result.stderr
