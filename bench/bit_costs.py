"""Bit costs of `codecmeta.bit_costs` next to those of codec-video-prep, whose form they have.

    python -m bench.bit_costs --peer VENV/bin/python [--clips ../shared/clips] [--frames 12]    (from the root)

codec-video-prep 0.2.5 counts the bytes that its patched decoder's reading pointer moves on per macroblock or coding
tree unit. `--peer` is an interpreter that has it (it needs numpy < 2). For each clip: frames that it returns, whether
the picture types agree, bits per frame of both, the correlation of the units' bits, and the largest difference of a
unit. The figures go to bench/results/bit_costs.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np

import codecmeta

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = frozenset((".mp4", ".mkv", ".ts", ".mov", ".264", ".hevc", ".h264"))

PEER = """
import json, sys
from codec_video_prep.cv_reader_fast import read_video_fast_selected
path, frames = sys.argv[1], json.loads(sys.argv[2])
options = dict(thread_count=1, export_bitcost=1, thread_type="slice")
for frame in read_video_fast_selected(path=path, frame_ids=frames, **options):
    bits = frame.get("bitcost") or {}
    units = bits.get("mb_bit_cost", bits.get("ctu_bit_cost"))
    small = bits.get("sub_mb_bit_cost")
    print(json.dumps([frame["frame_idx"], frame["pict_type"], None if units is None else units.tolist(),
                      None if small is None else list(small.shape)]))
"""


def compare(path: Path, count: int, peer: str) -> dict[str, Any] | None:
    """Both sides on some frames of a clip; None for other codecs."""
    try:
        with av.open(str(path)) as container:
            codec = container.streams.video[0].codec_context.name
        if codec not in ("h264", "hevc"):
            return None
        own = codecmeta.bit_costs(path, frames=f"uniform:{count}")
    except (codecmeta.CodecMetaError, av.FFmpegError, IndexError) as error:
        return {"refused": str(error)}
    frames = json.dumps([frame["frame_idx"] for frame in own])
    result = subprocess.run([peer, "-c", PEER, str(path), frames], capture_output=True, text=True, check=False)
    if result.returncode:
        return {"peer_failed": result.stderr.strip().splitlines()[-1:]}
    theirs = {number: rest for number, *rest in map(json.loads, result.stdout.splitlines())}
    pairs = [(frame, theirs[frame["frame_idx"]]) for frame in own if frame["frame_idx"] in theirs]
    row: dict[str, Any] = {"codec": codec, "frames": len(own), "of_peer": len(pairs)}
    ours, others = [], []
    same_types = same_shapes = 0
    for frame, (kind, units, small) in pairs:
        bits = frame["bitcost"]
        mine = bits["mb_bit_cost" if codec == "h264" else "ctu_bit_cost"]
        same_types += kind == frame["pict_type"]
        if units is not None and np.shape(units) == mine.shape and tuple(small) == bits["sub_mb_bit_cost"].shape:
            same_shapes += 1
            ours.append(mine.reshape(-1))
            others.append(np.array(units).reshape(-1))
    row |= {"same_types": same_types, "same_shapes": same_shapes}
    if ours:
        mine, units = np.concatenate(ours), np.concatenate(others)
        row["bits_per_frame"] = round(float(mine.sum()) / len(ours))
        row["bits_per_frame_peer"] = round(float(units.sum()) / len(ours))
        row["correlation"] = round(float(np.corrcoef(mine, units)[0, 1]), 4) if mine.any() and units.any() else None
        row["largest_difference"] = int(np.abs(mine - units).max())
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--peer", required=True, help="interpreter with codec-video-prep")
    parser.add_argument("--clips", type=Path, default=ROOT.parent / "shared" / "clips")
    parser.add_argument("--frames", type=int, default=12)
    options = parser.parse_args()
    report = {}
    folders = (options.clips, ROOT / "data", ROOT / "tests" / "data" / "hevc", ROOT / "tests" / "data" / "h264")
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in SUFFIXES):
        row = compare(path, options.frames, options.peer)
        if row is not None:
            report[path.name] = row
            print(path.name, json.dumps(row), flush=True)
    target = ROOT / "bench" / "results" / "bit_costs.json"
    target.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
