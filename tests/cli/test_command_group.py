"""Command group of both commands: no empty argument reaches a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from codecmeta_cli.codecmeta import app as codecmeta
from codecmeta_cli.compress import app as compress
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("app", "words", "place"),
    [
        (codecmeta, ("extract", "VIDEO", "--out", ""), "after --out"),
        (codecmeta, ("extract", "VIDEO", "--out="), "--out="),
        (codecmeta, ("status", ""), "after status"),
        (codecmeta, ("verify", "--deep", ""), "after --deep"),
        (codecmeta, ("warmup", "--cache", ""), "after --cache"),
        (compress, ("run", "--meta", ""), "after --meta"),
        (compress, ("run", "--meta", "META", "--out", ""), "after --out"),
    ],
)
def test_empty_arguments_are_refused(
    app: object, words: tuple[str, ...], place: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is not set is no name of the current folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    given = {"VIDEO": str(data / "still_h264.mp4"), "META": str(tmp_path)}
    ran = CliRunner().invoke(app, [given.get(word, word) for word in words])  # type: ignore[arg-type]
    assert ran.exit_code == 2
    shown = " ".join(ran.stderr.replace("│", " ").split())
    assert place in shown
    assert "a variable of the shell may not be set" in shown
    assert not list(here.iterdir())


def test_what_follows_two_dashes_is_passed_on() -> None:
    ran = CliRunner().invoke(codecmeta, ["status", "--", ""])
    assert "may not be set" not in ran.stderr
