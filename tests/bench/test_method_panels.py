"""Pictures of every method: each has one panel, with the figures of both judges and nothing of another method."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.method_panels import EVERY, PICTURES, describe, draw_panels, gather_panels
from compress.accuracy.methods import MEASURED

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for _, names in PICTURES.values() for name in names]


def run(names: list[str], level: float, *, clips: int = 60) -> dict[str, Any]:
    rows = [
        {"method": name, "retention": share, "kept": share, "corrected": {"value": at, "low": at - 0.02, "high": at}}
        for number, name in enumerate(names)
        for share in (0.5, 0.1, 0.05)
        for at in (level + share + 0.001 * number,)
    ]
    return {"about": {"clips": clips}, "rows": rows}


def test_every_measured_method_has_one_panel() -> None:
    assert sorted(NAMES) == sorted(name for name, method in MEASURED.items() if method.group != "ablation")


def test_results_hold_every_panel_at_six_retentions() -> None:
    runs = json.loads((ROOT / "bench" / "results" / "accuracy.json").read_text(encoding="utf-8"))["runs"]
    panels = gather_panels([[runs[name] for name in names] for names in EVERY], {})
    assert {panel.value.shape for panel in panels.values()} == {(2, 6)}


def test_panels_hold_the_figures_of_their_method() -> None:
    timed = {
        "pool@0.1": {"first_token_ratio": 2.07, "tower_ratio": 0.81},
        "cover@0.5": {"first_token_ratio": 9.0, "tower_ratio": 9.0},
    }
    inner = ["cover", NAMES[-1]]
    panels = gather_panels(
        [[run(NAMES[:-1], 0.2), run(inner, 0.7, clips=20)], [run(NAMES[:-1], 0.3), run(inner, 0.8, clips=20)]], timed
    )
    np.testing.assert_allclose(panels["cover"].kept, [5, 10, 50])  # ascending, of the first run that has it
    np.testing.assert_allclose(panels["cover"].value, [[25, 30, 70], [35, 40, 80]])
    np.testing.assert_allclose(panels["cover"].low, panels["cover"].value - 2)
    assert (panels["cover"].clips, panels[NAMES[-1]].clips) == (60, 20)
    assert panels["cover"].faster is None  # timed at another retention
    assert describe(panels["cover"]) == "30 / 40"
    assert describe(panels["pool-space"]) == "31 / 41 · 2.1× · 0.8×"


def test_a_method_that_no_run_holds_is_named() -> None:
    with pytest.raises(KeyError, match="unified-sttc-inner"):
        gather_panels([[run(NAMES[:-1], 0.2)]], {})


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_name_their_methods_and_load_nothing(picture: str, tmp_path: Path) -> None:
    panels = gather_panels([[run(NAMES, 0.2)], [run(NAMES, 0.3)]], {})
    draw_panels(picture, panels, tmp_path / "panels.svg")
    text = (tmp_path / "panels.svg").read_text(encoding="utf-8")
    assert [name for name in re.findall(r'<g id="([\w-]+)"', text) if name in NAMES] == list(PICTURES[picture][1])
    assert re.findall(r'(?:href|src)="(?!#)([^"]*)"', text) == []
    (width,) = re.findall(r'<svg[^>]* width="([\d.]+)pt"', text)
    assert 2 * float(width) / 72 * 96 <= 680  # two fit the column of the site, one a page 390 pixels wide
