"""Panels of the accuracy that every method keeps: small multiples, three pictures as wide as a telephone's page.

A panel holds one method by both judges with bands of 95 %, over the means of all others in grey and that of Cover.
Pictures that are drawn side by side on a wide page and one below the other on a narrow one need no second version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bench.figure_style import BLUE, FAINT, GREY, INK, ORANGE, rule_axes

PICTURES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "ours": (
        "Cover (ours), two papers, baselines",
        (
            *("cover", "infomerge", "metom", "btm", "rpm"),
            *("random", "stride", "frames", "pool-space", "pool-time", "smaller", "oracle"),
        ),
    ),
    "published": (
        "Published, before the language model",
        (
            *("sttm", "evs", "divprune", "prunevid", "holitom", "unified-sttc"),
            *("dycoke", "flashvid", "fastvid", "vidcom2", "tome-video", "visionzip"),
        ),
    ),
    "inside": (
        "Inside encoder (first two) and model",
        (
            *("tome", "earlytom", "matm", "fastv", "pyramiddrop", "d2pruner"),
            *("holitom-inner", "flashvid-inner", "prunevid-inner"),
            *("sttm-inner", "tome-video-inner", "unified-sttc-inner"),
        ),
    ),
}
"""Pictures by name: title and methods, row by row."""
EVERY: Final = (("whole0-six", "whole0-inner"), ("whole1-six", "whole1-inner"))
"""Runs of bench/results/accuracy.json that hold every method at six retentions, by judge."""
REFERENCE: Final = "cover"
SHOWN: Final = 0.1
"""Retention whose figures a panel names."""
TIMED_AS: Final = {"pool-space": "pool"}
"""Rows of bench/results/first_token.json of methods that have another name there."""
COLUMNS: Final = 3
WIDTH, ROW, HEAD, FOOT = 3.5, 1.1, 0.98, 0.3
"""Inches: 336 pixels wide, so that two stand side by side on the site, and one fits a page 390 pixels wide."""
LOWEST, HIGHEST = 25, 105
COLOURS: Final = (BLUE, ORANGE)
LINES: Final = ("-", (0, (3, 1.2)))


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Figures of one method, in percent.

    Attributes:
        kept: (R,), share of the tokens or patches that remains, ascending.
        value: (J, R), accuracy over guessing by judge.
        low: likewise, lower end of the 95 % interval.
        high: likewise, upper end.
        clips: that were asked about.
        faster: first token and tower at `SHOWN`, times faster than the plain model; None where they were not timed.
    """

    kept: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    clips: int
    faster: tuple[float, float] | None


def gather_panels(judges: Sequence[Sequence[Any]], timed: Mapping[str, Any]) -> dict[str, Panel]:
    """Gather the figures of every method that a picture names.

    Args:
        judges: runs by judge, as in bench/results/accuracy.json; the first that has a method counts.
        timed: rows of bench/results/first_token.json.

    Raises:
        KeyError: a run lacks a method.
    """
    found = {}
    for name in (name for _, names in PICTURES.values() for name in names):
        rows, clips = zip(*(_find(runs, name) for runs in judges), strict=True)
        value, low, high = (
            np.array([[100 * row["corrected"][part] for row in of_judge] for of_judge in rows])
            for part in ("value", "low", "high")
        )
        times = timed.get(f"{TIMED_AS.get(name, name)}@{SHOWN:g}")
        found[name] = Panel(
            kept=np.array([100 * row["kept"] for row in rows[0]]),
            value=value,
            low=low,
            high=high,
            clips=min(clips),
            faster=None if times is None else (times["first_token_ratio"], times["tower_ratio"]),
        )
    return found


