"""HTML page of a run: a table that can be sorted, and per video its budgets, figures and picture, in one file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from compress.html_page import escape_text, render
from compress.runner import VideoReport

_STYLE = """
img { width: 100%; min-width: 60rem; height: auto; border: 1px solid #edeff3; border-radius: 6px; }
svg { display: block; max-width: 100%; height: auto; margin: .6rem 0; }
rect { fill: #9dbbe8; } rect.granted { fill: #e6eaf1; }
"""

_COLUMNS = ("video", "frames", "tokens in", "tokens out", "retained", "per frame", "seconds")


def render_page(reports: Sequence[VideoReport], *, title: str) -> str:
    """Render the page as text; it loads no second file, and its script only sorts the table.

    Args:
        reports: of a run; pictures are read from where they lie.
        title: of the page.
    """
    done = [report for report in reports if report.status != "failed"]
    tokens_in, tokens_out = (sum(getattr(r, name) for r in done) for name in ("tokens_in", "tokens_out"))
    share = f" ({100 * tokens_out / tokens_in:.1f} %)" if tokens_in else ""
    failed = len(reports) - len(done)
    summary = f"{len(done)} videos, {tokens_in} → {tokens_out} tokens{share}"
    if failed:
        summary += f", {failed} failed"
    head = "".join(f'<th scope="col"><button type="button">{name}</button>' for name in _COLUMNS)
    rows = "\n".join(_row(index, report) for index, report in enumerate(reports))
    details = "\n".join(_details(index, report) for index, report in enumerate(reports))
    body = (
        f'<p class="faint">{escape_text(summary)}</p>\n'
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n'
        f"{details}"
    )
    return render(body, title=title, style=_STYLE)


def _row(index: int, report: VideoReport) -> str:
    name = f'<td data-key="{escape_text(report.video)}"><a href="#v{index}">{escape_text(report.video)}</a>'
    if report.status == "failed":
        return f'<tr>{name}<td colspan="{len(_COLUMNS) - 1}" class="failed">failed</tr>'
    retained, seconds = report.tokens_out / report.tokens_in, sum(report.seconds.values())
    cells: tuple[tuple[float, str], ...] = (
        (report.frames, str(report.frames)),
        (report.tokens_in, str(report.tokens_in)),
        (report.tokens_out, str(report.tokens_out)),
        (retained, f"{100 * retained:.1f} %"),
        (max(report.budgets), f"{min(report.budgets)} to {max(report.budgets)}"),
        (seconds, f"{seconds:.2f}"),
    )
    return f"<tr>{name}" + "".join(f'<td data-key="{key:g}">{cell}' for key, cell in cells) + "</tr>"


def _details(index: int, report: VideoReport) -> str:
    parts = [f'<h2 id="v{index}">{escape_text(report.video)}</h2>']
    if report.status == "failed":
        return parts[0] + f'\n<p class="failed">{escape_text(report.message)}</p>'
    facts = [f"{report.method}, nominal retention {report.retention:g}"]
    facts += [f"{name.replace('_', ' ')} {value:g}" for name, value in report.merges.items()]
    facts += [f"{name.replace('_', ' ')}: {source}" for name, source in report.sources.items()]
    parts.append(f'<p class="faint">{escape_text(" · ".join(facts))}</p>')
    if report.message:
        parts.append(f"<p>{escape_text(report.message)}</p>")
    if report.picture is not None:
        encoded = base64.b64encode(Path(report.picture).read_bytes()).decode("ascii")
        image = f'<img alt="tokens kept and merged" src="data:image/png;base64,{encoded}">'
        parts.append(f'<div class="wide">{image}</div>')
    else:
        parts.append(_bars(report.budgets, report.granted))
        parts.append('<p class="faint">tokens per frame (grey: granted); pictures need matplotlib: codecmeta[plot]</p>')
    return "\n".join(parts)


def _bars(counts: Sequence[int], granted: Sequence[int]) -> str:
    """Draw tokens per frame as bars, in front of those granted."""
    highest = max([1, *counts, *granted])
    step, height = 14, 80

    def draw(values: Iterable[int], style: str) -> str:
        return "".join(
            f'<rect{style} x="{step * i}" y="{height - height * value / highest:.1f}" width="{step - 2}" '
            f'height="{height * value / highest:.1f}"><title>frame {i}: {value}</title></rect>'
            for i, value in enumerate(values)
        )

    bars = draw(granted, ' class="granted"') + draw(counts, "")
    width = step * max(len(counts), 1)
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{bars}</svg>'
