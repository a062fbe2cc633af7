"""Measures what JPEG pixels and deflated arrays do to records: python -m bench.pixel_coding CLIPS... [--out FILE].

For each clip and each way of storing its record: bytes, seconds of extraction and of writing, seconds to load it with
its pixels, and the PSNR of the pixels against those that were decoded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import codecmeta
from codecmeta.record.options import JpegQuality

WAYS: dict[str, tuple[JpegQuality | None, bool]] = {
    "pixels": (None, False),
    "pixels, deflate": (None, True),
    "jpeg, no deflate": ("auto", False),
    "jpeg": ("auto", True),
    "jpeg 90": (90, True),
    "jpeg 95": (95, True),
}


def psnr(frames: Any, other: Any) -> float:
    error = float(((frames.astype(np.float64) - other) ** 2).mean())
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def measure(clip: Path, folder: Path, repeats: int) -> dict[str, Any]:
    plain = codecmeta.extract(clip)
    rows: dict[str, Any] = {}
    for way, (quality, deflate) in WAYS.items():
        extract, load = [], []
        path = folder / "record.npz"
        for _ in range(repeats):
            begin = time.perf_counter()
            codecmeta.extract(clip, jpeg=quality).save(path, deflate=deflate)
            extract.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            frames = codecmeta.load(path).frames
            load.append(time.perf_counter() - begin)
        rows[way] = {
            "bytes": path.stat().st_size,
            "extract_s": min(extract),
            "load_s": min(load),
            "psnr": psnr(plain.frames, frames),
        }
    return {"clip": clip.name, "shape": list(plain.frames.shape), "ways": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for clip in arguments.clips:
            found.append(measure(clip, Path(folder), arguments.repeats))
            print(json.dumps(found[-1]), flush=True)
    for way in WAYS:
        rows = [one["ways"][way] for one in found]
        size, extract, load, quality = (
            np.array([row[name] for row in rows]) for name in ("bytes", "extract_s", "load_s", "psnr")
        )
        print(
            f"{way}: {size.mean() / 1e6:.2f} MB, {size.max() / 1e6:.2f} at most; {extract.mean():.2f} s, loaded in "
            f"{load.mean():.2f} s; PSNR {quality.mean():.1f} dB, {quality.min():.1f} at least"
        )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"clips": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
