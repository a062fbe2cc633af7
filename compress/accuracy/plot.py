"""Accuracy against retention, one labelled curve per method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from compress.accuracy.methods import IDENTITY
from compress.accuracy.results import Row, group_rows
from compress.errors import ConfigError
from compress.picture import require_matplotlib

STRONG: Final[Mapping[str, str]] = {"metom": "#c0392b", "metom-core": "#7d1f7a", "infomerge": "#1f5fa8"}
"""Colours of the methods that the picture is about."""
STAGES: Final[Mapping[str, str]] = {"rpm": "#e08e79", "btm": "#d98a3a", "matm": "#a8557f"}
"""Of MeToM's stages, related to its own."""
OTHER: Final = {
    "method": "#444444",
    "stage": "#444444",
    "ablation": "#7fa6d6",
    "baseline": "#8a8a8a",
    "published": "#4f8f6f",
}
DASHED: Final = {"oracle": (0, (5, 2)), "random": (0, (1, 1.5))}
MARKERS: Final = {"stride": "s", "frames": "D", "pool-space": "^", "pool-time": "v", "smaller": "<", "oracle": "P"}
LINE_HEIGHT: Final = 0.036
"""Of a label, as a share of the axes' height."""


def draw(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Plot the chance-corrected share of the full model's accuracy against the share that was really kept.

    Curves of methods are coloured and have a band of 95 %; other published methods are green, baselines grey. Each is
    labelled at its left end.

    Args:
        rows: results of one run.
        path: where to write; the suffix chooses the format.

    Raises:
        ConfigError: matplotlib is missing, there is nothing to draw, or the full model only guesses.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    grouped = {name: found for name, found in group_rows(rows).items() if name != IDENTITY.name}
    if not grouped:
        raise ConfigError("no methods are given; give at least one to draw")
    if not any(np.isfinite(row.macro.corrected.value) for row in rows):
        raise ConfigError("the model with all its tokens is no better than guessing; there is no accuracy to keep")
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    ends: list[tuple[str, float, float, str]] = []
    for name, found in grouped.items():
        kept = np.array([100 * row.kept for row in found])
        value, low, high = (
            100 * np.array([getattr(row.macro.corrected, part) for row in found]) for part in ("value", "low", "high")
        )
        colour = _colour(name, found[0].group)
        strong = name in STRONG
        axes.plot(
            kept,
            value,
            color=colour,
            linewidth=2.4 if strong else 1.3,
            linestyle=DASHED.get(name, "-"),
            marker=MARKERS.get(name, "o"),
            markersize=5 if strong else 3.5,
            zorder=3 if strong else 2,
        )
        if strong:
            axes.fill_between(kept, low, high, color=colour, alpha=0.14, linewidth=0)
        if np.isfinite(value[-1]):
            ends.append((name, float(kept[-1]), float(value[-1]), colour))
    _dress(axes, rows)
    _label(axes, ends)
    figure.savefig(path, dpi=160)


def _dress(axes: Any, rows: Sequence[Row]) -> None:
    about = rows[0].about
    shares = sorted({100 * row.retention for row in rows if row.method != IDENTITY.name})
    lowest = min(100 * row.kept for row in rows)
    axes.set_xscale("log")
    axes.set_xlim(lowest * 0.52, 100 * 1.03)
    axes.set_xticks([*shares, 100], [f"{share:g}" for share in (*shares, 100)])
    axes.set_xticks([], minor=True)
    values = [100 * row.macro.corrected.value for row in rows if np.isfinite(row.macro.corrected.value)]
    axes.set_ylim(lower_end(min(values)), max(102.0, max(values) + 2))
    axes.axhline(100, color="#bbbbbb", linewidth=0.8, zorder=1)
    axes.text(100, 100, "all tokens", color="#888888", fontsize=8, ha="right", va="bottom")
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("kept, % of the visual tokens (of patches for rpm, of tokens after the merge for matm)")
    axes.set_ylabel("accuracy over guessing, % of the full model's")
    axes.set_title(
        f"{about['questions']} questions about {about['clips']} clips of the split {about['split']}; "
        "mean over families, bands of 95 %",
        fontsize=10,
        loc="left",
    )


def lower_end(lowest: float) -> float:
    """Return where the axis of accuracy begins: at 0 or below for low values, else at the tens below, at most at 90."""
    return min(0.0, lowest) if lowest < 20 else min(90.0, 10 * (lowest // 10))


def _label(axes: Any, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write names left of all curves, moved apart where they would overlap, each with a thin line to its end."""
    low, high = axes.get_ylim()
    gap = LINE_HEIGHT * (high - low)
    ordered = sorted(ends, key=lambda end: end[2])
    heights = spread_apart([end[2] for end in ordered], gap=gap, low=low + gap / 2, high=high - gap / 2)
    left = axes.get_xlim()[0]
    for (name, kept, value, colour), height in zip(ordered, heights, strict=True):
        axes.annotate(
            name,
            xy=(kept, value),
            xytext=(left * 1.03, height),
            color=colour,
            fontsize=9,
            fontweight="bold" if name in STRONG else "normal",
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkB": 3},
        )


def spread_apart(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Spread heights at least ``gap`` apart and near the wanted ones, which ascend; evenly where the room is too small.

    Args:
        wanted: where labels belong.
        gap: least distance.
        low: lowest height.
        high: greatest height.
    """
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    heights: list[float] = []
    for value in wanted:
        heights.append(max(value, heights[-1] + gap) if heights else max(value, low))
    ceiling = high
    for index in range(len(heights) - 1, -1, -1):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - gap
    return heights


def _colour(name: str, group: str) -> str:
    return STRONG.get(name) or STAGES.get(name) or OTHER[group]
