"""Every question of data/sprites/questions.json, answered over shortened tokens: by method and retention.

    python -m bench.accuracy.sprites [--methods infomerge] [--retention 1,0.3,0.1,0.05,0.01] [--weights FOLDER]

`right` is among the options of a question, as the benchmark counts; `exact` among all words, as `compress ask` answers.
A model that sees nothing is right by chance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy.freeze import SHOWN
from compress.accuracy.answering import Examinee
from compress.accuracy.clips import default_cache, open_clip
from compress.accuracy.measure import FULL, Job, cell_name, digest_weights, examine
from compress.accuracy.methods import choose
from compress.accuracy.questions import CHANCE
from compress.demo import load


def ask_all(job: Job) -> dict[str, Any]:
    """Share of right answers by method and retention over the clips of the repository, and that of guessing."""
    examinee = Examinee(*load(job.weights))
    results = [examine(examinee, open_clip(job.cache, "val", seed), job) for seed in SHOWN]
    chance = [CHANCE[family] for one in results for family in one.families]
    found: dict[str, Any] = {"weights": digest_weights(job.weights), "questions": len(chance),
                             "chance": float(np.mean(chance))}  # fmt: skip
    for name in (FULL, *(cell_name(method, share) for method in job.methods for share in job.retentions)):
        cells = [one.cells[name] for one in results]
        found[name] = {
            "right": float(np.mean([mark for cell in cells for mark in cell.right])),
            "exact": float(np.mean([mark for cell in cells for mark in cell.exact])),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="infomerge")
    parser.add_argument("--retention", default="0.3,0.1,0.05,0.01")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    retentions = tuple(float(part) for part in options.retention.split(","))
    job = Job(cache=options.cache, split="val", methods=choose(options.methods), retentions=retentions,
              weights=options.weights)  # fmt: skip
    found = ask_all(job)
    print(json.dumps(found, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
