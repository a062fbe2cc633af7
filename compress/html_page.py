"""HTML pages in one file: their frame, and tables that can be sorted, with no request to another host."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2433; background: #fff; margin: 2.5rem auto; max-width: 76rem;
       padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.6rem 0 .3rem; overflow-wrap: anywhere; }
p { margin: .2rem 0; overflow-wrap: anywhere; } .faint { color: #6b7385; } .failed { color: #a8321f; }
.wide { overflow-x: auto; margin: 1.2rem 0; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: #6b7385; text-align: right; border-bottom: 2px solid #d9dde5; padding: .35rem .7rem; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid #2f6bcb; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
td { text-align: right; border-bottom: 1px solid #edeff3; padding: .35rem .7rem; vertical-align: top;
     white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; min-width: 11rem; white-space: normal;
                                 overflow-wrap: anywhere; }
td.failed { text-align: left; white-space: normal; }
a { color: #2f6bcb; text-decoration: none; } a:hover { text-decoration: underline; }
@media (max-width: 640px) {
  body { margin: 1.2rem auto; padding: 0 1rem; }
  th, td { padding: .35rem .45rem; }
  th:first-child, td:first-child { min-width: 9rem; }
}
"""

SORTING = """
function sortRows(head) {
  const column = head.cellIndex, body = head.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") === "descending";
  const key = row => row.cells[column] ? row.cells[column].dataset.key ?? "" : "";
  const compare = (a, b) => (a === "") - (b === "") ||
    (down ? -1 : 1) * (column ? a - b : a.localeCompare(b, undefined, {numeric: true}));
  body.append(...[...body.rows].sort((one, other) => compare(key(one), key(other))));
}
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  sortRows(head);
});
"""
"""Sorts a table by the `data-key` of its cells; the first column holds text, the others numbers."""


def escape_text(value: str) -> str:
    """Escape any text, also a file name that is not UTF-8."""
    return escape(value.encode("utf-8", "replace").decode("utf-8"))


def render(body: str, *, title: str, style: str = "", script: str = "") -> str:
    """Render a page that loads no second file.

    Args:
        body: HTML after the heading.
        title: of the page, and its heading.
        style: rules besides `STYLE`.
        script: statements after `SORTING`.
    """
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape_text(title)}</title>\n<style>{STYLE}{style}</style>\n"
        f"<h1>{escape_text(title)}</h1>\n{body}\n<script>{SORTING}{script}</script>\n</html>\n"
    )
