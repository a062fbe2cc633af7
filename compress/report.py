"""One self-contained HTML page over a run: a table, and per video its budgets, figures and picture."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from compress.runner import VideoReport

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2433; background: #fff; margin: 2.5rem auto; max-width: 76rem;
       padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
h2 { font-size: 1.05rem; margin: 2.6rem 0 .3rem; overflow-wrap: anywhere; }
p { margin: .2rem 0; } .faint { color: #6b7385; } .failed { color: #a8321f; }
table { border-collapse: collapse; width: 100%; margin: 1.4rem 0; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: #6b7385; text-align: right; border-bottom: 2px solid #d9dde5; padding: .35rem .7rem; }
td { text-align: right; border-bottom: 1px solid #edeff3; padding: .35rem .7rem; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; }
a { color: #2f6bcb; text-decoration: none; } a:hover { text-decoration: underline; }
img { width: 100%; height: auto; margin-top: .6rem; border: 1px solid #edeff3; border-radius: 6px; }
svg { display: block; margin: .6rem 0; } rect { fill: #9dbbe8; } rect.granted { fill: #e6eaf1; }
"""


def render_page(reports: Sequence[VideoReport], *, title: str) -> str:
    """The page as text: no script, no second file, nothing fetched.

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
    head = "<tr><th>video<th>frames<th>tokens in<th>tokens out<th>retained<th>per frame<th>seconds</tr>"
    rows = "\n".join(_row(index, report) for index, report in enumerate(reports))
    details = "\n".join(_details(index, report) for index, report in enumerate(reports))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<h1>{escape(title)}</h1>\n<p class="faint">{escape(summary)}</p>\n'
        f"<table>\n{head}\n{rows}\n</table>\n{details}\n</html>\n"
    )


def _row(index: int, report: VideoReport) -> str:
    name = f'<a href="#v{index}">{_text(report.video)}</a>'
    if report.status == "failed":
        return f'<tr><td>{name}<td colspan="6" class="failed">failed</tr>'
    cells = (
        report.frames,
        report.tokens_in,
        report.tokens_out,
        f"{100 * report.tokens_out / report.tokens_in:.1f} %",
        f"{min(report.budgets)} to {max(report.budgets)}",
        f"{sum(report.seconds.values()):.2f}",
    )
    return f"<tr><td>{name}" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"


def _details(index: int, report: VideoReport) -> str:
    parts = [f'<h2 id="v{index}">{_text(report.video)}</h2>']
    if report.status == "failed":
        return parts[0] + f'\n<p class="failed">{_text(report.message)}</p>'
    facts = [f"{report.method}, nominal retention {report.retention:g}"]
    facts += [f"{name.replace('_', ' ')} {value:g}" for name, value in report.merges.items()]
    facts += [f"{name} from {source}" for name, source in report.sources.items()]
    parts.append(f'<p class="faint">{_text(" · ".join(facts))}</p>')
    if report.message:
        parts.append(f"<p>{_text(report.message)}</p>")
    if report.picture is not None:
        encoded = base64.b64encode(Path(report.picture).read_bytes()).decode("ascii")
        parts.append(f'<img alt="tokens kept and merged" src="data:image/png;base64,{encoded}">')
    else:
        parts.append(_bars(report.budgets, report.granted))
    return "\n".join(parts)


def _bars(counts: Sequence[int], granted: Sequence[int]) -> str:
    """Tokens per frame as bars, in front of those granted."""
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


def _text(value: str) -> str:
    """Any text, also a file name that is not UTF-8, as HTML."""
    return escape(value.encode("utf-8", "replace").decode("utf-8"))
