"""Tables of accuracy and time: the best first, planning summed over stages, and the shares that were asked for."""

from __future__ import annotations

import numpy as np

from bench.method_panels import Panel
from bench.method_table import write_all, write_merging

KEPT = np.array([5.0, 10, 15, 20, 30, 50])


def panel(level: float, *, clips: int = 60) -> Panel:
    value = np.array([level + KEPT / 2, level + 10 + KEPT / 2])
    return Panel(kept=KEPT, value=value, low=value - 3, high=value + 3, clips=clips, faster=None)


def row(ratio: float) -> dict[str, float]:
    return {"first_token_ratio": ratio, "tower_ratio": ratio / 2, "prefill_seconds": ratio / 10}


def test_methods_are_in_order_of_accuracy_with_their_own_times() -> None:
    panels = {"metom": panel(60, clips=20), "pool-space": panel(70), "oracle": panel(80)}
    timed = {"metom@0.1": row(2), "pool@0.1": row(4), "pool@0.5": row(8)}
    planned = [
        {"method": name, "ours_ms": ms}
        for name, ms in (("rpm", 2), ("btm", 70), ("matm", 300), ("pool", 4), ("evs", 9))
    ]
    assert list(write_all(panels, timed, planned))[2:] == [  # oracle was not timed
        "| `pool-space` | 75 / 85 | 4.00 | 2.00 | 0.40 | 4.0 |",
        "| `metom` | 65 / 75 * | 2.00 | 1.00 | 0.20 | 372 |",
    ]


def test_shares_have_accuracy_and_times_of_their_own() -> None:
    panels = {"rpm": panel(30), "tome": panel(50), "earlytom": panel(40)}
    timed = {f"{name}@{share}": row(10 * share) for name in panels for share in (0.5, 0.3, 0.1)}
    lines = list(write_merging(panels, timed))[2:]
    assert len(lines) == 9
    assert lines[1] == "| `rpm` | 30 % | 45.0 ±3.0 / 55.0 ±3.0 | 1.50 | 3.00 |"
