"""RPM against flood fill, one patch at a time."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from compress.errors import ConfigError, ShapeError
from compress.metom import RPM
from compress.plan import MergePlan
from tests.oracle import metom as oracle


def maps(frames: int, rows: int, cols: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((frames, rows, cols)).astype(np.float32).round(2)


def groups(plan: MergePlan) -> list[set[int]]:
    return [set(plan.col[a:b].tolist()) for a, b in zip(plan.crow[:-1], plan.crow[1:], strict=True)]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("tau", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_regions_equal_flood_fill(tau: float, connectivity: Literal[4, 8]) -> None:
    density = maps(3, 7, 5, seed=1)
    plan = RPM(tau=tau, connectivity=connectivity).before_encoder(density).plan
    assert groups(plan) == oracle.rpm(density, tau, connectivity)
    assert plan.keep.tolist() == [min(group) for group in oracle.rpm(density, tau, connectivity)]
    tokens = torch.from_numpy(np.random.default_rng(2).normal(size=(105, 4)).astype(np.float32))
    expected = [tokens[sorted(group)].mean(dim=0) for group in oracle.rpm(density, tau, connectivity)]
    torch.testing.assert_close(plan.apply(tokens), torch.stack(expected))


def test_connectivity_matters() -> None:
    density = np.array([[[0.0, 1.0], [1.0, 0.0]]], np.float32)
    assert RPM(tau=0.5, connectivity=4).before_encoder(density).achieved == 4
    assert RPM(tau=0.5, connectivity=8).before_encoder(density).achieved == 3


def test_regions_stay_inside_their_frame() -> None:
    density = np.zeros((4, 3, 3), np.float32)
    density[:, 1, 1] = 1
    result = RPM(tau=0.5).before_encoder(density)
    assert result.frame_counts.tolist() == [2, 2, 2, 2]


def test_token_count_falls_as_tau_rises() -> None:
    for seed in range(5):
        density = maps(2, 9, 9, seed)
        counts = [RPM(tau=tau).before_encoder(density).achieved for tau in np.linspace(0, 1, 40)]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] == 162 > counts[-1]


@pytest.mark.parametrize("target", [0.02, 0.3, 0.6, 0.87, 1.0])
def test_target_is_met_as_nearly_as_any_threshold_can(target: float) -> None:
    for seed in range(4):
        density = maps(2, 6, 6, seed)
        result = RPM(target_keep=target).before_encoder(density)
        assert result.achieved == oracle.rpm_target(density, result.nominal)


def test_patches_of_one_density_merge_together_or_not_at_all() -> None:
    density = maps(1, 8, 8, seed=6) / 2 + 0.5
    density[:, :6] = 0  # a background without any texture, 48 of 64 patches
    assert RPM(target_keep=0.87).before_encoder(density).achieved == 64  # 64 is nearer to 56 than 17 is
    assert RPM(target_keep=0.5).before_encoder(density).achieved == 17
    bounded = RPM(target_keep=0.62, max_region=2).before_encoder(density)
    assert bounded.achieved == 24 + 16


@pytest.mark.parametrize("largest", [1, 2, 5, 100])
def test_large_regions_are_cut(largest: int) -> None:
    density = maps(3, 9, 8, seed=3)
    for tau in (0.3, 0.7, 1.0):
        plan = RPM(tau=tau, max_region=largest).before_encoder(density).plan
        assert groups(plan) == oracle.rpm(density, tau, largest=largest)
        assert int(plan.sizes.max()) <= largest
        whole = RPM(tau=tau).before_encoder(density).plan
        assert plan.count_out >= whole.count_out
        assert (plan.count_out > whole.count_out) == (int(whole.sizes.max()) > largest)


def test_target_is_met_with_a_bound_on_regions() -> None:
    for seed in range(4):
        density = maps(2, 6, 6, seed)
        counts = [RPM(tau=tau, max_region=3).before_encoder(density).achieved for tau in np.linspace(0, 1, 30)]
        assert counts == sorted(counts, reverse=True)
        result = RPM(target_keep=0.5, max_region=3).before_encoder(density)
        assert result.achieved == oracle.rpm_target(density, result.nominal, largest=3)
    with pytest.raises(ConfigError, match="max_region is 0"):
        RPM(max_region=0)


def test_default_target_is_near_the_published_vision_tower_time() -> None:
    density = np.random.default_rng(0).random((8, 27, 27)).astype(np.float32)
    result = RPM().before_encoder(density)
    assert abs(result.achieved / 5832 - 0.87) < 0.001


def test_flat_frames_stay_whole() -> None:
    density = maps(3, 4, 4, seed=3)
    density[1] = 0
    result = RPM(tau=1.0).before_encoder(density)
    assert result.frame_counts[1] == 16
    assert result.diagnostics["flat_frames"].tolist() == [1]
    assert result.frame_counts[0] < 16


def test_unmerge_restores_the_grid() -> None:
    density = maps(2, 5, 5, seed=4)
    plan = RPM(tau=0.5).before_encoder(density).plan
    tokens = torch.arange(50.0)[:, None]
    grid = plan.broadcast(plan.apply(tokens))
    for group in oracle.rpm(density, 0.5):
        members = sorted(group)
        assert grid[members].unique().numel() == 1
        torch.testing.assert_close(grid[members[0]], tokens[members].mean(dim=0))


@pytest.mark.parametrize(
    "options",
    [{"tau": 1.1}, {"tau": -0.1}, {"target_keep": 0.0}, {"tau": 0.1, "target_keep": 0.5}, {"connectivity": 6}],
)
def test_bad_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        RPM(**options)


@pytest.mark.parametrize(
    "density", [np.zeros((2, 3)), np.zeros((0, 2, 2)), np.full((1, 2, 2), 1.5), np.full((1, 2, 2), np.nan)]
)
def test_bad_density_is_refused(density: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        RPM().before_encoder(density)
