"""Allocation is exact, bounded, proportional, and agrees with another algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.budget import allocate, count_tokens, floor_guarded, round_half_up
from compress.errors import ConfigError, ShapeError
from tests.oracle import budget as oracle


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
    size = draw(st.integers(1, 12))
    weights = draw(
        st.lists(
            st.one_of(st.just(0.0), st.floats(1e-6, 5), st.floats(1e-6, 1e9), st.sampled_from([1.0, 2.0])),
            min_size=size,
            max_size=size,
        )
    )
    lower = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    room = draw(st.lists(st.integers(0, 300), min_size=size, max_size=size))
    total = draw(st.integers(0, 2500))
    return np.array(weights), total, np.array(lower), np.array(lower) + np.array(room)


@settings(max_examples=10_000, deadline=None)
@given(problems())
def test_allocation_is_exact_and_bounded(problem: tuple[np.ndarray, int, np.ndarray, np.ndarray]) -> None:
    weights, total, lower, upper = problem
    units = allocate(weights, total, lower=lower, upper=upper)
    assert units.sum() == min(total, upper.sum())
    assert (units <= upper).all()
    if total >= lower.sum():
        assert (units >= lower).all()
        # Within one unit of the real share: the quota rule of largest remainders.
        shares = oracle.real_shares(weights, min(total, int(upper.sum())), lower, upper)
        assert (np.abs(units - shares) < 1 + 1e-6).all()
    else:
        assert (units <= lower).all()


def test_allocation_equals_the_other_algorithm() -> None:
    rng = np.random.default_rng(7)
    compared = 0
    for _ in range(2000):
        size = rng.integers(1, 15)
        weights = rng.random(size) ** 3 * (rng.random(size) < 0.9)
        lower = rng.integers(0, 4, size)
        upper = lower + rng.integers(0, 60, size)
        total = int(rng.integers(0, upper.sum() + 10))
        expected, gap = oracle.allocate(weights, total, lower, upper)
        if gap > 1e-6:
            compared += 1
            np.testing.assert_array_equal(allocate(weights, total, lower=lower, upper=upper), expected)
    assert compared > 1900


def test_golden_frame_budgets() -> None:
    cost = np.sqrt([400, 100, 2500, 900])
    assert (10 + allocate(cost, 60)).tolist() == [21, 16, 37, 26]
    # Rounding each share on its own, the formula as printed, misses the total.
    assert (10 + np.round(60 * cost / cost.sum())).tolist() == [21, 15, 37, 26]
    assert (12 + allocate(cost, 2)).tolist() == [12, 12, 13, 13]


def test_ties_go_to_the_lower_index() -> None:
    assert allocate([1, 1, 1], 2).tolist() == [1, 1, 0]
    assert allocate([0, 0, 0], 4).tolist() == [2, 1, 1]
    assert allocate([1, 2, 2], 2, lower=1).tolist() == [0, 1, 1]


def test_weight_near_the_float_limits() -> None:
    assert allocate([1e308, 1e308], 10).tolist() == [5, 5]
    assert allocate([5e-324, 5e-324, 0], 10).tolist() == [5, 5, 0]
    assert allocate([5e-324, 1e308], 10, upper=6).tolist() == [4, 6]


@pytest.mark.parametrize(
    ("weights", "total", "bounds", "error"),
    [
        ([-1.0], 1, {}, ConfigError),
        ([float("nan")], 1, {}, ConfigError),
        ([1.0], -1, {}, ConfigError),
        ([1.0], 2**40, {}, ConfigError),
        ([[1.0]], 1, {}, ShapeError),
        ([1.0, 2.0], 1, {"upper": [1, 2, 3]}, ShapeError),
        ([1.0], 1, {"lower": 3, "upper": 2}, ConfigError),
    ],
)
def test_bad_problems_are_refused(
    weights: list[float], total: int, bounds: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        allocate(weights, total, **bounds)


def test_rounding_of_products() -> None:
    assert (1 - 0.4) * 0.1 * 50 < 3 or 0.6 * 5 < 3 or 0.1 * 3 * 10 > 3  # products that are 3 on paper
    assert floor_guarded(2.9999999999) == 3
    assert [round_half_up(x) for x in (0.5, 1.5, 2.5)] == [1, 2, 3]
    assert count_tokens(0.1, 6272) == 627
    assert count_tokens(1.0, 7) == 7
    with pytest.raises(ConfigError, match="leaves none"):
        count_tokens(0.001, 100)
    assert count_tokens(np.float32(0.5), 8) == 4
    bad: list[Any] = [0, -0.1, 1.01, float("nan"), "0.3", None]
    for retention in bad:
        with pytest.raises(ConfigError, match="retained fraction"):
            count_tokens(retention, 100)
