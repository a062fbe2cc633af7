"""Figures of the pages are those of bench/results: tables are read back and compared with what the benchmarks wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.accuracy.gather import write_pair
from bench.compare import write_row
from bench.method_panels import EVERY, Panel, gather_panels
from bench.method_table import PARTS, write_all, write_merging

ROOT = Path(__file__).resolve().parents[2]
SHARES = (0.3, 0.15, 0.1, 0.05)
LABELS = {
    "**Cover** (ours)": "cover", "ToMe of Video-LLM papers": "tome-video", "uniform stride": "stride",
    "random tokens": "random", "fewer frames": "frames", "average pooling in space": "pool-space",
    "average pooling in time": "pool-time",
}  # fmt: skip
"""What docs/accuracy.md calls methods whose name does not follow from it."""


def results(name: str) -> Any:
    return json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def numbers(cells: str) -> list[float]:
    return [float(one) for one in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?", cells)]


def table(text: str, head: str, *, which: int = 0) -> dict[str, list[float]]:
    """Read the numbers of the rows below one of the equal headings, by first cell."""
    body = text.split(f"\n{head}\n")[which + 1].split("\n\n")[0]
    rows = (line.strip("|").partition("|") for line in body.splitlines()[1:])
    return {name.strip().strip("`"): numbers(cells) for name, _, cells in rows}


def differing(found: Mapping[str, list[float]], wanted: Mapping[str, Iterable[float]], off: float) -> dict[str, Any]:
    """Rows whose numbers are further off than rounding, or that one side lacks."""
    rows = {name: (found.get(name), [float(one) for one in wanted.get(name, [])]) for name in {*found, *wanted}}
    return {
        name: pair
        for name, pair in rows.items()
        if pair[0] is None or len(pair[0]) != len(pair[1]) or not np.allclose(*pair, rtol=0, atol=off + 1e-9)
    }


@pytest.fixture(scope="module")
def runs() -> Any:
    return results("accuracy")["runs"]


@pytest.fixture(scope="module")
def panels(runs: Any) -> dict[str, Panel]:
    return gather_panels([[runs[name] for name in names] for names in EVERY], {})


@pytest.mark.parametrize("which", [0, 1])
def test_accuracy_of_both_judges(runs: Any, which: int) -> None:
    head, _, *lines = write_pair(*(runs[names[which]]["rows"] for names in EVERY))
    wanted = table("\n" + "\n".join([head, "|---|", *lines]), head)
    found = table(page("docs/accuracy-lab.md"), head, which=which)
    assert len(found) >= 9
    assert differing(found, wanted, 0.1) == {}  # results are rounded to four digits, pages were not made from these


def test_the_short_table_of_accuracy(panels: Mapping[str, Panel]) -> None:
    found = table(page("docs/accuracy.md"), "| method | 30 % | 15 % | 10 % | 5 % |")
    names = {label: LABELS.get(label, label.lower().replace(" ", "-")) for label in found}
    wanted = {}
    for label, name in names.items():
        values = dict(zip(panels[name].kept.round(), panels[name].value.T, strict=True))
        wanted[label] = [value for share in SHARES for value in values[round(100 * share)]]
    assert len(found) >= 20
    assert differing(found, wanted, 0.51) == {}


def test_tables_that_join_accuracy_and_time(panels: Mapping[str, Panel]) -> None:
    timed, text = results("first_token")["rows"], page("docs/methods.md")
    lines = [*write_all(panels, timed, results("compare")["rows"]), *write_merging(panels, timed)]
    assert [line for line in lines if line not in text] == []


def test_times_of_methods() -> None:
    rows, text = results("compare")["rows"], page("docs/methods.md")
    assert [line for line in map(write_row, rows) if line not in text] == []
    head = next(line for line in page("README.md").splitlines() if line.startswith("| 32 x 196 tokens"))
    names = re.findall("`([a-z0-9-]+)`", head)
    stages = {name: [row for row in rows if row["method"] in PARTS.get(name, (name,))] for name in names}
    ours = {name: sum(row["ours_ms"] for row in of) for name, of in stages.items()}
    plain = {name: sum(row["plain_ms"] for row in of) for name, of in stages.items()}
    found = table(page("README.md"), head)
    assert differing({"ms": found.pop("ms")}, {"ms": ours.values()}, 0.5) == {}
    wanted = {
        "of a plain implementation's time": [
            of[0]["ratio"] if len(of) == 1 else ours[name] / plain[name] for name, of in stages.items()
        ],
        "MB besides the inputs": [max(row["ours_mb"] for row in of) for of in stages.values()],
    }
    for name, off in zip(wanted, (0.005, 0.5), strict=True):
        assert differing({name: found[name]}, {name: wanted[name]}, off) == {}


def test_prefill_on_a_processor() -> None:
    record = results("prefill_cpu")
    found = table(
        page("docs/models.md"),
        "| case | tokens | prefill x | first token x | compression, share of the time saved |",
    )
    wanted = {}
    for case in record["cases"]:
        name, share = case["case"].rsplit(" ", 1)
        title = {"infomerge": "InfoMerge", "by attention": "InfoMerge by attention", "btm": "BTM"}[name]
        wanted[f"{title}, {100 * float(share):g} %"] = [
            case["tokens"],
            case["speed_up"],
            case["goal"],
            record["plain_first_token_seconds"] / case["first_token_seconds"],
            100 * case["share_of_saved"],
            100 * case["share_goal"],
        ]
    assert differing(found, wanted, 0.05) == {}
    largest = max(case["share_of_saved"] for case in record["cases"])
    assert f"at most {100 * largest:.1f} % of the time" in page("README.md")


def test_what_reading_costs() -> None:
    extract, text = results("extract"), page("docs/residuals.md")
    eight, sixty = ([extract["defaults"]["clips"][f"{codec}_720p_{seconds}s.{ending}"]["ratio"] for codec, ending in
                     (("h264", "mp4"), ("hevc", "mp4"), ("vp9", "webm"))] for seconds in (8, 60))  # fmt: skip
    assert "eight seconds of H.264 {:.2f} times,\nof HEVC {:.2f}, of VP9 {:.2f};".format(*eight) in text
    assert "one minute {:.2f}, {:.2f} and {:.2f} times".format(*sixty) in text
    record = results("h264_residual")
    shares = [row["measure_ms"] / row["ffmpeg_ms"] for row in record["all_frames"].values()]
    span = f"{min(shares):.2f} to {max(shares):.2f} of the time of FFmpeg's decoder on one thread, over {len(shares)} "
    assert span in text
    long = record["long_clip"]
    assert f"{long['share_percent']:.2f} % of it\n({1000 * long['measure_s']:.0f} ms;" in text
    assert round(long["times_faster_than_peer"], -1) == 250
    alone = extract["clips"]["rendered_720p_1min.mp4"]["uniform:32, innovation, no pixels"]
    assert f"without pixels takes {1000 * alone:.0f} ms" in page("docs/reliability.md")


def test_how_close_cheaper_signals_are() -> None:
    record = results("residual_fidelity")
    whole, clips = record["all"], [found["types"] for found in record["clips"].values()]
    head = "| signal | " + " | ".join(f"{kind}, {row['pictures']} pictures" for kind, row in whole.items()) + " |"
    wanted = {
        name: [
            one
            for kind, row in whole.items()
            for one in (*row[name], min(types[kind][name][0] for types in clips if kind in types))
        ]
        for name in whole["I"]
        if name != "pictures"
    }
    assert differing(table(page("docs/residuals.md"), head), wanted, 0.005) == {}


def test_a_figure_that_differs_is_found() -> None:
    first = "\n| a | b |\n|---|---|\n| `x` | 93.5 ±2.9 / 92.1 ±2.7 |\n| `y` | +3.0 (-0.5 to 6.0) |\n"
    text = f"{first}\n| a | b |\n|---|\n| z | 1 |\n"
    found = table(text, "| a | b |")
    assert found == {"x": [93.5, 2.9, 92.1, 2.7], "y": [3.0, -0.5, 6.0]}
    assert table(text, "| a | b |", which=1) == {"z": [1.0]}
    assert differing(found, found, 0) == {}
    assert list(differing(found, {"x": [93.5, 2.9, 92.1, 3.7], "y": [3.0, -0.5, 6.0]}, 0.1)) == ["x"]
    assert sorted(differing(found, {"x": found["x"], "w": [1]}, 0.1)) == ["w", "y"]
