"""Divergence of answers against SciPy; exactly 0 for equal logits, and not for others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from compress.comparison.cell import summarise_divergence
from compress.comparison.divergence import agree, kl_divergence


def test_divergence_is_that_of_the_distributions() -> None:
    rng = np.random.default_rng(0)
    full, other = (8 * rng.normal(size=(20, 300)).astype(np.float32) for _ in "ab")
    p, q = (softmax(one.astype(np.float64), axis=1) for one in (full, other))
    assert kl_divergence(full, other) == pytest.approx(rel_entr(p, q).sum(axis=1), rel=1e-9)
    assert kl_divergence(full, other) != pytest.approx(kl_divergence(other, full), rel=1e-3)


def test_equal_logits_diverge_by_exactly_nothing() -> None:
    full = np.random.default_rng(1).normal(size=(5, 90)).astype(np.float32) * 20
    assert kl_divergence(full, full.copy()).tolist() == [0.0] * 5
    assert agree(full, full).all()
    moved = full.copy()
    moved[2] = np.nextafter(moved[2], np.inf) + 1e-3 * np.arange(90)
    assert np.flatnonzero(kl_divergence(full, moved)).tolist() == [2]
    turned = full.copy()
    turned[3, full[3].argmin()] = full[3].max() + 1
    assert agree(full, turned).tolist() == [True, True, True, False, True]


def test_large_logits_do_not_overflow() -> None:
    full = np.array([[1e4, 0, -1e4]], np.float32)
    assert kl_divergence(full, np.array([[0, 1e4, 0]], np.float32))[0] == pytest.approx(1e4)


def test_summary_is_median_mean_and_ninetieth_percentile() -> None:
    kl = tuple(float(value) for value in range(11))
    assert summarise_divergence(kl) == {"kl_median": 5, "kl_mean": 5, "kl_p90": 9}
    assert set(summarise_divergence(()).values()) == {None}
