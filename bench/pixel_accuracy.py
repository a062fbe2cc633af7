"""Measures what JPEG pixels cost in accuracy: python -m bench.pixel_accuracy --cache FOLDER [--clips 60].

The questions of `compress accuracy` about the same clips, whose records hold pixels or JPEG; per method the difference
of the shares of right answers, with the 95 % interval of clips that are drawn again (paired).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from compress.accuracy.answering import Examinee
from compress.accuracy.clips import default_cache, open_clip
from compress.accuracy.measure import Job, examine
from compress.accuracy.methods import choose
from compress.accuracy.statistics import draw_weights, summarise
from compress.demo import load

QUALITIES = (90, 75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--methods", default="metom,infomerge")
    parser.add_argument("--retention", type=float, default=0.1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    job = Job(cache=arguments.cache, split="test", methods=choose(arguments.methods), retentions=(arguments.retention,))
    examinee = Examinee(*load(None, device="cpu"))
    rows: dict[str, dict[str, list[list[float]]]] = {}
    for seed in range(arguments.clips):
        clip = open_clip(job.cache, job.split, seed)
        for quality in (None, *QUALITIES):
            meta = clip.meta if quality is None else clip.meta.with_jpeg(quality)
            found = examine(examinee, replace(clip, meta=meta), job)
            for name, cell in found.cells.items():
                rows.setdefault(name, {}).setdefault(str(quality), []).append(cell.right)
        print(seed, flush=True)
    weights = draw_weights(arguments.clips)
    counts = weights @ np.array([len(one) for one in rows["full"]["None"]])
    report = {}
    for name, ways in rows.items():
        shares = {way: weights @ np.array([sum(one) for one in right]) / counts for way, right in ways.items()}
        report[name] = {"pixels": float(shares["None"][0])}
        for quality in QUALITIES:
            figure = summarise(shares[str(quality)] - shares["None"])
            report[name][f"jpeg {quality}"] = [figure.value, figure.low, figure.high]
            print(
                f"{name}: {100 * shares['None'][0]:.2f} % right with pixels; jpeg {quality}: {100 * figure.value:+.2f} "
                f"({100 * figure.low:+.2f} to {100 * figure.high:+.2f})"
            )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"clips": arguments.clips, "methods": report}, indent=1) + "\n")


if __name__ == "__main__":
    main()