def draw_panels(picture: str, panels: Mapping[str, Panel], path: Path) -> None:
    """Draw the panels of one of `PICTURES`.

    Args:
        picture: its name.
        panels: of all methods; those of other pictures are drawn in grey.
        path: where to write, `.svg`; the panel of a method is the group of that name.
    """
    title, names = PICTURES[picture]
    rows = -(-len(names) // COLUMNS)
    height = HEAD + rows * ROW + FOOT
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.07, right=0.99, top=1 - HEAD / height, bottom=FOOT / height, wspace=0.08, hspace=0.45)
    for axes, name in zip(grid.flat, names, strict=True):
        _draw_panel(axes, name, panels)
    _write_head(figure, title, {panels[name].clips for name in names})
    figure.supxlabel("tokens kept, %", fontsize=7, color=FAINT, y=0.004)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _find(runs: Iterable[Any], name: str) -> tuple[list[Any], int]:
    for run in runs:
        rows = [row for row in run["rows"] if row["method"] == name]
        if rows:
            return sorted(rows, key=lambda row: float(row["retention"])), run["about"]["clips"]
    raise KeyError(f"no run has the method {name}")


def _draw_panel(axes: Any, name: str, panels: Mapping[str, Panel]) -> None:
    others = [panel for other, panel in panels.items() if other not in (name, REFERENCE)]
    axes.plot(
        np.concatenate([[*panel.kept, np.nan] for panel in others]),  # one path, broken between methods
        np.concatenate([[*panel.value.mean(axis=0), np.nan] for panel in others]),
        color=GREY,
        linewidth=0.35,
        zorder=1,
    )
    if name != REFERENCE:
        axes.plot(panels[REFERENCE].kept, panels[REFERENCE].value.mean(axis=0), color=INK, linewidth=0.8, zorder=2)
    panel = panels[name]
    for judge, (colour, line) in enumerate(zip(COLOURS, LINES, strict=True)):
        axes.fill_between(panel.kept, panel.low[judge], panel.high[judge], color=colour, alpha=0.16, linewidth=0)
        axes.plot(panel.kept, panel.value[judge], linestyle=line, color=colour, linewidth=1.4, zorder=3)
    axes.set_gid(name)
    axes.set_xscale("log")
    axes.set_xlim(4.6, 54)
    axes.set_xticks([5, 10, 20, 50], ["5", "10", "20", "50"])
    axes.set_xticks([], minor=True)
    axes.set_ylim(LOWEST, HIGHEST)
    axes.set_yticks([40, 60, 80, 100])
    rule_axes(axes)
    axes.tick_params(labelsize=6.5, pad=1.5)
    axes.text(0, 1.19, name, transform=axes.transAxes, fontsize=7, color=INK, fontweight="bold")
    axes.text(0, 1.04, describe(panel), transform=axes.transAxes, fontsize=6.2, color=FAINT)


def describe(panel: Panel) -> str:
    """Return what a panel says of its method: accuracy by judge at `SHOWN`, first token and tower, times faster."""
    at = find_share(panel, SHOWN)
    accuracy = " / ".join(f"{value:.0f}" for value in panel.value[:, at])
    return accuracy if panel.faster is None else f"{accuracy} · {panel.faster[0]:.1f}× · {panel.faster[1]:.1f}×"


def find_share(panel: Panel, share: float) -> int:
    """Return which of a panel's retentions is nearest to a retained fraction."""
    return int(np.abs(panel.kept - 100 * share).argmin())


def _write_head(figure: Figure, title: str, clips: set[int]) -> None:
    height = figure.get_figheight()
    asked = " or ".join(map(str, sorted(clips)))
    figure.text(0.01, 1 - 0.15 / height, title, fontsize=8.5, color=INK, fontweight="bold")
    for inches, line in (
        (0.31, f"Accuracy over guessing, % of the model with all tokens ({asked} clips)."),
        (0.45, "Below each name, at 10 %: seed 0 / seed 1 · first token · tower, times faster."),
    ):
        figure.text(0.01, 1 - inches / height, line, fontsize=6.5, color=FAINT)
    handles = [
        Line2D([], [], color=BLUE, linewidth=1.4, label="seed 0"),
        Line2D([], [], color=ORANGE, linewidth=1.4, linestyle=LINES[1], label="seed 1"),
        Line2D([], [], color=INK, linewidth=0.8, label="Cover, mean"),
        Line2D([], [], color=GREY, linewidth=0.8, label="all others, means"),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.005, 1 - 0.46 / height),
        ncols=4,
        fontsize=6.5,
        frameon=False,
        handlelength=1.8,
        columnspacing=1.2,
        labelcolor=FAINT,
        borderpad=0.2,
    )
