"""Cover against oracles that are written from its definition, and by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from compress.baselines import STTM
from compress.cover import Cover
from compress.errors import ConfigError
from compress.metom import BTM
from compress.ops import pairwise
from compress.stage import Signals
from tests.compress.baselines.scenes import PacketSizes, video
from tests.oracle import baselines as oracle
from tests.oracle import merging

GRID = (4, 5)
REACH = {"content": 0.5, "time": 1.0, "space": 2 / 7}


def kept(tokens: torch.Tensor, *, grid: tuple[int, int] = GRID, retention: float, **fields: float) -> list[int]:
    """Tokens that Cover keeps of a video, of all tokens unless it is asked otherwise."""
    method = Cover(retention=retention, **{"candidates": 1.0, **fields})
    return method.before_llm(tokens, Signals(grid=grid)).plan.keep.tolist()


def first_tokens(tokens: torch.Tensor, grid: tuple[int, int], groups: int) -> list[int]:
    """Earliest tokens of STTM's groups, by recursion at the thresholds that its search reports, in float32."""
    found = STTM(retention=groups / tokens[..., 0].numel()).before_llm(tokens, Signals(grid=grid)).diagnostics
    for rounding in (2e-6, 3e-7, 0.0):
        tau_s, tau_t = (float(found[name]) - rounding for name in ("tau_s", "tau_t"))
        first = sorted(merging.sttm(tokens.double().numpy(), grid, tau_s, tau_t))
        if len(first) == groups:
            return first
    raise AssertionError(f"no rounding leaves {groups} groups")


def views(tokens: torch.Tensor, grid: tuple[int, int], count: int, closing: int) -> set[int]:
    """First and last views: as few groups as give the count together with what the last frame adds."""
    total, per_frame = tokens[..., 0].numel(), tokens.shape[1]
    x = tokens.double().numpy()
    last = set(oracle.cover(x, grid, closing, **REACH, among=range(total - per_frame, total)))
    groups = count - closing
    while len(last.union(first := first_tokens(tokens, grid, groups))) < count:
        groups += count - len(last.union(first))
    return last.union([i for i in first if i not in last][: count - closing])


@pytest.mark.parametrize("retention", [0.08, 0.2, 0.35, 0.6])
@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize(
    ("content", "time", "space"),
    [(0.5, 1.0, 2 / 7), (2.0, 0.2, 1.0), (0.5, math.inf, 0.1), (0.2, 0.5, math.inf), (5.0, 0.3, 0.2)],
)
def test_the_definition(frames: int, retention: float, content: float, time: float, space: float) -> None:
    tokens = video(frames, GRID, seed=frames, width=12)
    count = math.floor(retention * frames * 20 + 0.5 + 1e-9)
    answer = oracle.cover(tokens.double().numpy(), GRID, count, content=content, time=time, space=space)
    assert kept(tokens, retention=retention, reach_content=content, reach_time=time, reach_space=space) == sorted(
        answer
    )


@pytest.mark.parametrize("grid", [(4, 5), (7, 7)])
@pytest.mark.parametrize(("candidates", "last_views"), [(0.15, 0.1), (0.5, 0.0), (0.3, 0.4)])
def test_candidates_are_first_and_last_views(grid: tuple[int, int], candidates: float, last_views: float) -> None:
    frames = 120 // (grid[0] * grid[1]) + 1
    tokens = video(frames, grid, seed=grid[0], width=12, shot=2)
    total = frames * grid[0] * grid[1]
    for retention in (0.05, 0.4):
        count, most = (math.floor(share * total + 0.5) for share in (retention, max(candidates, retention)))
        closing = min(grid[0] * grid[1], math.floor(last_views * most + 0.5))
        among = views(tokens, grid, most, closing)
        answer = oracle.cover(tokens.double().numpy(), grid, count, **REACH, among=among)
        found = kept(tokens, grid=grid, retention=retention, candidates=candidates, last_views=last_views)
        assert found == sorted(answer)
        assert found != kept(tokens, grid=grid, retention=retention)


def test_nothing_that_stays_is_kept_twice_but_at_the_end() -> None:
    """A still of 16 tokens for four frames: the first frame is kept, and a quarter of the last one."""
    still = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0)).expand(4, 16, 8)
    found = kept(still, grid=(4, 4), retention=20 / 64, candidates=0.1, last_views=0.2)
    assert found[:16] == list(range(16))
    assert all(i >= 48 for i in found[16:])
    # Among all tokens a view from the middle counts as new.
    assert any(16 <= i < 48 for i in kept(still, grid=(4, 4), retention=20 / 64))


