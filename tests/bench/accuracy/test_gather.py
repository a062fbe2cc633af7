"""Runs in one file of results: figures are those of the lines, and models that rank alike differ from others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.accuracy import gather
from bench.accuracy.gather import correlate, read_run, write_pair, write_tables
from compress.accuracy.results import Row, tabulate
from tests.compress.accuracy.fabricated import ABOUT, fabricate, make_job

JOB = make_job("btm,rpm,random,oracle,rpm-texture", retentions=(0.3, 0.1))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return tabulate(JOB, fabricate(JOB), ABOUT)


@pytest.fixture
def lines(rows: list[Row], tmp_path: Path) -> Path:
    file = tmp_path / "one.jsonl"
    file.write_text("".join(f"{row.to_json()}\n" for row in rows))
    return file


def test_a_run_is_its_lines(rows: list[Row], lines: Path) -> None:
    run = read_run(lines)
    assert run["about"] == ABOUT
    assert len(run["rows"]) == len(rows)
    for short, row in zip(run["rows"], rows, strict=True):
        assert (short["method"], short["retention"]) == (row.method, row.retention)
        assert short["corrected"]["low"] == pytest.approx(row.macro.corrected.low, abs=1e-4)
        assert short["families"]["count"]["accuracy"]["value"] == pytest.approx(
            row.families["count"].accuracy.value, abs=1e-4
        )


def test_ranks_of_two_runs(lines: Path) -> None:
    rows = read_run(lines)["rows"]
    assert correlate(rows, rows) == {"0.3": 1.0, "0.1": 1.0}
    values = {row["method"]: -row["corrected"]["value"] for row in rows if row["retention"] == 0.1}
    turned = [
        {**row, "corrected": {"value": values[row["method"]]}} if row["retention"] == 0.1 else row for row in rows
    ]
    assert correlate(rows, turned) == {"0.3": 1.0, "0.1": -1.0}
    assert correlate(rows, rows[:3]) == {}
    assert correlate(rows, [{**row, "families": {"colour": {}}} for row in rows]) == {}


def test_tables_name_every_method_once(lines: Path) -> None:
    text = list(write_tables(read_run(lines)["rows"]))
    for name in ("btm", "rpm", "random", "oracle", "rpm-texture"):
        assert sum(line.startswith(f"| `{name}` |") for line in text) == 2
    assert not any("everything" in line for line in text)
    assert text[0] == "| method | 30 % | 10 % | kept at 10 % |"


def test_a_table_of_two_runs_has_both_figures_in_every_cell(lines: Path) -> None:
    rows = read_run(lines)["rows"]
    worse = [{**row, "corrected": {name: value - 0.5 for name, value in row["corrected"].items()}} for row in rows]
    text = list(write_pair(rows, worse))
    (btm,) = (row for row in rows if row["method"] == "btm" and row["retention"] == 0.3)
    value = 100 * btm["corrected"]["value"]
    (line, *families) = (line for line in text if line.startswith("| `btm` |"))
    assert f"{value:.1f} ±" in line and f" / {value - 50:.1f} ±" in line
    assert len(families) == 2  # one per retention
    assert f"| {100 * btm['minus_random']['value']:+.1f} (" in families[0]
    assert not any("everything" in line for line in text)


def test_the_command_writes_them(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "results.json"
    monkeypatch.setattr("sys.argv", ["gather", f"a={lines}", f"b={lines}", "--out", str(out)])
    gather.main()
    record = json.loads(out.read_text())
    assert list(record["runs"]) == ["a", "b"]
    assert record["rank_correlation"] == {"a b": {"0.3": 1.0, "0.1": 1.0}}

    monkeypatch.setattr("sys.argv", ["gather", f"b={lines}", f"c={lines}", "--add", "--out", str(out)])
    gather.main()
    added = json.loads(out.read_text())
    assert list(added["runs"]) == ["a", "b", "c"]
    assert added["runs"]["a"] == record["runs"]["a"]
    assert list(added["rank_correlation"]) == ["a b", "a c", "b c"]

    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["gather", "--pair", "a", "c", "--out", str(out)])
    gather.main()
    assert "| at 10 % | less random |" in capsys.readouterr().out
    assert json.loads(out.read_text()) == added
