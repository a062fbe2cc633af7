"""Results: figures from answers, one row per method and retention."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from compress.accuracy.measure import FULL, Examined, Job, cell_name
from compress.accuracy.questions import CHANCE, FAMILIES
from compress.accuracy.statistics import (
    Figure,
    Floats,
    Tally,
    correct_for_chance,
    draw_weights,
    macro,
    macro_chance,
    summarise,
)

RANDOM: Final = "random"


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy of one family, or the mean over families.

    Attributes:
        questions: that were asked.
        chance: accuracy of guessing.
        accuracy: share of right answers among the options.
        of_full: the same over that of the model without a compressor.
        corrected: (accuracy - chance) / (full - chance).
    """

    questions: int
    chance: float
    accuracy: Figure
    of_full: Figure
    corrected: Figure


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method at a retention.

    Attributes:
        method: its name.
        group: what it is measured for.
        settings: what was set.
        map: where the density of patches came from.
        retention: nominal.
        kept: share that was really kept of what the retention is a fraction of.
        macro: mean over families.
        families: each separately.
        exact: macro accuracy among all words.
        minus_full: macro accuracy less that of the model without a compressor.
        minus_random: less that of random tokens at this retention; None if these were not measured.
        tokens_in: visual tokens of a prompt, mean over clips like the rest.
        tokens_out: those that entered the language model.
        tokens_inner: those after the merge inside it.
        patches: share of patches that the tower saw.
        macs: multiply-accumulates of the prefill over visual tokens.
        tower_macs: of the tower.
        seconds: of planning and merging, per clip.
        about: what the figures belong to.
    """

    method: str
    group: str
    settings: Mapping[str, str]
    map: str
    retention: float
    kept: float
    macro: Score
    families: Mapping[str, Score]
    exact: float
    minus_full: Figure
    minus_random: Figure | None
    tokens_in: float
    tokens_out: float
    tokens_inner: float
    patches: float
    macs: float
    tower_macs: float
    seconds: float
    about: Mapping[str, Any]

    def to_json(self) -> str:
        """Return one line of ASCII; what is undefined is null."""
        return json.dumps(_without_nan(asdict(self)), allow_nan=False)


def tabulate(job: Job, results: Sequence[Examined], about: Mapping[str, Any]) -> list[Row]:
    """Compute the rows of all methods at all retentions, the identity first.

    Args:
        job: what was measured.
        results: per clip.
        about: repeated in every row.
    """
    asked = asked_families(results)
    chance = np.array([CHANCE[name] for name in asked])
    weights = draw_weights(len(results))
    accuracies = partial(resample, results, asked, weights)
    full = accuracies(FULL)
    full_macro, chances = macro(full), macro_chance(full, chance)
    counts = np.array([sum(one.families.count(name) for one in results) for name in asked])
    measured = {cell_name(method, retention) for method, retention in job.cells}
    rows = []
    for method, retention in job.cells:
        cell = cell_name(method, retention)
        found = accuracies(cell)
        by_lot = next((name for name in measured if name == f"{RANDOM}@{retention:g}" and name != cell), None)
        account = {
            name: float(np.mean([_account(one, cell)[name] for one in results]))
            for name in ("tokens_in", "tokens_out", "tokens_inner", "patches", "macs", "tower_macs", "seconds")
        }
        rows.append(
            Row(
                method=method.name,
                group=method.group,
                settings=dict(method.settings),
                map=method.map,
                retention=retention,
                kept=account["patches"] if method.kept == "patches" else account[method.kept] / account["tokens_in"],
                macro=_score(macro(found), chances, full_macro, int(counts.sum())),
                families={
                    name: _score(
                        found[:, index], np.full(len(found), chance[index]), full[:, index], int(counts[index])
                    )
                    for index, name in enumerate(asked)
                },
                exact=float(macro(accuracies(cell, exact=True))[0]),
                minus_full=summarise(macro(found) - full_macro),
                minus_random=None if by_lot is None else summarise(macro(found) - macro(accuracies(by_lot))),
                about=about,
                **account,
            )
        )
    return rows


def asked_families(results: Sequence[Examined]) -> list[str]:
    """List the families of which these clips ask anything."""
    return [name for name in FAMILIES if any(name in one.families for one in results)]


def resample(
    results: Sequence[Examined], asked: Sequence[str], weights: Floats, cell: str, *, exact: bool = False
) -> Floats:
    """Compute accuracies per family of a cell for each weighting of the clips, (draws, F)."""
    marks = [one.cells[cell].exact if exact else one.cells[cell].right for one in results]
    return Tally.of([one.families for one in results], marks, asked).accuracies(weights)


def _score(accuracy: Floats, chance: Floats, full: Floats, questions: int) -> Score:
    share = np.divide(accuracy, full, out=np.full_like(full, np.nan), where=full > 0)
    return Score(
        questions=questions,
        chance=float(chance[0]),
        accuracy=summarise(accuracy),
        of_full=summarise(share),
        corrected=summarise(correct_for_chance(accuracy, chance, full)),
    )


def _account(one: Examined, cell: str) -> Mapping[str, float]:
    account = one.cells[cell].account
    assert account is not None  # only the plain model has none
    return account


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def group_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by method, in order of first appearance, each from the highest retention down."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.method, []).append(row)
    return {name: sorted(found, key=lambda row: -row.retention) for name, found in grouped.items()}
