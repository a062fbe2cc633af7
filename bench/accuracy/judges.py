"""How much the order of the methods depends on who judges: the weights, the number of frames, the positions.

    python -m bench.accuracy.judges --clips 64 --retention 0.3,0.1 --out bench/results/accuracy_judges.json \
        thinned= seed1=bench/accuracy/weights/seed1 32-frames=,frames=32 dense=,positions=contiguous whole=EXPORT

Every judge examines the same clips. A judge is NAME=WEIGHTS, nothing for those of the package, with further settings
behind commas. Accuracy is over guessing, as a share of what that judge itself reaches with all tokens, so that judges
of different skill compare; families that a judge cannot answer are left out for all of them with --families.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from bench.accuracy.compare import restrict
from compress.accuracy.clips import default_cache
from compress.accuracy.measure import FULL, Examined, Job, cell_name, describe, measure
from compress.accuracy.methods import Measured, choose
from compress.accuracy.questions import CHANCE, FAMILIES
from compress.accuracy.results import asked_families, resample
from compress.accuracy.scene import SAMPLED
from compress.accuracy.statistics import Floats, correct_for_chance, draw_weights, macro, macro_chance, summarise


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Who judges.

    Attributes:
        name: of its column.
        weights: folder of its weights; None for those of the package.
        frames: sampled of each clip.
        positions: that tokens keep.
    """

    name: str
    weights: Path | None = None
    frames: int = SAMPLED
    positions: str = "original"

    @staticmethod
    def read(text: str) -> Judge:
        """Parse a judge from NAME=WEIGHTS[,frames=N][,positions=contiguous]."""
        name, _, rest = text.partition("=")
        weights, *settings = rest.split(",")
        told = dict(setting.split("=") for setting in settings)
        return Judge(
            name=name,
            weights=Path(weights) if weights else None,
            frames=int(told.get("frames", SAMPLED)),
            positions=told.get("positions", "original"),
        )

    def place(self, method: Measured) -> Measured:
        """Return the method with this judge's token positions; one that drops no token before the decoder stays."""
        if self.positions == "original" or method.kept != "tokens_out" or method.base == "everything":
            return method
        return replace(method, settings={**method.settings, "positions": self.positions})


def score(
    results: Sequence[Examined], methods: Sequence[str], retention: float, weights: Floats
) -> tuple[Floats, Floats]:
    """Accuracy over guessing as a share of the judge's own, (draws, methods), and its full accuracy, (draws,)."""
    asked = asked_families(results)
    chance = np.array([CHANCE[name] for name in asked])
    full = resample(results, asked, weights, FULL)
    guessed = macro_chance(full, chance)
    found = [macro(resample(results, asked, weights, cell_name(method, retention))) for method in methods]
    return np.stack([correct_for_chance(one, guessed, macro(full)) for one in found], axis=1), macro(full)


def rank(scores: Floats) -> Floats:
    """Ranks of the methods from 1 for the best, (draws, methods)."""
    return np.asarray(rankdata(-scores, axis=1), np.float64)


def tabulate(
    examined: Mapping[str, Sequence[Examined]], methods: Sequence[Measured], retentions: Sequence[float]
) -> dict[str, Any]:
    """Scores and ranks of every method under every judge, and how far every two judges agree.

    The interval of a rank is over clips: a rank that differs between judges by less differs by chance.
    """
    weights = draw_weights(len(next(iter(examined.values()))))
    record: dict[str, Any] = {"full": {}, "methods": {}, "agreement": {}}
    for retention in retentions:
        scores = {}
        for judge, results in examined.items():
            scores[judge], full = score(results, methods, retention, weights)
            record["full"][judge] = _figure(full)
        ranks = {judge: rank(one) for judge, one in scores.items()}
        key = f"{retention:g}"
        record["methods"][key] = {
            method.name: {
                judge: {"score": _figure(scores[judge][:, number]), "rank": _figure(ranks[judge][:, number], digits=1)}
                for judge in examined
            }
            for number, method in enumerate(methods)
        }
        record["agreement"][key] = {
            f"{one} {other}": round(float(spearmanr(scores[one][0], scores[other][0]).statistic), 2)
            for one, other in combinations(examined, 2)
        }
    return record


def write_table(record: Mapping[str, Any]) -> str:
    """Write the record as Markdown: per retention, score and rank of each method under each judge."""
    judges = list(record["full"])
    lines = []
    for retention, methods in record["methods"].items():
        lines += [f"| {100 * float(retention):g} % | {' | '.join(judges)} | ranks |", "|---" * (len(judges) + 2) + "|"]
        for method, found in methods.items():
            cells = [f"{100 * found[one]['score']['value']:.0f} ({found[one]['rank']['value']:g})" for one in judges]
            ranks = [found[one]["rank"]["value"] for one in judges]
            lines.append(f"| `{method}` | {' | '.join(cells)} | {min(ranks):g} to {max(ranks):g} |")
        lines.append("")
    return "\n".join(lines)


def _figure(samples: Floats, *, digits: int = 4) -> dict[str, float]:
    figure = summarise(samples)
    return {name: round(getattr(figure, name), digits) for name in ("value", "low", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judges", nargs="+", metavar="NAME=WEIGHTS[,frames=N][,positions=contiguous]")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--methods", default="default")
    parser.add_argument("--retention", default="0.3,0.1")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    methods = choose(options.methods)
    retentions = tuple(float(part) for part in options.retention.split(","))
    examined, about = {}, {}
    for judge in map(Judge.read, options.judges):
        job = Job(
            cache=options.cache,
            split="test",
            methods=tuple(judge.place(method) for method in methods),
            retentions=retentions,
            weights=judge.weights,
            frames=judge.frames,
        )
        results = measure(job, options.clips, workers=options.jobs)
        examined[judge.name] = restrict(results, options.families.split(","))
        about[judge.name] = describe(job, results) | {"positions": judge.positions}
        record = {"about": about} | tabulate(examined, methods, retentions)
        options.out.write_text(json.dumps(record) + "\n")
    print(write_table(record))
    print(json.dumps({"full": record["full"], "agreement": record["agreement"]}, indent=1))


if __name__ == "__main__":
    main()
