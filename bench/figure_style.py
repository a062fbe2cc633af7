"""Colours and axes that the pictures of the documentation share."""

from __future__ import annotations

from typing import Any

INK, FAINT, RULE = "#1d2433", "#6b7385", "#d9dde5"
BLUE, ORANGE, GREEN, GREY = "#2f6bcb", "#d0662b", "#4f8f6f", "#b9c0cc"


def clear_axes(axes: Any) -> None:
    """Leave the left spine only."""
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(RULE)


def rule_axes(axes: Any) -> None:
    """Leave the left spine, and lines at the values."""
    clear_axes(axes)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.tick_params(labelsize=8, colors=FAINT, length=2)
