"""What other weights keep under the same methods on the same clips, compared in pairs with the package's.

    python -m bench.accuracy.compare --weights work/unthinned --families colour,scene --clips 40 \\
        --methods metom,infomerge,random --retention 0.3,0.1 --out unthinned.jsonl --shipped-out shipped.jsonl

Both files hold a JSON line per method and retention as `compress accuracy --out` writes them, over these families
alone; those of the other weights also have the paired difference to the package's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.accuracy.clips import default_cache
from compress.accuracy.measure import FULL, Cell, Examined, Job, cell_name, default_workers, describe, measure
from compress.accuracy.methods import choose
from compress.accuracy.questions import CHANCE, FAMILIES
from compress.accuracy.results import asked_families, resample, tabulate
from compress.accuracy.statistics import Floats, correct_for_chance, draw_weights, macro, macro_chance, summarise

Figures = dict[str, float]


def restrict(results: Sequence[Examined], families: Collection[str]) -> list[Examined]:
    """Return the same clips as if only these families had been asked about."""
    found = []
    for one in results:
        kept = [place for place, family in enumerate(one.families) if family in families]
        cells = {name: _pick(cell, kept) for name, cell in one.cells.items()}
        found.append(replace(one, families=[one.families[place] for place in kept], cells=cells))
    return found


def subtract(results: Sequence[Examined], others: Sequence[Examined], cell: str) -> dict[str, Figures]:
    """Accuracy over guessing of a cell as a share of the full model's, less that of other weights on the same clips.

    Args:
        results: per clip.
        others: by the other weights, of the same clips.
        cell: of `cell_name`.

    Returns:
        Value and interval for every family and, by the name "macro", for their mean.
    """
    one, other = _corrected(results, cell), _corrected(others, cell)
    return {name: asdict(summarise(values - other[name])) for name, values in one.items()}


def _corrected(results: Sequence[Examined], cell: str) -> dict[str, Floats]:
    asked = asked_families(results)
    chance = np.array([CHANCE[name] for name in asked])
    weights = draw_weights(len(results))
    found, full = (resample(results, asked, weights, name) for name in (cell, FULL))
    by_family = correct_for_chance(found, chance, full)
    mean = correct_for_chance(macro(found), macro_chance(full, chance), macro(full))
    return {"macro": mean} | {name: by_family[:, place] for place, name in enumerate(asked)}


def _pick(cell: Cell, kept: Sequence[int]) -> Cell:
    return replace(cell, right=[cell.right[place] for place in kept], exact=[cell.exact[place] for place in kept])


def show(lines: Sequence[Mapping[str, Any]], shipped: Sequence[Mapping[str, Any]]) -> None:
    """Print both runs and their difference as a table in Markdown, in per cent of accuracy over guessing."""
    families = list(lines[0]["families"])
    print(f"| method | shipped | other | other less shipped | {' | '.join(families)} |")
    print("|---" * (len(families) + 4) + "|")
    for line, beside in zip(lines, shipped, strict=True):
        less = line["minus_shipped"]
        cells = [f"`{line['method']}`, {100 * line['retention']:g} %"]
        cells += [f"{100 * one['macro']['corrected']['value']:.1f}" for one in (beside, line)]
        cells += ["{value:+.1f} ({low:+.1f} to {high:+.1f})".format_map(_in_percent(less["macro"]))]
        cells += [f"{100 * less[name]['value']:+.1f}" for name in families]
        print(f"| {' | '.join(cells)} |")


def _in_percent(figure: Mapping[str, float]) -> Figures:
    return {name: 100 * value for name, value in figure.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--methods", default="metom,rpm,btm,infomerge,random,stride,oracle")
    parser.add_argument("--retention", default="0.3,0.15,0.1,0.05")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shipped-out", type=Path, required=True)
    options = parser.parse_args()
    shipped = Job(
        cache=options.cache,
        split="test",
        methods=choose(options.methods),
        retentions=tuple(float(part) for part in options.retention.split(",")),
        device=options.device,
    )
    other = replace(shipped, weights=options.weights)
    workers = options.jobs or default_workers(options.device)
    asked = options.families.split(",")
    theirs, ours = (restrict(measure(job, options.clips, workers=workers), asked) for job in (shipped, other))
    lines, beside = (
        [json.loads(row.to_json()) for row in tabulate(job, results, describe(job, results))]
        for job, results in ((other, ours), (shipped, theirs))
    )
    for line, (method, retention) in zip(lines, other.cells, strict=True):
        line["minus_shipped"] = subtract(ours, theirs, cell_name(method, retention))
    for file, written in ((options.out, lines), (options.shipped_out, beside)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{json.dumps(line)}\n" for line in written), encoding="ascii")
    show(lines, beside)


if __name__ == "__main__":
    main()
