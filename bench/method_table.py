"""Tables of docs/methods.md that join accuracy, times to the first token and planning: `python -m bench.method_table`.

From bench/results/accuracy.json (`compress accuracy`), first_token.json and compare.json; nothing is measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.method_panels import EVERY, TIMED_AS, Panel, find_share, gather_panels

RESULTS: Final = Path(__file__).resolve().parent / "results"
SHARE: Final = 0.1
MERGING: Final = ("rpm", "tome", "earlytom")
"""Methods before or inside the encoder, which make the tower faster."""
SHARES: Final = (0.5, 0.3, 0.1)
PARTS: Final[Mapping[str, tuple[str, ...]]] = {"metom": ("rpm", "btm", "matm")}
"""Methods that bench/results/compare.json times by their stages."""


def write_all(panels: Mapping[str, Panel], timed: Mapping[str, Any], planned: Sequence[Any]) -> Iterator[str]:
    """Write accuracy by judge, times faster, prefill and planning of every timed method, best first, as Markdown.

    A star marks methods that fewer clips were asked about.

    Args:
        panels: accuracy by method, of `gather_panels`.
        timed: rows of bench/results/first_token.json.
        planned: rows of bench/results/compare.json.
    """
    yield (
        f"| {100 * SHARE:g} % | accuracy over guessing | first token, times faster | tower, times faster | prefill, s "
        "| planning, ms |"
    )
    yield "|---" * 6 + "|"
    clips = max(panel.clips for panel in panels.values())
    for name in sorted(panels, key=lambda name: -panels[name].value[:, find_share(panels[name], SHARE)].mean()):
        known = TIMED_AS.get(name, name)
        row = timed.get(f"{known}@{SHARE:g}")
        parts = PARTS.get(known, (known,))
        planning = sum(stage["ours_ms"] for stage in planned if stage["method"] in parts)
        if row is not None:
            star = " *" if panels[name].clips < clips else ""
            yield (
                f"| `{name}` | {_accuracy(panels[name], SHARE, '.0f')}{star} | {row['first_token_ratio']:.2f} | "
                f"{row['tower_ratio']:.2f} | {row['prefill_seconds']:.2f} | "
                f"{planning:.{0 if planning >= 10 else 1}f} |"
            )


def write_merging(panels: Mapping[str, Panel], timed: Mapping[str, Any]) -> Iterator[str]:
    """Write accuracy and times of what merges before or inside the encoder at several shares, as Markdown."""
    yield (
        "| merged inside or before the encoder | share | accuracy over guessing | tower, times faster | "
        "first token, times faster |"
    )
    yield "|---" * 5 + "|"
    for name in MERGING:
        for share in SHARES:
            row = timed[f"{name}@{share:g}"]
            yield (
                f"| `{name}` | {100 * share:g} % | {_accuracy(panels[name], share, '.1f', interval=True)} | "
                f"{row['tower_ratio']:.2f} | {row['first_token_ratio']:.2f} |"
            )


def _accuracy(panel: Panel, share: float, form: str, *, interval: bool = False) -> str:
    at = find_share(panel, share)
    half = (panel.high[:, at] - panel.low[:, at]) / 2
    return " / ".join(
        f"{value:{form}}" + (f" ±{width:{form}}" if interval else "")
        for value, width in zip(panel.value[:, at], half, strict=True)
    )


def _load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def main() -> None:
    """Print both tables."""
    runs, timed = _load("accuracy")["runs"], _load("first_token")["rows"]
    panels = gather_panels([[runs[name] for name in names] for names in EVERY], timed)
    print("\n".join([*write_all(panels, timed, _load("compare")["rows"]), "", *write_merging(panels, timed)]))


if __name__ == "__main__":
    main()
