"""STTM against quadtrees by recursion, its search for a budget, and what its released code does otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.baselines import STTM, replay
from compress.baselines.sttm import join_as_released
from compress.errors import ConfigError
from compress.ops.quadtree import Nodes, Quadtree, build_levels
from compress.stage import Compression, Signals
from tests.compress.baselines.scenes import video
from tests.oracle import merging as oracle


def scene(frames: int, grid: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Shots of smooth frames, so that nodes of every level stand."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(-(-frames // 3), 6, 3, 3, generator=generator).repeat_interleave(3, 0)[:frames]
    smooth = torch.nn.functional.interpolate(coarse, size=grid).flatten(2).mT
    return smooth + 0.25 * torch.randn(frames, grid[0] * grid[1], 6, generator=generator)


def agrees(result: Compression, tokens: torch.Tensor, answer: dict[int, np.ndarray]) -> None:
    assert result.plan.keep.tolist() == sorted(answer)
    merged = result.apply(tokens.double()).numpy()
    np.testing.assert_allclose(merged, np.array([answer[i] for i in sorted(answer)]), atol=1e-5)


def test_levels_leave_the_first_row_and_column_of_odd_sides_apart() -> None:
    assert [level.shape for level in build_levels(14, 14)] == [(14, 14), (7, 7), (4, 4), (2, 2), (1, 1)]
    assert [level.shape for level in build_levels(13, 13)] == [(13, 13), (7, 7), (4, 4), (2, 2), (1, 1)]
    seven = build_levels(7, 7)[0]
    assert seven.children.reshape(4, 4).tolist() == [[1, 2, 2, 2], *[[2, 4, 4, 4]] * 3]
    assert seven.parent.reshape(7, 7)[0].tolist() == [0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (5, 6), (3, 9)])
@pytest.mark.parametrize(("tau_s", "tau_t"), [(0.7, 0.6), (0.85, 0.8), (0.95, 0.9)])
def test_thresholds_equal_quadtrees_by_recursion(grid: tuple[int, int], tau_s: float, tau_t: float) -> None:
    tokens = scene(5, grid, seed=grid[1])
    signals = Signals(grid=grid)
    counts = set()
    for root_level, weighted in ((0, False), (1, False), (1, True), (2, True)):
        method = STTM(tau_s=tau_s, tau_t=tau_t, root_level=root_level, weighted=weighted)
        result = method.before_llm(tokens, signals)
        x = tokens.double().numpy()
        answer = oracle.sttm(x, grid, tau_s, tau_t, root_level=root_level, weighted=weighted)
        agrees(result, tokens, answer)
        assert result.nominal == result.achieved == len(answer)
        counts.add(len(answer))
    assert min(counts) < 5 * grid[0] * grid[1]


@pytest.mark.parametrize("retention", [0.1, 0.3, 0.5, 0.8])
def test_the_search_reports_thresholds_that_give_its_answer(retention: float) -> None:
    grid, x = (5, 6), scene(6, (5, 6), seed=4)
    result = STTM(retention=retention).before_llm(x, Signals(grid=grid))
    assert result.achieved == result.nominal == int(retention * 180 + 0.5)
    tau_s, tau_t = (float(result.diagnostics[name]) - 2e-6 for name in ("tau_s", "tau_t"))
    agrees(result, x, oracle.sttm(x.double().numpy(), grid, tau_s, tau_t))
    # The next step down the line of thresholds leaves too few.
    lower = STTM(tau_s=tau_s - 1e-3, tau_t=2 * (tau_s - 1e-3) - 1).before_llm(x, Signals(grid=grid))
    assert lower.achieved <= result.achieved


def test_a_single_frame_joins_neighbours_where_no_link_is_left() -> None:
    tokens = scene(1, (4, 4), seed=2)
    result = STTM(retention=0.125).before_llm(tokens, Signals(grid=(4, 4)))
    assert result.achieved == 2  # of a root level of four nodes
    assert result.plan.keep.tolist()[0] == 0
    assert result.plan.assign.min() >= 0


def test_thresholds_go_together_and_all_tokens_may_still_merge() -> None:
    with pytest.raises(ConfigError, match="give both"):
        STTM(tau_s=0.9)
    tokens = scene(4, (4, 4))
    merged = STTM(tau_s=0.8, tau_t=0.7, retention=1.0).before_llm(tokens, Signals(grid=(4, 4)))
    assert merged.achieved < 64
    assert STTM().before_llm(tokens, Signals()).sources["grid"].startswith("one row of 16 tokens")


def test_released_borders_are_compared_with_the_first_node() -> None:
    grid = (7, 7)
    tokens = torch.zeros(1, 49, 4)
    tokens[..., 0] = 1
    tokens[0, 0] = torch.tensor([0.0, 1, 0, 0])  # an odd corner
    given = {"tau_s": 0.9, "tau_t": 0.9, "root_level": 1}
    fixed = STTM(**given).before_llm(tokens, Signals(grid=grid))
    # 7 -> 4 -> 2: the corner's quarter splits, its own first row and column of nodes stay whole.
    assert 2 in fixed.plan.sizes.tolist()
    found = replay("sttm", {"X": tokens.numpy(), "grid": np.array(grid)}, **given)["keep"].tolist()
    assert set(fixed.plan.keep.tolist()) < set(found)
    answer = oracle.sttm(tokens.double().numpy(), grid, 0.9, 0.9, quirks=True)
    assert found == sorted(answer)


@pytest.mark.parametrize("grid", [(7, 7), (5, 5), (5, 7)])
def test_released_quadtrees_equal_recursion_with_the_same_fault(grid: tuple[int, int]) -> None:
    tokens = scene(1, grid, seed=9)
    differs = 0
    for tau in (0.6, 0.8, 0.9, 0.97):
        found = replay("sttm", {"X": tokens.numpy(), "grid": np.array(grid)}, tau_s=tau, tau_t=0.9)
        answer = oracle.sttm(tokens.double().numpy(), grid, tau, 0.9, quirks=True)
        assert found["keep"].tolist() == sorted(answer)
        np.testing.assert_allclose(found["values"], np.array([answer[i] for i in sorted(answer)]), atol=1e-5)
        differs += sorted(oracle.sttm(tokens.double().numpy(), grid, tau, 0.9)) != sorted(answer)
    assert differs


def test_released_pointers_leave_groups_apart() -> None:
    more = 0
    for seed in range(6):
        tree = Quadtree.of(scene(9, (7, 7), seed=seed), (7, 7), root_level=1)
        nodes = Nodes.of(tree, 0.9)
        linked = nodes.similarity >= 0.75
        pointer = join_as_released(nodes, linked)
        assert (pointer <= np.arange(len(pointer))).all()
        assert (pointer[pointer] == pointer).all()
        apart = pointer[nodes.earlier[linked]] != pointer[nodes.later[linked]]
        more += int(apart.sum())
    assert more > 0
    chain = Nodes(
        owner=np.arange(3),
        weight=np.ones(3),
        first=np.arange(3),
        earlier=np.array([0, 1]),
        later=np.array([2, 2]),
        similarity=np.ones(2),
    )
    # Node 2 is linked with 0 and with 1; only the lower one counts.
    assert join_as_released(chain, np.ones(2, bool)).tolist() == [0, 1, 0]


def test_released_positions_are_renumbered() -> None:
    tokens = video(4, (4, 4), seed=1)
    assert STTM(fidelity="reference").before_llm(tokens, Signals(grid=(4, 4))).positions == "contiguous"
    assert STTM().before_llm(tokens, Signals(grid=(4, 4))).positions == "original"
