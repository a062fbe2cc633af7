"""CPU time of a vision tower that reuses static patches, next to the plain one and to what its operations predict.

    python -m bench.tower_reuse [--clips 12] [--rounds 3] [--videos a.mp4,b.mp4] [--tau 6]

The demo model on validation clips of the accuracy benchmark, and `llava-onevision-mid` (random weights, 27 blocks) on
them and on videos that are given, 16 frames each; one thread, CPU time of this process, planning included. Plain,
reused and plain again (the null case) take turns; ratios are of sums over the clips, medians over the rounds. Results
go to bench/results/tower_reuse.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import codecmeta
from codecmeta import VideoMeta
from compress import PatchReuse
from compress.accuracy.clips import default_cache, open_clip
from compress.demo import load
from compress.flops import VisionTower
from compress.models.adapters.adapter import adapt
from compress.models.inputs.prompt import take_clip
from compress.models.inputs.random_weights import build_random
from compress.profiling.bench import describe

OUT = Path(__file__).resolve().parent / "results" / "tower_reuse.json"
FRAMES = 16


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", default="", help="further videos, separated by commas")
    parser.add_argument("--tau", type=float, default=PatchReuse.tau)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*was not called inside the `with` block")  # only its encoder is
    drawn = [open_clip(options.cache, "val", seed).meta for seed in range(options.clips)]
    scenes: dict[str, Sequence[VideoMeta]] = {f"{options.clips} clips of val": drawn}
    for video in filter(None, options.videos.split(",")):
        scenes[Path(video).stem] = [codecmeta.extract(video, frames=f"uniform:{FRAMES}", residual="none")]
    models: dict[str, Callable[[], Any]] = {
        "demo": lambda: load(device="cpu")[0],
        "llava-onevision-mid": lambda: build_random("llava-onevision-mid"),
    }
    rows = []
    for name, build in models.items():
        model = build()
        for scene, metas in scenes.items():
            if name == "demo" and metas is not drawn:
                continue
            rows.append({"model": name, "videos": scene, **compare(model, metas, options.tau, options.rounds)})
            print(write_row(rows[-1]), flush=True)
    about = describe([], model=", ".join(models), device="cpu")
    about |= {"frames": FRAMES, "rounds": options.rounds, "tau": options.tau}
    options.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


@torch.inference_mode()
def compare(model: Any, metas: Sequence[VideoMeta], tau: float, rounds: int) -> dict[str, float]:
    """Encode videos plainly, with reuse and plainly again, round by round."""
    adapter = adapt(model)
    vision = model.config.vision_config
    tower = VisionTower(layers=vision.num_hidden_layers, width=vision.hidden_size, mlp_width=vision.intermediate_size)
    whole = (vision.image_size // vision.patch_size) ** 2
    counts: list[int] = []
    turns: dict[str, list[float]] = {"plain": [], "reuse": [], "null": []}
    pixels = [adapter.encode_pixels(take_clip(meta)).tensors["pixel_values_videos"] for meta in metas]
    for turn in range(rounds + 1):  # the first one warms up
        spent = dict.fromkeys(turns, 0.0)
        for clip in pixels:
            for name in turns:
                if name == "reuse":
                    with PatchReuse(tau=tau).attach(model):
                        spent[name] += encode(adapter.core, clip)
                else:
                    spent[name] += encode(adapter.core, clip)
            if not turn:
                (patches,) = adapter.cut_patches(clip, adapter.video_grids(clip, {}))
                counts += PatchReuse(tau=tau).before_encoder(patches).frame_counts.tolist()
        if turn:
            for name, seconds in spent.items():
                turns[name].append(seconds)
    ratios = {name: [a / b for a, b in zip(turns[name], turns["plain"], strict=True)] for name in ("reuse", "null")}
    return {
        "patches": sum(counts) / (whole * len(counts)),
        "macs": sum(tower.frame(count, whole) for count in counts) / (len(counts) * tower.frame(whole)),
        "plain_seconds": statistics.median(turns["plain"]),
        "reuse_seconds": statistics.median(turns["reuse"]),
        "ratio": statistics.median(ratios["reuse"]),
        "null": statistics.median(ratios["null"]),
    }


def encode(core: Any, pixels: torch.Tensor) -> float:
    """Encode a video; return the CPU time that it takes, in seconds."""
    start = time.process_time()
    core.get_video_features(pixels, return_dict=True)
    return time.process_time() - start


def write_row(row: dict[str, Any]) -> str:
    """Return a row of the table in Markdown."""
    return (
        f"| {row['model']} | {row['videos']} | {100 * row['patches']:.0f} % | {row['macs']:.2f} | "
        f"{row['plain_seconds']:.2f} | {row['reuse_seconds']:.2f} | {row['ratio']:.2f} | {row['null']:.2f} |"
    )


if __name__ == "__main__":
    main()
