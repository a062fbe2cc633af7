"""Progress reports of `codecmeta extract` and `verify`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.markup import escape

from codecmeta.batch.outcome import Outcome
from codecmeta.batch.verification import Finding
from codecmeta_cli.console import ProgressBar, printable


class Reporter:
    """Progress bar on a terminal, plain lines elsewhere; with `json`, only objects on standard output.

    Args:
        json: objects on standard output.
        total: number of videos, None while that is unknown.
        doing: what is done with them.
    """

    def __init__(self, *, json: bool, total: Callable[[], int | None], doing: str = "extracting") -> None:
        self._json = json
        self._bar = ProgressBar(doing, total=total)
        self._warned = self._without = 0

    def __enter__(self) -> Reporter:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        """Print a remark above the progress."""
        self._bar.say(escape(printable(text)), style="dim")

    def report(self, outcome: Outcome) -> None:
        """Show one outcome."""
        self._bar.advance(failed=outcome.status == "failed")
        self._print_json(outcome)
        self._warned += bool(outcome.warnings)
        self._without += outcome.status != "failed" and outcome.residual is None
        if outcome.status == "kept" and not outcome.seconds:
            # found in the manifest, perhaps a million times
            return
        source = escape(printable(outcome.source))
        notes = "".join(f"; {escape(printable(text))}" for text in outcome.warnings)
        if outcome.status == "failed":
            self._bar.say(f"[red]failed[/] {source}: {escape(printable(outcome.message))} \\[{outcome.code}]")
        elif outcome.status == "done" and not self._json and not self._bar.is_shown:
            counts = (("frame", outcome.frames), ("packet", outcome.packets), ("GoP", outcome.gops))
            facts = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts)
            residual = outcome.residual or "none"
            self._bar.say(f"done {source}: {facts}, residual {residual}, {outcome.seconds:.1f} s{notes}")
        elif notes:
            self._bar.say(f"[yellow]{outcome.status}[/] {source}{notes}")

    def report_finding(self, finding: Finding) -> None:
        """Show what the check of a record found."""
        self._bar.advance(failed=finding.status == "failed")
        self._print_json(finding)
        meta = escape(printable(finding.meta))
        if finding.status == "failed":
            self._bar.say(f"[red]failed[/] {meta}: {escape(printable(finding.message))} \\[{finding.code}]")
        elif not self._json and not self._bar.is_shown:
            self._bar.say(f"sound {meta}")

    def finish(
        self, counts: Mapping[Any, int], out: Path | str, *, residuals: bool = False, what: str = "metadata"
    ) -> None:
        """Print the counts of all inputs.

        Args:
            counts: by status.
            out: the folder of the records.
            residuals: whether a residual was requested, so that videos without one are counted.
            what: kind of files in the folder.
        """
        text = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"
        text += f" ({self._warned} with warnings)" if self._warned else ""
        if residuals and self._without:
            text += f" ({self._without} without a residual; --residual proxy makes one for any codec)"
        self._bar.say(f"{text}; {what} in {escape(printable(str(out)))}")

    def _print_json(self, result: Outcome | Finding) -> None:
        if self._json:
            sys.stdout.write(result.json() + "\n")
            sys.stdout.flush()
