"""Summary over videos: one row per method and retention, medians of its figures, and the columns of the tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from compress.comparison.cell import CONTROLS, Cell, summarise_divergence

Kind = Literal["count", "percent", "milliseconds", "tera", "nats"]
Better = Literal["low", "high", ""]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table, and a curve of the page.

    Attributes:
        key: of `Row.figures`.
        title: its head.
        kind: how it is written.
        better: where the best value lies; empty where there is none.
        says: what it is, in a sentence.
        curve: title of its curve; empty for none.
    """

    key: str
    title: str
    kind: Kind
    better: Better = ""
    says: str
    curve: str = ""

    def write(self, value: float | None) -> str:
        """Return the value as text; a dash for None."""
        if value is None:
            return "-"
        if self.kind == "nats":
            return "0" if value == 0 else f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}"
        factor, decimals = {"count": (1, 0), "percent": (100, 1), "milliseconds": (1000, 1), "tera": (1e-12, 2)}[
            self.kind
        ]
        if self.kind == "tera" and 0 < factor * value < 0.01:  # of a small model
            return f"{factor * value:.1e}"
        return f"{factor * value:.{decimals}f}"


COLUMNS: Final = (
    Column(key="tokens_out", title="tokens", kind="count", says="tokens that enter the language model"),
    Column(key="kept", title="kept %", kind="percent", says="share of the tokens that enter it"),
    Column(key="tokens_inner", title="inner", kind="count", says="tokens after the last merge inside the model"),
    Column(key="patches", title="patches %", kind="percent",
           says="share of the patches that the encoder sees, or that merging inside it left"),
    Column(key="seconds", title="ms", kind="milliseconds", better="low",
           says="planning and merging, without measuring signals",
           curve="planning and merging, ms"),
    Column(key="macs", title="TMACs", kind="tera", says="multiply-accumulates of the prefill over visual tokens"),
    Column(key="macs_share", title="MACs %", kind="percent", says="the same as a share of those without compression",
           curve="operations of the prefill"),
    Column(key="assignment_error", title="assign %", kind="percent", better="low",
           says="variance lost when every token is replaced by the one that stands for it, or by the nearest",
           curve="variance lost by assignment"),
    Column(key="local_error", title="local %", kind="percent", better="low",
           says="variance lost by the best linear combination of the eight nearest kept tokens",
           curve="variance lost by local combination"),
    Column(key="linear_error", title="linear %", kind="percent", better="low",
           says="variance lost by the best linear combination of all kept tokens",
           curve="variance lost by linear combination"),
    Column(key="moving_coverage", title="moving %", kind="percent", better="high",
           says="share of the moving patches that is kept",
           curve="moving patches kept"),
    Column(key="residual_coverage", title="residual %", kind="percent", better="high",
           says="share of the patches of high residual that is kept",
           curve="patches of high residual kept"),
    Column(key="temporal_coverage", title="frames %", kind="percent", better="high",
           says="share of the frames of which something is kept",
           curve="frames kept"),
    Column(key="kl_median", title="KL median", kind="nats", better="low",
           says="median over questions of KL(all tokens || kept tokens) in nats, at the first word of the answer",
           curve="KL divergence, median, nats"),
    Column(key="kl_mean", title="KL mean", kind="nats", better="low", says="its mean",
           curve="KL divergence, mean, nats"),
    Column(key="kl_p90", title="KL p90", kind="nats", better="low", says="its 90th percentile",
           curve="KL divergence, 90th percentile, nats"),
    Column(key="agreement", title="agree %", kind="percent", better="high",
           says="share of the questions with the same likeliest first word",
           curve="same first word"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method at a retention, over videos.

    Attributes:
        method: its name, or a control's.
        retention: nominal.
        videos: on how many it was measured.
        failures: messages of those on which it failed.
        figures: by column key; None where unknown.
    """

    method: str
    retention: float
    videos: int
    failures: tuple[str, ...]
    figures: Mapping[str, float | None]

    @property
    def is_control(self) -> bool:
        """Whether it checks the measurement."""
        return self.method in CONTROLS


def tabulate(cells: Iterable[Cell]) -> list[Row]:
    """Summarise cells by method and retention, in order of appearance, the highest retention of a method first.

    What is omitted has no row. Figures are medians over videos; divergence and agreement are those of all questions.
    """
    groups: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        if cell.method is not None and cell.retention is not None and cell.status != "omitted":
            groups.setdefault((cell.method, cell.retention), []).append(cell)
    order = {method: number for number, method in enumerate(dict.fromkeys(method for method, _ in groups))}
    ordered = sorted(groups, key=lambda key: (order[key[0]], -key[1]))
    return [_row(method, retention, groups[method, retention]) for method, retention in ordered]


def reasons_to_omit(videos: Iterable[Iterable[Cell]], omitted: Iterable[Cell]) -> dict[str, list[str]]:
    """Group what was not compared by the reason."""
    reasons: dict[str, list[str]] = {}
    for cell in (*omitted, *(cell for cells in videos for cell in cells if cell.status == "omitted")):
        names = reasons.setdefault(cell.message, [])
        if cell.method is not None and cell.method not in names:
            names.append(cell.method)
    return reasons


def shown_columns(rows: Sequence[Row]) -> list[Column]:
    """List the columns that say something of these rows."""
    known = [column for column in COLUMNS if any(row.figures[column.key] is not None for row in rows)]
    idle = set()
    if all(row.figures["tokens_inner"] == row.figures["tokens_out"] for row in rows if not row.is_control):
        idle.add("tokens_inner")
    if all(row.figures["patches"] in (None, 1.0) for row in rows):
        idle.add("patches")
    return [column for column in known if column.key not in idle]


def _row(method: str, retention: float, cells: Sequence[Cell]) -> Row:
    done = [cell for cell in cells if cell.status == "done"]
    figures: dict[str, float | None] = {}
    for column in COLUMNS:
        values = [value for cell in done if (value := _value(cell, column.key)) is not None]
        figures[column.key] = statistics.median(values) if values else None
    divergence = tuple(value for cell in done for value in cell.kl)
    figures |= summarise_divergence(divergence)
    if divergence:
        figures["agreement"] = sum(len(one.kl) * (one.agreement or 0.0) for one in done) / len(divergence)
    failures = tuple(f"{cell.video}: {cell.message}" for cell in cells if cell.status == "failed")
    return Row(method=method, retention=retention, videos=len(done), failures=failures, figures=figures)


def _value(cell: Cell, key: str) -> float | None:
    if key == "kept":
        return cell.tokens_out / cell.tokens_in if cell.tokens_out else None
    if key == "macs_share":
        return None if cell.macs is None or cell.macs_full is None else cell.macs / cell.macs_full
    if key in ("tokens_out", "tokens_inner") and not cell.tokens_out:
        return None
    value: float | None = getattr(cell, key, None)
    return value
