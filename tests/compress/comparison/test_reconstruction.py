"""Shares of variance that are lost, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compress.comparison.reconstruction import NEIGHBOURS, reconstruct
from compress.errors import ShapeError

Floats = NDArray[np.float64]


def oracle(tokens: Floats, kept: Floats, assign: NDArray[np.int64]) -> tuple[float, float, float]:
    """Compute assignment, local and linear by loops over tokens and `numpy.linalg.lstsq`."""
    mean = tokens.mean(axis=0)
    total = ((tokens - mean) ** 2).sum()
    assigned = local = linear = 0.0
    for token, place in zip(tokens, assign, strict=True):
        distance = ((kept - token) ** 2).sum(axis=1)
        assigned += distance[place] if place >= 0 else distance.min()
        for basis, last in ((kept[np.argsort(distance)[:NEIGHBOURS]], False), (kept, True)):
            solved = np.linalg.lstsq((basis - mean).T, token - mean, rcond=1e-6)[0]
            lost = ((token - mean - (basis - mean).T @ solved) ** 2).sum()
            if last:
                linear += lost
            else:
                local += lost
    return assigned / total, local / total, linear / total


def scene(seed: int, *, count: int = 60, width: int = 24) -> Floats:
    """Tokens in clusters, so that neighbours say something of each other."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, width))
    return (
        (3 + centres[rng.integers(0, 6, count)] + 0.4 * rng.normal(size=(count, width)))
        .astype(np.float32)
        .astype(float)
    )


def measure(tokens: Floats, kept: Floats, assign: NDArray[np.int64]) -> tuple[float, float, float]:
    found = reconstruct(torch.from_numpy(tokens).float(), torch.from_numpy(kept).float(), torch.from_numpy(assign))
    return found.assignment, found.local, found.linear


@pytest.mark.parametrize("kept", [1, 5, 12, 40])
def test_errors_are_those_of_the_definition(kept: int) -> None:
    tokens = scene(kept)
    rng = np.random.default_rng(1)
    chosen = np.sort(rng.permutation(len(tokens))[:kept])
    assign = np.where(rng.random(len(tokens)) < 0.4, rng.integers(0, kept, len(tokens)), -1)
    assign[chosen] = np.arange(kept)
    found, expected = measure(tokens, tokens[chosen], assign), oracle(tokens, tokens[chosen], assign)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert found[2] <= found[1] + 1e-9 <= found[0] + 2e-9
    # the oracle notices another measure
    assert found != pytest.approx(oracle(tokens, tokens[chosen] + 0.05, assign), rel=1e-3)


def test_all_tokens_lose_nothing_and_the_mean_loses_everything() -> None:
    tokens = scene(0)
    every = np.arange(len(tokens))
    assert measure(tokens, tokens, every) == (0, 0, 0)
    mean = tokens.mean(axis=0, keepdims=True)
    assert measure(tokens, mean, np.zeros(len(tokens), np.int64)) == pytest.approx((1, 1, 1), rel=1e-4)


def test_equal_and_repeated_tokens() -> None:
    still = np.ones((9, 4))
    assert measure(still, still[:1], np.zeros(9, np.int64)) == (0, 0, 0)
    tokens = scene(2)
    twice = np.repeat(tokens[:6], 2, axis=0)  # singular for every solver
    assign = np.full(len(tokens), -1)
    assert measure(tokens, twice, assign)[2] == pytest.approx(oracle(tokens, twice, assign)[2], rel=1e-5)


def test_as_many_tokens_as_dimensions_lose_nothing_linearly() -> None:
    tokens = scene(3, count=60, width=8)
    found = measure(tokens, tokens[:20], np.full(60, -1))
    assert found[2] == 0 < found[0]


def test_shapes_are_checked() -> None:
    tokens, none = torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)
    for kept, assign in ((torch.zeros(2, 4), none), (torch.zeros(2, 3), none[:4])):
        with pytest.raises(ShapeError, match="allowed are"):
            reconstruct(tokens, kept, assign)
    with pytest.raises(ShapeError, match="keep at least one"):
        reconstruct(tokens, torch.zeros(0, 3), none)
