"""Rows, tables and pictures from fabricated answers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from compress.accuracy.measure import FULL
from compress.accuracy.methods import IDENTITY
from compress.accuracy.plot import draw, lower_end, spread_apart
from compress.accuracy.questions import CHANCE, FAMILIES
from compress.accuracy.results import Row, group_rows, tabulate
from compress.accuracy.table import families, overview, write_markdown
from compress.errors import ConfigError
from tests.compress.accuracy.fabricated import ABOUT, fabricate, make_job

JOB = make_job("btm,rpm,random,oracle", retentions=(0.3, 0.1))
RESULTS = fabricate(JOB)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return tabulate(JOB, RESULTS, ABOUT)


def accuracy(cell: str, family: str) -> float:
    marks = [
        mark
        for one in RESULTS
        for kind, mark in zip(one.families, one.cells[cell].right, strict=True)
        if kind == family
    ]
    return float(np.mean(marks))


def test_rows_by_hand(rows: list[Row]) -> None:
    (row,) = [row for row in rows if (row.method, row.retention) == ("btm", 0.1)]
    full = np.mean([accuracy(FULL, name) for name in FAMILIES])
    found = np.mean([accuracy("btm@0.1", name) for name in FAMILIES])
    lot = np.mean([accuracy("random@0.1", name) for name in FAMILIES])
    chance = np.mean([CHANCE[name] for name in FAMILIES])
    assert row.macro.accuracy.value == pytest.approx(found)
    assert row.macro.of_full.value == pytest.approx(found / full)
    assert row.macro.corrected.value == pytest.approx((found - chance) / (full - chance))
    assert row.minus_full.value == pytest.approx(found - full)
    assert row.minus_random is not None
    assert row.minus_random.value == pytest.approx(found - lot)
    for name, score in row.families.items():
        assert score.accuracy.value == pytest.approx(accuracy("btm@0.1", name))
        assert (score.chance, score.questions) == (CHANCE[name], 40)
    assert row.macro.accuracy.low < row.macro.accuracy.value < row.macro.accuracy.high
    assert row.kept == pytest.approx(0.1)


def identity_row(rows: list[Row]) -> Row:
    return next(row for row in rows if row.method == IDENTITY.name)


def test_the_identity_is_the_full_model_without_an_interval(rows: list[Row]) -> None:
    row = identity_row(rows)
    assert (row.macro.corrected.value, row.macro.corrected.low, row.macro.corrected.high) == (1, 1, 1)
    assert row.minus_random is None


def test_random_is_not_compared_with_itself(rows: list[Row]) -> None:
    assert [row.minus_random is None for row in rows if row.method in ("random", "oracle")] == [
        True,
        True,
        False,
        False,
    ]


def test_kept_is_of_what_the_method_shortens(rows: list[Row]) -> None:
    (row,) = [row for row in rows if (row.method, row.retention) == ("rpm", 0.3)]
    assert (row.kept, row.tokens_out) == (0.3, 784)


def test_lines_are_json(rows: list[Row]) -> None:
    for row in rows:
        line = json.loads(row.to_json())
        assert line["about"]["clips"] == 40
        assert line["macro"]["accuracy"]["value"] == row.macro.accuracy.value


def test_families_that_were_never_asked_are_left_out() -> None:
    job = make_job("btm", retentions=(0.3,))
    few = fabricate(job, clips=3, per_clip=2)
    row = tabulate(job, few, ABOUT)[0]
    assert set(row.families) == {kind for one in few for kind in one.families} != set(FAMILIES)
    assert "NaN" not in row.to_json()


def test_tables_show_every_method(rows: list[Row]) -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(overview(rows))
    console.print(families(rows, 0.1))
    text = console.export_text()
    for name in group_rows(rows):
        assert text.count(name) >= 2
    (row,) = [row for row in rows if (row.method, row.retention) == ("oracle", 0.1)]
    assert f"{100 * row.macro.corrected.value:.1f} ±" in text
    assert "| oracle | " in write_markdown(rows)
    assert f"{100 * row.macro.corrected.low:.1f} to {100 * row.macro.corrected.high:.1f}" in write_markdown(rows)


def test_pictures(rows: list[Row], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(rows, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert all(f"<!-- {name} -->" in text for name in ("btm", "rpm", "random", "oracle"))
    with pytest.raises(ConfigError, match="no methods"):
        draw([identity_row(rows)], tmp_path / "b.svg")
    guessing = fabricate(JOB)
    for one in guessing:
        one.cells[FULL].right[:] = [0.0] * len(one.families)
    with pytest.raises(ConfigError, match="guessing"):
        draw(tabulate(JOB, guessing, ABOUT), tmp_path / "b.svg")


def test_labels_keep_their_distance() -> None:
    heights = spread_apart([10, 11, 11.5, 60], gap=5, low=2, high=98)
    assert (np.diff(heights) >= 5 - 1e-9).all()
    assert heights[-1] == 60
    crowded = spread_apart([97.0] * 8, gap=5, low=2, high=98)
    assert (np.diff(crowded) >= 5 - 1e-9).all() and crowded[-1] == 98
    assert np.allclose(np.diff(spread_apart([50.0] * 40, gap=5, low=0, high=100)), 100 / 39)


def test_the_axis_leaves_room_below_curves_at_the_top() -> None:
    assert [lower_end(value) for value in (-3.0, 12.0, 25.0, 89.0, 95.0, 100.0, 100.5)] == [-3, 0, 20, 80, 90, 90, 90]
