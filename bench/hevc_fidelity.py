"""How close cheaper signals come to the true residual of HEVC, on a 27x27 grid.

    python -m bench.hevc_fidelity [--peer VENV/bin/python] [--shared ../shared]    (from the root)

The truth is that of a decoder with its predictions removed (`shared/hevc/real`). Against it, by picture type: the
residual that `bitstream` reads, the bits that it counts, the bits of codec-video-prep 0.2.5 (`--peer`: an interpreter
that has it), and the `proxy` source. Figures as in bench/residual_fidelity.py: medians over pictures of Spearman's rank
correlation, Pearson's correlation of log(1 + energy), and the overlap of the top cells. They go to
bench/results/hevc_fidelity.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import codecmeta
from bench.fidelity_agreement import Agreement, agreement, grid_means, varies

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ("bbb_hevc_1080p.ts", "nasa_hevc_main10_hdr.mp4", "pan_hevc.mp4")
BLOCK = 8

PEER = """
import json, sys
from codec_video_prep.cv_reader_fast import read_video_fast_selected
options = dict(thread_count=1, export_bitcost=1, thread_type="slice")
for frame in read_video_fast_selected(path=sys.argv[1], frame_ids=json.loads(sys.argv[2]), **options):
    print(json.dumps([frame["frame_idx"], frame["bitcost"]["sub_mb_bit_cost"].tolist()]))
"""


def peer_bits(peer: str, path: Path, frames: list[int]) -> dict[int, NDArray[np.float64]]:
    """Bits of 4x4 blocks of the frames that codec-video-prep returns."""
    command = [peer, "-c", PEER, str(path), json.dumps(frames)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return {number: np.array(bits) for number, bits in map(json.loads, result.stdout.splitlines())}


def block_means(power: NDArray[np.float32], block: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """Means of blocks of `BLOCK` samples from those of smaller ones; what lies outside the picture counts as 0."""
    inside = [np.minimum(length - np.arange(0, length, block), block) for length in size]
    sums = power.astype(np.float64) * inside[0][:, None] * inside[1]
    side = BLOCK // block
    padded = np.pad(sums, [(0, -count % side) for count in sums.shape])
    return padded.reshape(padded.shape[0] // side, side, -1, side).sum((1, 3)) / BLOCK**2


def measure(path: Path, expected: Any, peer: str | None) -> dict[str, dict[str, list[Agreement]]]:
    """Agreements of each estimate by picture type."""
    frames = [int(number) for number in expected["frame_index"]]
    meta = codecmeta.extract(path, frames=frames, maps=("innovation",), pixels=None)
    proxy = codecmeta.extract(path, frames=frames, maps=("innovation",), pixels=None, residual="proxy")
    theirs = peer_bits(peer, path, frames) if peer else {}
    size = meta.height, meta.width
    scores: dict[str, dict[str, list[Agreement]]] = defaultdict(lambda: defaultdict(list))
    assert meta.residual_power is not None and meta.mb_bits is not None and proxy.residual_power is not None
    for row, number in enumerate(frames):
        squares = expected["y_sqsum"][row]
        if (squares < 0).any():
            continue
        truth = grid_means(squares / BLOCK**2, block=BLOCK, size=size)
        if not varies(truth):
            continue
        estimates = {
            "bitstream": grid_means(block_means(meta.residual_power[row, 0], meta.block, size), block=BLOCK, size=size),
            "mb_bits": grid_means(meta.mb_bits[row], block=16, size=size),
            "proxy": grid_means(proxy.residual_power[row, 0], block=proxy.block, size=size),
        }
        if number in theirs:
            estimates["codec-video-prep"] = grid_means(theirs[number], block=4, size=size)
        for name, estimate in estimates.items():
            scores[name][str(meta.frame_type[row])].append(agreement(truth, estimate))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--peer", help="interpreter with codec-video-prep")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    options = parser.parse_args()
    pooled: dict[str, dict[str, list[Agreement]]] = defaultdict(lambda: defaultdict(list))
    for name in CLIPS:
        path = options.shared / "clips" / name
        path = path if path.exists() else ROOT / "data" / name
        expected = np.load(options.shared / "hevc" / "real" / f"{name}.residual.npz")
        for estimate, kinds in measure(path, expected, options.peer).items():
            for kind, agreements in kinds.items():
                pooled[estimate][kind] += agreements
    report: dict[str, dict[str, list[float]]] = {}
    for estimate, kinds in pooled.items():
        report[estimate] = {}
        for kind in sorted(kinds):
            figures = [round(float(value), 3) for value in np.median(np.array(kinds[kind]), axis=0)]
            report[estimate][kind] = [len(kinds[kind]), *figures]
            print(
                f"{estimate:18s} {kind} {len(kinds[kind]):4d} pictures  "
                + " ".join(f"{value:.2f}" for value in figures)
            )
    target = ROOT / "bench" / "results" / "hevc_fidelity.json"
    target.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
