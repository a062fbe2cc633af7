"""`codecmeta status` and `retry`, shards and lists separated by NUL on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
from click.testing import Result
from codecmeta_cli.codecmeta import app
from typer.testing import CliRunner

from codecmeta.errors import SourceCode

LIGHT = ("--frames", "uniform:2", "--pixels", "none", "--residual", "none", "--jobs", "0")


def invoke(*words: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


@pytest.fixture
def videos(tmp_path: Path, data: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(4):
        shutil.copy(data / "still_h264.mp4", folder / f"{number}.mp4")
    (folder / "bad.mp4").write_text("text")
    return folder


def test_two_shards_and_a_retry(videos: Path, tmp_path: Path, data: Path) -> None:
    meta = tmp_path / "meta"
    codes = [invoke("extract", videos, "--out", meta, *LIGHT, "--shard", f"{index}/2").exit_code for index in (0, 1)]
    assert sorted(codes) == [0, 1]
    shown = invoke("status", meta, "--failures")
    assert shown.exit_code == 1
    assert "4" in shown.stdout
    assert "unreadable  " in shown.stdout
    status = json.loads(invoke("status", meta, "--json").stdout)
    assert (status["inputs"], status["done"], status["failed"], status["missing"]) == (5, 4, 1, 0)
    assert status["failed_by_code"] == {"unreadable": 1}
    assert status["verdicts"] == {"complete": 4, "truncated": 0, "damaged": 0, "unknown": 0}
    assert status["runs"] == {"0/2": "complete", "1/2": "complete"}
    assert invoke("retry", meta, "--jobs", "0").exit_code == 1, "it fails again"
    shutil.copy(data / "still_h264.mp4", videos / "bad.mp4")
    assert invoke("retry", meta, "--jobs", "0", "--code", "timeout").exit_code == 0, "no such failure"
    again = invoke("retry", meta, "--jobs", "0", "--json")
    assert again.exit_code == 0
    (line,) = (json.loads(line) for line in again.stdout.splitlines())
    assert (Path(line["source"]).name, line["status"]) == ("bad.mp4", "done")
    assert invoke("status", meta).exit_code == 0


def test_parts_of_a_retry(videos: Path, tmp_path: Path) -> None:
    """Each task of an array does again what belongs to its part, and writes a manifest of its own."""
    meta = tmp_path / "meta"
    assert invoke("extract", videos, "--out", meta, *LIGHT).exit_code == 1
    for record in meta.glob("*.npz"):
        record.unlink()
    done = []
    for index in range(3):
        again = invoke("retry", meta, "--jobs", "0", "--json", "--shard", f"{index}/3")
        lines = [json.loads(line) for line in again.stdout.splitlines()]
        done.append({Path(line["source"]).name for line in lines if line["status"] == "done"})
        assert (meta / f"manifest-{index}-of-3.jsonl").exists() == bool(lines)
    assert sorted(name for part in done for name in part) == [f"{number}.mp4" for number in range(4)]
    assert sum(map(bool, done)) > 1
    assert json.loads(invoke("status", meta, "--json").stdout)["gone"] == 0
    assert invoke("retry", meta, "--jobs", "0", "--shard", "3/3").exit_code == 2


@pytest.mark.parametrize("run", ['{"options": 3}', '{"options": [["frames"]]}', '{"options": {"frames": 5}}', "[]"])
def test_a_run_record_that_is_none(videos: Path, tmp_path: Path, run: str) -> None:
    meta = tmp_path / "meta"
    invoke("extract", videos, "--out", meta, *LIGHT)
    (meta / "run.json").write_text(run)
    (meta / "summary-1-of-2.json").write_text('{"listed": "many", "shard": 7}')
    refused = invoke("retry", meta, "--jobs", "0")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert str(meta) in refused.stderr
    assert json.loads(invoke("status", meta, "--json").stdout)["runs"] == {"0/1": "complete"}


def test_verdicts_and_advice(videos: Path, tmp_path: Path, data: Path) -> None:
    """A file that goes on after its end is damaged; a record that was deleted is missing."""
    with (videos / "0.mp4").open("ab") as file:
        file.write((data / "still_h264.mp4").read_bytes())
    (videos / "bad.mp4").unlink()
    meta = tmp_path / "meta"
    assert invoke("extract", videos, "--out", meta, *LIGHT).exit_code == 0
    shown = invoke("status", meta)
    assert {tuple(line.split()) for line in shown.stdout.splitlines()} >= {("complete", "3"), ("damaged", "1")}
    assert (shown.exit_code, "extract command again" in shown.stdout) == (0, False)
    (meta / "0.mp4.npz").unlink()
    shown = invoke("status", meta)
    assert {tuple(line.split()) for line in shown.stdout.splitlines()} >= {("complete", "3"), ("damaged", "0")}
    assert (shown.exit_code, "run the same extract command again" in shown.stdout) == (1, True)


@pytest.mark.parametrize("code", ["trunkated", "bad_record"])
def test_a_code_that_extract_never_reports(videos: Path, tmp_path: Path, code: str) -> None:
    meta = tmp_path / "meta"
    invoke("extract", videos, "--out", meta, *LIGHT)
    refused = invoke("retry", meta, "--jobs", "0", "--code", f"truncated,{code}")
    assert refused.exit_code == 2
    assert f"unknown code '{code}'; choose from unreadable, " in refused.stderr
    assert invoke("retry", meta, "--jobs", "0", "--code", "truncated").exit_code == 0


def test_lists_separated_by_nul(videos: Path, tmp_path: Path) -> None:
    strange = videos / "line\nbreak.mp4"
    (videos / "0.mp4").rename(strange)
    names = b"\0".join(str(path).encode() for path in (strange, videos / "1.mp4"))
    done = invoke("extract", "-0", "-", "--out", tmp_path / "a", *LIGHT, "--json", stdin=names + b"\0")
    assert done.exit_code == 0
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == [str(strange), str(videos / "1.mp4")]
    (tmp_path / "list").write_bytes(names)
    assert invoke("extract", "--null", f"@{tmp_path / 'list'}", "--out", tmp_path / "b", *LIGHT).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "b").glob("*.npz")) == ["1.mp4.npz", "line\nbreak.mp4.npz"]


def test_wrong_usage(videos: Path, tmp_path: Path) -> None:
    for words in (
        ("extract", videos, "--out", tmp_path / "m", "--shard", "2/2"),
        ("extract", videos, "--out", tmp_path / "m", "--engine", "ray", "--jobs", "0"),
        ("status", videos),
        ("retry", videos),
    ):
        assert invoke(*words).exit_code == 2, words


def test_options_that_do_not_fit_a_video_have_a_code(data: Path, tmp_path: Path) -> None:
    """The code that `extract` writes is one of the listed ones, and `retry` takes it."""
    meta = tmp_path / "meta"
    ran = invoke("extract", data / "still_h264.mp4", "--out", meta, *LIGHT, "--track", "7", "--json")
    assert ran.exit_code == 1
    (line,) = map(json.loads, ran.stdout.splitlines())
    assert line["code"] in get_args(SourceCode)
    again = invoke("retry", meta, "--jobs", "0", "--code", line["code"])
    assert (again.exit_code, "1 failed" in again.stderr) == (1, True)
