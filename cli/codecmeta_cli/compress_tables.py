"""What `compress run` shows of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codecmeta_cli.console import make_table, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from compress.runner import VideoReport

STAGES = ("load", "density", "encode", "compress", "save", "plot")


def print_reports(console: Console, reports: Sequence[VideoReport]) -> None:
    """One table over all videos, then what there is to say about single ones."""
    from rich.markup import escape

    shown = [stage for stage in STAGES if any(stage in report.seconds for report in reports)]
    table = make_table(
        "video", numbers=("frames", "tokens in", "out", "retained", "per frame", "patches", "pairs", *shown)
    )
    for report in reports:
        name = escape(printable(report.video, longest=60))
        if report.status == "failed":
            table.add_row(name, "[red]failed[/]")
            continue
        patches = report.merges.get("patches_encoded")
        pairs = report.merges.get("pairs")
        table.add_row(
            name + (" [dim](done before)[/]" if report.status == "kept" else ""),
            str(report.frames),
            str(report.tokens_in),
            str(report.tokens_out),
            f"{100 * report.tokens_out / report.tokens_in:.1f} %",
            f"{min(report.budgets)}-{max(report.budgets)}",
            "-" if patches is None else f"{100 * patches / report.merges['patches_in']:.1f} %",
            "-" if pairs is None else f"{pairs:g}",
            *(f"{report.seconds[stage]:.2f}" if stage in report.seconds else "-" for stage in shown),
        )
    console.print(table)
    console.print(
        "per frame: tokens that leave · patches: share that the encoder sees after RPM · "
        "pairs: tokens merged across frames · stages in seconds",
        style="dim",
    )
    for report in reports:
        if report.message:
            style = "red" if report.status == "failed" else "yellow"
            console.print(
                f"[{style}]{escape(printable(report.video, longest=200))}[/]: "
                f"{escape(printable(report.message, longest=2000))}",
                highlight=False,
                soft_wrap=True,
            )
