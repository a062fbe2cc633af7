"""The command `compress compare`: table, JSON lines, page and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from codecmeta_cli.compress import app
from typer.testing import CliRunner, Result

import codecmeta
from compress.methods import METHODS

FEW = ("--methods", "metom,stride", "--retention", "0.3,0.1", "--repeats", "1")


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def record(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("meta") / "cut.mkv.npz"
    codecmeta.extract(data / "cut_h264.mkv", frames="uniform:4").save(path)
    return path


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_table_and_page(record: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "compare.html"
    result = compare("--meta", record, *FEW, "--html", page)
    assert result.exit_code == 0, result.output
    for expected in ("metom", "stride", "235", "78", "assign", "residual", "medians over videos"):
        assert expected in result.stdout
    assert page.read_text(encoding="utf-8").count("<tr>") == 1 + 4


def test_json_lines_are_one_per_video_method_and_retention(record: Path, tmp_path: Path) -> None:
    (tmp_path / "good.npz").write_bytes(record.read_bytes())
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    result = compare("--meta", tmp_path, *FEW, "--json")
    assert result.exit_code == 1
    bad, *good = lines(result)
    assert (bad["video"], bad["status"], bad["method"]) == ("bad", "failed", None)
    assert [(one["method"], one["retention"], one["tokens_out"]) for one in good] == [
        ("metom", 0.3, 235), ("metom", 0.1, 78), ("stride", 0.3, 235), ("stride", 0.1, 78)
    ]  # fmt: skip


def test_all_leaves_out_what_needs_a_model_and_says_so(record: Path) -> None:
    result = compare("--meta", record, "--methods", "all", "--retention", "0.1", "--repeats", "1", "--json")
    assert result.exit_code == 0, result.output
    found = lines(result)
    assert {line["method"] for line in found} == set(METHODS)
    omitted = {line["method"]: line["message"] for line in found if line["status"] == "omitted"}
    assert "--model" in omitted["matm"]
    assert {line["status"] for line in found} == {"omitted", "done"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "best"), "unknown method 'best'"),
        (("--methods", "metom,matm"), "works inside a model only"),
        (("--retention", "2"), "retention"),
        (("--prompt", "What?"), "give --model too"),
        (("--random-weights", "llava-onevision-tiny"), "give --prompt"),
        (("--device", "abacus"), "abacus"),
        (("--html", "/"), "--html is '/', a folder"),
        (("--meta", "/nowhere/at/all"), "codecmeta extract"),
    ],
)
def test_wrong_usage_is_2_and_leaves_standard_output_empty(arguments: tuple[str, ...], said: str, record: Path) -> None:
    if "--random-weights" in arguments:
        pytest.importorskip("transformers")
    result = compare("--meta", record, "--json", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_page_that_cannot_be_written_is_3(record: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = compare("--meta", record, *FEW, "--html", tmp_path / "file" / "page.html")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert refused.stderr.startswith("compress: --html is ")
