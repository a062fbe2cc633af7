"""Figures as tables for a terminal, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from compress.accuracy.methods import IDENTITY
from compress.accuracy.results import Row, Score, group_rows
from compress.accuracy.statistics import Figure

NOTE = (
    "% of the full model's accuracy over guessing, (accuracy - chance) / (full - chance), mean over families; "
    "intervals of 95 % over clips, paired · kept: share of tokens that entered the language model; for rpm of patches, "
    "for matm of tokens after the merge · GMAC: 10⁹ multiply-accumulates of the prefill over visual tokens, and of "
    "the tower · ms: planning and merging per clip"
)


def percent(value: float) -> str:
    """Write one decimal; a dash for what is undefined."""
    return "-" if value != value else f"{100 * value:.1f}"


def with_interval(figure: Figure) -> str:
    """Write a percentage and its interval, ``93.1 (91.0-95.2)``."""
    if figure.low != figure.low:
        return percent(figure.value)
    return f"{percent(figure.value)} ({percent(figure.low)} to {percent(figure.high)})"


def with_half_width(figure: Figure) -> str:
    """Write the same more briefly, ``93.1 ±2.1``: half the interval's width."""
    if figure.low != figure.low:
        return percent(figure.value)
    return f"{percent(figure.value)} ±{percent((figure.high - figure.low) / 2)}"


def overview(rows: Sequence[Row]) -> Table:
    """Write one line per method, one column per retention: chance-corrected share of the full model."""
    grouped = group_rows(rows)
    retentions = _retentions(grouped)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for retention in retentions:
        table.add_column(f"{100 * retention:g} %", justify="right", no_wrap=True)
    group = ""
    for name, found in grouped.items():
        if group and found[0].group != group:
            table.add_section()
        group = found[0].group
        cells = {row.retention: with_half_width(row.macro.corrected) for row in found}
        table.add_row(name, *(cells.get(retention, "") for retention in retentions))
    return table


def families(rows: Sequence[Row], retention: float) -> Table:
    """Write one line per method at a retention, one column per family: accuracy in per cent, and what it costs."""
    shown = [row for row in rows if row.retention == retention or row.method == IDENTITY.name]
    names = list(shown[0].families)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{100 * retention:g} %", title_justify="left")
    table.add_column("method", no_wrap=True)
    for name in (*names, "macro", "- random", "kept", "GMAC", "tower", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("chance", *(percent(shown[0].families[name].chance) for name in names), style="dim")
    for row in shown:
        table.add_row(
            row.method,
            *(percent(row.families[name].accuracy.value) for name in names),
            percent(row.macro.accuracy.value),
            "" if row.minus_random is None else f"{100 * row.minus_random.value:+.1f}",
            percent(row.kept),
            f"{row.macs / 1e9:.2f}",
            f"{row.tower_macs / 1e9:.2f}",
            f"{1000 * row.seconds:.0f}",
        )
    return table


def write_markdown(rows: Sequence[Row]) -> str:
    """Write the overview, and per family at every retention, as Markdown tables."""
    grouped = group_rows(rows)
    retentions = _retentions(grouped)
    lines = [
        "Chance-corrected share of the full model's accuracy in per cent, mean over families, 95 % interval:",
        "",
        _line(["method", *(f"{100 * retention:g} %" for retention in retentions)]),
        _line(["---", *["---:"] * len(retentions)]),
    ]
    for name, found in grouped.items():
        cells = {row.retention: with_interval(row.macro.corrected) for row in found}
        lines.append(_line([name, *(cells.get(retention, "") for retention in retentions)]))
    for retention in retentions:
        shown = [row for row in rows if row.retention == retention]
        names = list(shown[0].families)
        lines += ["", f"Accuracy per family at {100 * retention:g} %, in per cent:", ""]
        lines += [
            _line(["method", *names, "macro", "exact", "less random", "kept", "GMAC", "tower GMAC"]),
            _line(["---", *["---:"] * (len(names) + 6)]),
        ]
        for row in shown:
            lines.append(_line(_family_cells(row, names)))
    return "\n".join(lines) + "\n"


def _family_cells(row: Row, names: Sequence[str]) -> list[str]:
    accuracies: list[Score] = [row.families[name] for name in names]
    less = row.minus_random
    return [
        row.method,
        *(percent(score.accuracy.value) for score in accuracies),
        with_interval(row.macro.accuracy),
        percent(row.exact),
        "" if less is None else with_interval(less),
        percent(row.kept),
        f"{row.macs / 1e9:.2f}",
        f"{row.tower_macs / 1e9:.2f}",
    ]


def _retentions(grouped: dict[str, list[Row]]) -> list[float]:
    return sorted({row.retention for found in grouped.values() for row in found}, reverse=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
