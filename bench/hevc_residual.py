"""What the residual of HEVC costs: `ResidualReader.measure` against FFmpeg's decoder and a patched one.

    python -m bench.hevc_residual [--repeats 5] [--clips ../shared/clips] [--peer VENV/bin/python]    (from the root)

Measured as bench/h264_residual.py says. The rendered clips are 1280x720 from x265 at CRF 22 to 32, and at the rates
of streaming services (CRF 15 and 10, 1.8 and 4 Mbit/s); the five minutes are one of them, looped. The figures go to
bench/results/hevc_residual.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.h264_residual import CACHE, ROOT, compare_all, long_clip, loop, render, starting, write
from codecmeta.hevc import ResidualReader

REAL = ("bbb_hevc_1080p.ts", "nasa_hevc_main10_hdr.mp4", "derived/bedroom_hevc_opengop.mp4")
RENDERED = {f"rendered_720p_hevc_crf{crf}": crf for crf in ("10", "15", "22", "27", "32")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips", type=Path, default=ROOT.parent / "shared" / "clips")
    parser.add_argument("--peer", help="interpreter with codec-video-prep")
    options = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    paths = {name: options.clips / name for name in REAL}
    paths["pan_hevc.mp4"] = ROOT / "data" / "pan_hevc.mp4"
    for name, crf in RENDERED.items():
        paths[name] = CACHE / f"{name}.mp4"
        if not paths[name].exists():
            settings = {"preset": "medium", "crf": crf, "x265-params": "keyint=50:open-gop=0:log-level=none"}
            render(paths[name], frames=150, codec="libx265", options=settings)
    long = CACHE / "five_minutes_720p_hevc.mp4"
    if not long.exists():
        loop(paths["rendered_720p_hevc_crf27"], long, times=50)
    report: dict[str, Any] = {"all_frames": compare_all(paths, options.repeats, ResidualReader)}
    report["long_clip"] = long_clip(long, options.repeats, options.peer, ResidualReader)
    report["start"] = starting(paths["rendered_720p_hevc_crf32"], "hevc")
    write(report, "hevc_residual.json")


if __name__ == "__main__":
    main()
