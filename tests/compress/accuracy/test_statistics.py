"""Figures against sums by hand and against resampling by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from compress.accuracy.statistics import (
    Tally,
    correct_for_chance,
    draw_weights,
    macro,
    macro_chance,
    summarise,
)

FAMILIES = ("a", "b", "c")


def make_tally(clips: int = 30, seed: int = 0) -> Tally:
    rng = np.random.default_rng(seed)
    kinds = [[FAMILIES[kind] for kind in rng.integers(0, 2, rng.integers(3, 9))] for _ in range(clips)]
    marks = [rng.integers(0, 2, len(row)).astype(float).tolist() for row in kinds]
    return Tally.of(kinds, marks, FAMILIES)


def test_counts() -> None:
    tally = Tally.of([["a", "b", "a"], ["b"]], [[1, 0, 0.5], [1]], FAMILIES)
    assert tally.asked.tolist() == [[2, 1, 0], [0, 1, 0]]
    assert tally.right.tolist() == [[1.5, 0, 0], [0, 1, 0]]
    whole = tally.accuracies(draw_weights(2))[0]
    assert whole[:2].tolist() == [0.75, 0.5]
    assert np.isnan(whole[2])


def test_weights_are_samples_with_replacement() -> None:
    weights = draw_weights(50, draws=400)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 50).all()
    assert weights[1:].var(axis=0).mean() == pytest.approx(1, abs=0.1)
    assert np.array_equal(weights, draw_weights(50, draws=400))
    assert not np.array_equal(weights, draw_weights(50, draws=400, seed=1))


def test_intervals_are_those_of_resampled_clips() -> None:
    tally = make_tally()
    ours = summarise(macro(tally.accuracies(draw_weights(30, draws=4000))))
    rng = np.random.default_rng(9)
    samples = []
    for _ in range(4000):
        clips = rng.integers(0, 30, 30)
        samples.append(np.mean([tally.right[clips, k].sum() / tally.asked[clips, k].sum() for k in (0, 1)]))
    low, high = np.percentile(samples, [2.5, 97.5])
    assert ours.value == pytest.approx(np.mean(tally.right.sum(0)[:2] / tally.asked.sum(0)[:2]))
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.01)
    # Questions that fail together widen the interval: resampling questions one by one would not show it.
    copies = Tally(right=tally.right * 10, asked=tally.asked * 10)
    again = summarise(macro(copies.accuracies(draw_weights(30, draws=4000))))
    assert (again.low, again.high) == pytest.approx((ours.low, ours.high))


def test_paired_differences_are_narrower_than_unpaired() -> None:
    one = make_tally()
    right = one.right.copy()
    right[0, 0] = max(right[0, 0] - 1, 0)
    other = Tally(right=right, asked=one.asked)
    weights, elsewhere = draw_weights(30), draw_weights(30, seed=5)
    paired = summarise(macro(one.accuracies(weights)) - macro(other.accuracies(weights)))
    unpaired = summarise(macro(one.accuracies(weights)) - macro(other.accuracies(elsewhere)))
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)


def test_chance_correction() -> None:
    full, chance = np.array([0.9, 0.2]), np.array([0.25, 0.25])
    corrected = correct_for_chance(np.array([0.9, 0.2]), chance, full)
    assert corrected[0] == 1
    assert np.isnan(corrected[1])
    assert correct_for_chance(chance, chance, np.array([0.9, 0.8])).tolist() == [0, 0]
    assert correct_for_chance(np.array([0.575]), chance[:1], full[:1])[0] == pytest.approx(0.5)


def test_families_that_were_not_asked_do_not_count() -> None:
    accuracies = np.array([[1.0, 0.5, np.nan], [np.nan, np.nan, np.nan]])
    assert macro(accuracies)[0] == 0.75
    assert np.isnan(macro(accuracies)[1])
    assert macro_chance(accuracies, np.array([0.25, 0.5, 0.9]))[0] == 0.375


def test_figures_without_samples() -> None:
    figure = summarise(np.array([0.5]))
    assert figure.value == 0.5
    assert np.isnan(figure.low)
