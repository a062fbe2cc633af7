"""Gathers the JSON lines of several runs in one file of results, and prints the tables of the documentation.

    python -m bench.accuracy.gather seed0=seed0.jsonl seed1=seed1.jsonl --out bench/results/accuracy.json
    python -m bench.accuracy.gather --out bench/results/accuracy.json --pair seed0 seed1      # tables of both

Every two runs over the same families are compared: how far they rank methods alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np

from compress.accuracy.methods import IDENTITY

TOLD: Final = 0.1
"""Retention at which accuracy per family is printed."""
DIGITS: Final = 4

Line = Mapping[str, Any]


def read_run(file: Path) -> dict[str, Any]:
    """Read what `compress accuracy --out` wrote, without what every line repeats, and with rounded numbers."""
    lines: list[Line] = [json.loads(line) for line in file.read_text().splitlines()]
    return {"about": lines[0]["about"], "rows": [_shorten(line) for line in lines]}


def correlate(rows: Sequence[Line], others: Sequence[Line]) -> dict[str, float]:
    """Rank correlation of the methods of two runs, by retention; ablations and the identity are left out.

    There is none of runs over different families.
    """
    found: dict[str, float] = {}
    if rows[0]["families"].keys() != others[0]["families"].keys():
        return found
    for retention in _retentions(rows):
        by_name = [
            {row["method"]: row["corrected"]["value"] for row in run if _counts(row) and row["retention"] == retention}
            for run in (rows, others)
        ]
        names = sorted(by_name[0].keys() & by_name[1].keys())
        if len(names) > 2:
            ranks = [_rank([values[name] for name in names]) for values in by_name]
            found[f"{retention:g}"] = round(float(np.corrcoef(*ranks)[0, 1]), 2)
    return found


def write_tables(rows: Sequence[Line]) -> Iterator[str]:
    """Accuracy over guessing by method and retention, and per family at one retention, as Markdown."""
    retentions = _retentions(rows)
    by_name: dict[str, dict[float, Line]] = {}
    for row in rows:
        if row["method"] != IDENTITY.name:
            by_name.setdefault(row["method"], {})[row["retention"]] = row
    told = TOLD if TOLD in retentions else retentions[-1]
    yield f"| method | {' | '.join(f'{100 * one:g} %' for one in retentions)} | kept at {100 * told:g} % |"
    yield "|---" * (len(retentions) + 2) + "|"
    for name, found in by_name.items():
        cells = [_with_half_width(found[one]["corrected"]) for one in retentions]
        yield f"| `{name}` | {' | '.join(cells)} | {100 * found[told]['kept']:.1f} % |"
    yield ""
    families = list(rows[0]["families"])
    yield f"| at {100 * told:g} % | {' | '.join(families)} |"
    yield "|---" * (len(families) + 1) + "|"
    for name, found in by_name.items():
        cells = [f"{100 * found[told]['families'][family]['accuracy']['value']:.0f}" for family in families]
        yield f"| `{name}` | {' | '.join(cells)} |"


def write_pair(one: Sequence[Line], other: Sequence[Line]) -> Iterator[str]:
    """Tables of two runs by the same methods, ``one / other`` in every cell, as Markdown.

    Accuracy over guessing by method and retention; then at each retention the paired difference to random tokens, and
    accuracy per family.
    """
    rows = [{(row["method"], row["retention"]): row for row in run} for run in (one, other)]
    retentions = _retentions(one)
    names = [name for name in dict.fromkeys(row["method"] for row in one) if (name, retentions[0]) in rows[1]]
    yield f"| method | {' | '.join(f'{100 * share:g} %' for share in retentions)} |"
    yield "|---" * (len(retentions) + 1) + "|"
    for name in names:
        cells = [_pair(_with_half_width(run[name, share]["corrected"]) for run in rows) for share in retentions]
        yield f"| `{name}` | {' | '.join(cells)} |"
    families = list(one[0]["families"])
    for share in retentions:
        yield ""
        yield f"| at {100 * share:g} % | less random | {' | '.join(families)} |"
        yield "|---" * (len(families) + 2) + "|"
        for name in names:
            found = [run[name, share] for run in rows]
            less = _pair(_with_interval(row["minus_random"]) for row in found if "minus_random" in row)
            cells = [
                _pair(f"{100 * row['families'][one]['accuracy']['value']:.0f}" for row in found) for one in families
            ]
            yield f"| `{name}` | {less} | {' | '.join(cells)} |"


def _pair(cells: Iterable[str]) -> str:
    return " / ".join(cells)


def _with_interval(figure: Mapping[str, float]) -> str:
    low, high = 100 * figure["low"], 100 * figure["high"]
    return f"{100 * figure['value']:+.1f} ({low:.1f} to {high:.1f})"


def _shorten(line: Line) -> dict[str, Any]:
    kept = {name: line[name] for name in ("method", "group", "settings", "map", "retention")}
    families = {
        name: {part: _rounded(score[part]) for part in ("accuracy", "corrected")}
        for name, score in line["families"].items()
    }
    macro = {part: _rounded(line["macro"][part]) for part in ("accuracy", "of_full", "corrected")}
    against: dict[str, Any] = {
        name: _rounded(line[name]) for name in ("minus_full", "minus_random") if line[name] is not None
    }
    if "minus_shipped" in line:
        against["minus_shipped"] = {name: _rounded(one) for name, one in line["minus_shipped"].items()}
    return {**kept, "kept": round(line["kept"], DIGITS), **macro, **against, "families": families}


def _rounded(figure: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, DIGITS) for name, value in figure.items()}


def _with_half_width(figure: Mapping[str, float]) -> str:
    return f"{100 * figure['value']:.1f} ±{50 * (figure['high'] - figure['low']):.1f}"


def _counts(row: Line) -> bool:
    return row["group"] != "ablation" and row["method"] != IDENTITY.name


def _retentions(rows: Sequence[Line]) -> list[float]:
    return sorted({row["retention"] for row in rows if row["method"] != IDENTITY.name}, reverse=True)


def _rank(values: Sequence[float]) -> list[float]:
    """Ranks, the mean of theirs for equal values."""
    order = sorted(values)
    return [order.index(value) + (order.count(value) - 1) / 2 for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="NAME=FILE, JSON lines of compress accuracy --out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--add", action="store_true", help="keep the runs that the file holds already")
    parser.add_argument(
        "--pair", nargs=2, metavar="RUN", help="print tables of two runs of the file, and change nothing"
    )
    options = parser.parse_args()
    if options.pair:
        runs = json.loads(options.out.read_text())["runs"]
        print("\n".join(write_pair(*(runs[name]["rows"] for name in options.pair))))
        return
    held = json.loads(options.out.read_text())["runs"] if options.add else {}
    runs = held | {name: read_run(Path(file)) for name, _, file in (run.partition("=") for run in options.runs)}
    record: dict[str, Any] = {"runs": runs}
    for one, other in combinations(runs, 2):
        if found := correlate(runs[one]["rows"], runs[other]["rows"]):
            record.setdefault("rank_correlation", {})[f"{one} {other}"] = found
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record) + "\n")
    for name, run in runs.items():
        print(f"\n{name}: {run['about']['clips']} clips, {run['about']['questions']} questions\n")
        print("\n".join(write_tables(run["rows"])))
    print(f"\n{json.dumps(record.get('rank_correlation', {}))}")


if __name__ == "__main__":
    main()
