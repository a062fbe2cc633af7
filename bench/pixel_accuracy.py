"""Measures what JPEG pixels cost in accuracy: python -m bench.pixel_accuracy --cache FOLDER [--clips 60].

The questions of `compress accuracy` about the same clips, whose records hold pixels or JPEG: of quality 90, which
`--pixels jpeg` gives pictures of few bytes, of quality 75, and of the coarsest that it gives any, 75 with subsampled
chroma. Per method the difference of the
shares of right answers, with the 95 % interval of clips that are drawn again (paired).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from codecmeta import VideoMeta
from codecmeta.record.jpeg import decode_frames, encode_frames
from compress.accuracy.answering import Examinee
from compress.accuracy.clips import default_cache, open_clip
from compress.accuracy.measure import Job, examine
from compress.accuracy.methods import choose
from compress.accuracy.statistics import draw_weights, summarise
from compress.demo import load

WAYS = ("jpeg 90", "jpeg 75", "jpeg, coarsest")


def code(meta: VideoMeta, way: str) -> VideoMeta:
    """Return a record whose frames have been coded and decoded; `jpeg, coarsest` allows no picture any bytes."""
    assert meta.frames is not None
    if way == "jpeg, coarsest":
        coded = encode_frames(meta.frames, quality="auto", most_bytes=0)
    else:
        coded = encode_frames(meta.frames, quality=int(way.removeprefix("jpeg ")))
    return replace(meta, frames=decode_frames(*coded))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--methods", default="metom,infomerge")
    parser.add_argument("--retention", type=float, default=0.1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    job = Job(
        cache=arguments.cache,
        split=arguments.split,
        methods=choose(arguments.methods),
        retentions=(arguments.retention,),
    )
    examinee = Examinee(*load(None, device="cpu"))
    rows: dict[str, dict[str, list[list[float]]]] = {}
    for seed in range(arguments.clips):
        clip = open_clip(job.cache, job.split, seed)
        for way in ("pixels", *WAYS):
            meta = clip.meta if way == "pixels" else code(clip.meta, way)
            found = examine(examinee, replace(clip, meta=meta), job)
            for name, cell in found.cells.items():
                rows.setdefault(name, {}).setdefault(way, []).append(cell.right)
        print(seed, flush=True)
    weights = draw_weights(arguments.clips)
    counts = weights @ np.array([len(one) for one in rows["full"]["pixels"]])
    report = {}
    for name, ways in rows.items():
        shares = {way: weights @ np.array([sum(one) for one in right]) / counts for way, right in ways.items()}
        report[name] = {"pixels": float(shares["pixels"][0])}
        for way in WAYS:
            figure = summarise(shares[way] - shares["pixels"])
            report[name][way] = [figure.value, figure.low, figure.high]
            print(
                f"{name}: {100 * shares['pixels'][0]:.2f} % right with pixels; {way}: {100 * figure.value:+.2f} "
                f"({100 * figure.low:+.2f} to {100 * figure.high:+.2f})"
            )
    if arguments.out is not None:
        arguments.out.write_text(
            json.dumps({"clips": arguments.clips, "split": arguments.split, "methods": report}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
