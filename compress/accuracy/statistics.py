"""Accuracy per family and over families, corrected for chance, with intervals by resampling clips.

Questions about one clip succeed and fail together, so clips are drawn and not questions; and the same draws serve all
methods, so that differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 1000
LEVEL: Final = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with its interval.

    Attributes:
        value: over all clips.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """Numbers of questions of each family that each clip was asked, and of those answered correctly.

    Attributes:
        right: float64 (C, F); fractions where a method was run several times.
        asked: float64 (C, F).
    """

    right: Floats
    asked: Floats

    @staticmethod
    def of(families: Sequence[Sequence[str]], right: Sequence[Sequence[float]], names: Sequence[str]) -> Tally:
        """Count.

        Args:
            families: of the questions, per clip.
            right: 1 for each right answer, per clip.
            names: of the families, in the order of columns.
        """
        column = {name: index for index, name in enumerate(names)}
        asked, scored = np.zeros((2, len(families), len(names)))
        for row, (kinds, marks) in enumerate(zip(families, right, strict=True)):
            place = [column[kind] for kind in kinds]
            np.add.at(asked[row], place, 1)
            np.add.at(scored[row], place, marks)
        return Tally(right=scored, asked=asked)

    def accuracies(self, weights: Floats) -> Floats:
        """Compute accuracy per family and weighting of clips, (draws, C) -> (draws, F); NaN where none was asked."""
        asked = weights @ self.asked
        return np.divide(weights @ self.right, asked, out=np.full_like(asked, np.nan), where=asked > 0)


def draw_weights(clips: int, *, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Draw float64 (1 + draws, C): all clips once, then how often each is drawn in samples of C with replacement."""
    drawn = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=draws)
    return np.concatenate((np.ones((1, clips)), drawn))


def macro(accuracies: Floats) -> Floats:
    """Average over the families that were asked, (draws, F) -> (draws,)."""
    present = ~np.isnan(accuracies)
    counts = present.sum(axis=1)
    mean = np.full(len(counts), np.nan)
    np.divide(np.where(present, accuracies, 0).sum(axis=1), counts, out=mean, where=counts > 0)
    return mean


def macro_chance(accuracies: Floats, chance: Floats) -> Floats:
    """Return the chance of the families that `macro` is the mean of, (draws, F) and (F,) -> (draws,)."""
    return macro(np.where(np.isnan(accuracies), np.nan, chance))


def correct_for_chance(accuracy: Floats, chance: Floats, full: Floats) -> Floats:
    """Return (accuracy - chance) / (full - chance): 0 for guessing, 1 for the full model; NaN where it guesses too."""
    span = full - chance
    corrected = np.full_like(span, np.nan)
    np.divide(accuracy - chance, span, out=corrected, where=span > 0)
    return corrected


def summarise(samples: Floats, *, level: float = LEVEL) -> Figure:
    """Summarise samples, of which the first is the estimate and the others its resamples (percentile interval)."""
    others = samples[1:][~np.isnan(samples[1:])]
    edge = 100 * (1 - level) / 2
    low, high = np.percentile(others, [edge, 100 - edge]) if others.size else (np.nan, np.nan)
    return Figure(value=float(samples[0]), low=float(low), high=float(high))
