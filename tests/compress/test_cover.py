"""Cover against an oracle that is written from its definition, and by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from compress.cover import Cover
from compress.errors import ConfigError
from compress.metom import BTM
from compress.ops import pairwise
from compress.stage import Signals
from tests.compress.baselines.scenes import PacketSizes, video
from tests.oracle import baselines as oracle

GRID = (4, 5)


def kept(tokens: torch.Tensor, *, grid: tuple[int, int] = GRID, retention: float, **fields: float) -> list[int]:
    return Cover(retention=retention, **fields).before_llm(tokens, Signals(grid=grid)).plan.keep.tolist()


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
    answer = oracle.cover(tokens.double().numpy(), GRID, count, content=0.5, time=1.0, space=2 / 7, caps=budgets)
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


def test_more_tokens_are_the_same_and_others() -> None:
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
        ({"frame_budget": "even"}, "frame_budget is 'even'; choose from own, packets"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cover(**fields)


def test_budgets_of_its_own_depend_on_the_tokens() -> None:
    with pytest.raises(ConfigError, match="frame_budget is 'own', by which Cover needs the tokens"):
        Cover().plan_frames(PacketSizes([1, 2]), tokens_per_frame=4)
