"""Bytes that are read of a long video on a web server: python -m bench.remote [--size MB] [--out FILE].

A video of 30 minutes with 300 key frames, made by repeating one GoP, lies on a server on loopback, which counts what it
sends. The figures are shares of the file, with the index at its begin and at its end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench.extract_clips import Encoding, join, render
from bench.web_server import serve
from codecmeta import extract

GOP, TURNS = 150, 300
CASES: dict[str, dict[str, Any]] = {
    "packets": {"residual": "none", "pixels": None},
    "uniform:32, innovation": {"pixels": None},
    "uniform:32, innovation and pixels": {},
}
"""What is read, and the options of it."""


def make_long_video(folder: Path, *, size: int, front: bool) -> Path:
    """Make an MP4 of about `size` bytes, with its index at the begin or at the end."""
    rate = str(8 * size // (GOP * TURNS // 25))
    options = {"preset": "ultrafast", "b": rate, "maxrate": rate, "bufsize": rate, "g": str(GOP), "bf": "2"}
    turn = folder / "turn.mp4"
    if not turn.exists():
        settings = Encoding("libx264", "mp4", options | {"keyint_min": str(GOP), "sc_threshold": "0"})
        render(turn, seconds=GOP // 25, width=640, height=360, encoding=settings)
    flags = {"movflags": "faststart"} if front else {}
    return join(folder / ("front.mp4" if front else "end.mp4"), turn, TURNS, options=flags)


def measure(folder: Path, size: int) -> dict[str, dict[str, Any]]:
    """Measure all cases with both places of the index."""
    found: dict[str, dict[str, Any]] = {}
    for front in (True, False):
        path = make_long_video(folder, size=size, front=front)
        for name, options in CASES.items():
            with serve(folder) as served:
                meta = extract(served.url(path.name), **options)
                case = f"{name}, index at the {'begin' if front else 'end'}"
                source = meta.info["source"]
                found[case] = {
                    "file": path.stat().st_size,
                    "sent": served.sent,
                    "share": round(served.sent / path.stat().st_size, 4),
                    "reported": source["bytes_read"],
                    "requests": served.requests,
                    "key_frames": int(meta.packet_key.sum()),
                    "packets": int(meta.packet_size.size),
                }
                print(f"{case:60} {found[case]}", flush=True)
        path.unlink()
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=200, help="MB of the video")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.size * 1_000_000)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