@pytest.mark.parametrize("retention", [0.1, 0.3, 0.7])
def test_the_definition_with_budgets_by_packets(retention: float) -> None:
    tokens, sizes = video(6, GRID, seed=3, width=12), [900.0, 10.0, 10.0, 400.0, 20.0, 10.0]
    method = Cover(retention=retention, frame_budget="packets")
    result = method.before_llm(tokens, Signals(grid=GRID, packet_size=sizes))
    budgets = BTM(retention=retention).frame_budgets(sizes, tokens_per_frame=20)
    assert result.frame_budgets is not None
    assert result.frame_counts.tolist() == budgets.tolist() == result.frame_budgets.tolist()
    assert method.plan_frames(PacketSizes(sizes), tokens_per_frame=20).tolist() == budgets.tolist()
    count = int(budgets.sum())
    answer = oracle.cover(tokens.double().numpy(), GRID, count, **REACH, caps=budgets)
    assert result.plan.keep.tolist() == sorted(answer)


def test_by_hand() -> None:
    """Three frames of one token: the odd one first, then the one that is farther from it in time."""
    tokens = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.6, 0.8]]])
    assert kept(tokens, grid=(1, 1), retention=1 / 3) == [2]
    # Both differ from token 2 by 0.4; token 1 is one frame of three away from it, token 0 is two.
    assert kept(tokens, grid=(1, 1), retention=2 / 3) == [0, 2]
    assert kept(tokens, grid=(1, 1), retention=2 / 3, reach_time=math.inf) == [0, 2]  # a tie: the lower index


def test_evidence_of_several_tokens_adds_up() -> None:
    """Max-min diversity sees the nearest kept token only, which is nearer to token 3 than any is to token 2."""
    one, other, up = np.eye(3)
    rows = np.array([one, other, (one + other) / math.sqrt(2), (one + 0.9 * up) / math.hypot(1, 0.9)])
    cosines = rows @ rows.T
    assert max(cosines[2, :2]) < max(cosines[3, :2])
    free = {"reach_time": math.inf, "reach_space": math.inf}
    tokens = torch.from_numpy(rows)[None]
    assert kept(tokens, grid=(2, 2), retention=0.75, **free) == [0, 1, 3]


def test_up_to_the_candidates_more_tokens_are_the_same_and_others() -> None:
    tokens = video(9, GRID, seed=4)
    chosen = [set(kept(tokens, retention=share, candidates=0.4)) for share in (0.05, 0.1, 0.3, 0.4)]
    assert all(few < many for few, many in itertools.pairwise(chosen))


def test_more_of_all_tokens_are_the_same_and_others() -> None:
    tokens = video(9, GRID, seed=4)
    chosen = [set(kept(tokens, retention=share)) for share in (0.05, 0.1, 0.3, 0.6, 0.95)]
    assert all(few < many for few, many in itertools.pairwise(chosen))
    assert chosen[2] != set(kept(tokens, retention=0.3, reach_time=0.05))


def test_rows_that_do_not_fit_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = video(9, GRID, seed=5)
    held = kept(tokens, retention=0.4)
    monkeypatch.setattr(pairwise, "TILE_ROWS", 64)
    assert kept(tokens, retention=0.4) == held
    monkeypatch.setattr(pairwise, "LARGEST_MATRIX", 0)
    assert kept(tokens, retention=0.4) == held


def test_only_directions_count() -> None:
    tokens = video(5, GRID, seed=6)
    scale = 2.0 ** torch.randint(-3, 4, (5, 20, 1), generator=torch.Generator().manual_seed(0))
    assert kept(tokens * scale, retention=0.3) == kept(tokens, retention=0.3)


def test_a_missing_grid_is_named() -> None:
    result = Cover(retention=0.3).before_llm(video(3, GRID, seed=1), Signals())
    assert result.sources["grid"].startswith("one row of 20 tokens")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reach_time": 0}, "reach_time is 0; it must be above 0"),
        ({"reach_space": -1.0}, "reach_space is -1.0"),
        ({"reach_space": math.nan}, "reach_space is nan"),
        ({"candidates": 0}, "candidates is 0; it must be above 0 and at most 1"),
        ({"candidates": math.nan}, "candidates is nan"),
        ({"last_views": 1.5}, r"last_views is 1.5; allowed is \[0, 1\]"),
        ({"reuse": -1.0}, "tau is -1.0"),
        ({"frame_budget": "even"}, "frame_budget is 'even'; choose from own, packets"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cover(**fields)


def test_budgets_of_its_own_depend_on_the_tokens() -> None:
    with pytest.raises(ConfigError, match="frame_budget is 'own', by which Cover needs the tokens"):
        Cover().plan_frames(PacketSizes([1, 2]), tokens_per_frame=4)
