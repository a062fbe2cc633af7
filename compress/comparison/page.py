"""HTML page of a comparison: a table that can be sorted, curves against retention, pictures of what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from compress.comparison.cell import Cell
from compress.comparison.comparison import VideoComparison
from compress.comparison.summary import Column, Row, reasons_to_omit, shown_columns, tabulate
from compress.html_page import escape_text, render

ALL_VIDEOS = "all videos"


def render_comparison(videos: Sequence[VideoComparison], omitted: Sequence[Cell], *, title: str, about: str) -> str:
    """Render the page as text; it loads no second file.

    Args:
        videos: what was compared.
        omitted: methods that were not, with the reasons.
        title: of the page.
        about: what the figures belong to, in a sentence.
    """
    whole = tabulate(cell for video in videos for cell in video.cells)
    columns = shown_columns(whole)
    tables = {ALL_VIDEOS: whole, **{video.video: tabulate(video.cells) for video in videos if video.pictures}}
    data = {
        "columns": [
            {"key": one.key, "title": one.title, "kind": one.kind, "says": one.says, "curve": one.curve}
            for one in columns
        ],
        "tables": [{"name": _plain(name), "rows": _rows(rows, columns)} for name, rows in tables.items()],
        "videos": [_describe(video) for video in videos if video.pictures is not None],
    }
    heads = ["method", "retention", *(column.title for column in columns)]
    says = ["", "nominal share of the tokens, in percent", *(column.says for column in columns)]
    head = "".join(
        f'<th scope="col" title="{escape_text(text)}"><button type="button">{name}</button>'
        for name, text in zip(heads, says, strict=True)
    )
    notes = [f"<li>{escape_text(text)}</li>" for text in _notes(videos, whole, omitted)]
    filled = {
        "about": escape_text(about),
        "head": head,
        "rows": "\n".join(_static_row(row) for row in _rows(whole, columns)),
        "notes": f"<ul class=notes>{''.join(notes)}</ul>" if notes else "",
        "legend": "".join(f"<dt>{one.title}<dd>{escape_text(one.says)}" for one in columns),
        # "<" in a name must not end the element
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    body = re.sub(r"{{(\w+)}}", lambda found: filled[found[1]], _resource("page.html"))
    return render(body, title=title, style=_resource("page.css"), script=_resource("page.js"))


def _resource(name: str) -> str:
    return resources.files("compress.comparison").joinpath(name).read_text(encoding="utf-8")


def _rows(rows: Sequence[Row], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return rows as plain values: text and number of every column, and whether it is the best at its retention."""
    best = _find_best(rows, columns)
    return [
        {
            "method": row.method,
            "retention": row.retention,
            "control": row.is_control,
            "failed": len(row.failures),
            "videos": row.videos,
            "text": [column.write(row.figures[column.key]) for column in columns],
            "value": [_rounded(row.figures[column.key]) for column in columns],
            "best": [_is_best(row, column, best) for column in columns],
        }
        for row in rows
    ]


def _find_best(rows: Sequence[Row], columns: Sequence[Column]) -> Mapping[tuple[float, str], float]:
    """Return the best value of a column at a retention, where the methods differ."""
    values: dict[tuple[float, str], list[float]] = {}
    for row in rows:
        for column in columns:
            value = row.figures[column.key]
            if value is not None and column.better and not row.is_control:
                values.setdefault((row.retention, column.key), []).append(value)
    choose = {column.key: min if column.better == "low" else max for column in columns}
    return {place: choose[place[1]](found) for place, found in values.items() if len(set(found)) > 1}


def _is_best(row: Row, column: Column, best: Mapping[tuple[float, str], float]) -> bool:
    value = row.figures[column.key]
    return value is not None and not row.is_control and best.get((row.retention, column.key)) == value


def _static_row(row: Mapping[str, Any]) -> str:
    failed = f' <span class="failed">failed on {row["failed"]}</span>' if row["failed"] else ""
    cells = [f'<td data-key="{escape_text(row["method"])}">{escape_text(row["method"])}{failed}']
    cells.append(f'<td data-key="{row["retention"]:g}">{100 * row["retention"]:g} %')
    for text, value, best in zip(row["text"], row["value"], row["best"], strict=True):
        mark = ' class="best"' if best else ""
        cells.append(f'<td data-key="{"" if value is None else value}"{mark}>{text}')
    return f"<tr>{''.join(cells)}</tr>"


def _notes(videos: Sequence[VideoComparison], rows: Sequence[Row], omitted: Sequence[Cell]) -> list[str]:
    """List what failed and what was omitted, once per reason."""
    notes = [f"{_plain(one.video)}: {one.cells[0].message}" for one in videos if one.pictures is None]
    seen: dict[str, list[str]] = {}
    for row in rows:
        for failure in row.failures:
            seen.setdefault(failure, []).append(f"{row.method} {100 * row.retention:g} %")
    notes += [f"{', '.join(names)} failed on {_plain(failure)}" for failure, names in seen.items()]
    reasons = reasons_to_omit((video.cells for video in videos), omitted)
    return notes + [f"not compared: {', '.join(names)}: {message}" for message, names in reasons.items()]


def _describe(video: VideoComparison) -> dict[str, Any]:
    assert video.pictures is not None  # chosen by the caller
    kept = [
        {
            "method": method,
            "retention": retention,
            "bits": bits,
            "counts": video.pictures.counts[method, retention],
        }
        for (method, retention), bits in video.pictures.kept.items()
    ]
    return {"name": _plain(video.video), **video.pictures.describe(), "kept": kept}


def _plain(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
