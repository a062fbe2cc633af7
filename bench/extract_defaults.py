"""What `codecmeta.extract` stores by default against pixels alone, in one run on one thread: `python -m bench.extract`.

One minute and eight seconds of 720p of H.264, HEVC and VP9, rendered and encoded here. Each round extracts pixels
alone, with all defaults, and pixels alone again (the null case); ratios are medians over rounds of CPU time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import codecmeta
from bench.extract_clips import Encoding, render

ENCODINGS: Final[Mapping[str, Encoding]] = {
    "h264": Encoding("libx264", "mp4", {"preset": "veryfast", "crf": "26"}),
    "hevc": Encoding("libx265", "mp4", {"preset": "superfast", "crf": "28", "x265-params": "log-level=none"}),
    "vp9": Encoding("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8", "b": "2M", "g": "250"}),
}
SECONDS: Final = (60, 8)
LIMITS: Final = {60: 1.1, 8: 1.15}
"""Most that defaults may cost, as a multiple of pixels alone (1.15 under ten seconds)."""


def measure_defaults(folder: Path, *, rounds: int) -> dict[str, dict[str, float]]:
    """Measure all clips, and print a table.

    Args:
        folder: where to encode them, or where they lie.
        rounds: how many count; one more before them warms up.

    Returns:
        Per clip: seconds of pixels and of defaults, their ratio, that of the null case, and the limit.
    """
    found = {}
    print(
        f"\n{'defaults against pixels alone':30} {'pixels ms':>10} {'defaults ms':>12} {'ratio':>7} {'null':>7} limit"
    )
    for seconds in SECONDS:
        for codec, encoding in ENCODINGS.items():
            name = f"{codec}_720p_{seconds}s.{encoding.container}"
            path = folder / name
            if not path.exists():
                render(path, seconds=seconds, encoding=encoding)
            row = _compare(path, rounds) | {"limit": LIMITS[seconds]}
            found[name] = row
            print(
                f"{name:30} {1000 * row['pixels']:10.1f} {1000 * row['defaults']:12.1f} {row['ratio']:7.3f} "
                f"{row['null']:7.3f} {row['limit']:5.2f}",
                flush=True,
            )
    return found


def _compare(path: Path, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {"pixels": [], "defaults": [], "again": []}
    options: dict[str, dict[str, Any]] = {"pixels": {"residual": "none"}, "defaults": {}, "again": {"residual": "none"}}
    for turn in range(rounds + 1):
        for name, chosen in options.items():
            begin = time.process_time()
            codecmeta.extract(path, **chosen)
            if turn:
                seconds[name].append(time.process_time() - begin)
    ratios = {
        name: [one / plain for one, plain in zip(seconds[name], seconds["pixels"], strict=True)]
        for name in ("defaults", "again")
    }
    return {
        "pixels": statistics.median(seconds["pixels"]),
        "defaults": statistics.median(seconds["defaults"]),
        "ratio": statistics.median(ratios["defaults"]),
        "null": statistics.median(ratios["again"]),
    }
