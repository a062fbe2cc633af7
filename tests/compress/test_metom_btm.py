"""BTM against sequential greedy and per-token folding in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import ConfigError, ShapeError, SignalError
from compress.metom import BTM, MeToM
from compress.ops import matching
from compress.ops.matching import match_across_frames
from compress.ops.similarity import unit
from compress.stage import Signals
from tests.oracle import metom as oracle


def video(frames: int, per_frame: int, width: int, seed: int, noise: float = 0.4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scene = torch.randn(1, per_frame, width, generator=generator)
    return scene + noise * torch.randn(frames, per_frame, width, generator=generator)


def signals(frames: int, per_frame: int, seed: int) -> Signals:
    rng = np.random.default_rng(seed)
    return Signals(density=rng.random((frames, per_frame)).round(1), packet_size=rng.integers(50, 5000, frames))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 1},
        {"tau": 0.6, "rounds": 3},
        {"fold": "size", "tau": 0.7},
        {"fold": "core", "mu": 0.3},
        {"retention": 0.8, "tau": 0.4},
        {"retention": 0.8, "tau": 0.4, "rounds": 3},
        {"m_min": 0},
        {"m_min": 1000},
        {"tau": 1.0},
    ],
)
@pytest.mark.parametrize("refill", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_oracle(options: dict[str, object], refill: bool, dtype: torch.dtype) -> None:
    compared = 0
    options = dict(options)
    retention = options.pop("retention", 0.4)
    total = int(60 * float(str(retention)))
    for seed in range(3 if retention == 0.4 else 9):
        tokens, given = video(5, 12, 16, seed).to(dtype), signals(5, 12, seed)
        result = BTM(
            retention=retention,
            refill=refill,
            **{{"tau": "tau_tem"}.get(name, name): value for name, value in options.items()},
        ).before_llm(tokens, given)
        keep, value, gap = oracle.btm(
            tokens.double().numpy(),
            np.asarray(given.density),
            np.asarray(given.packet_size),
            total,
            refill=refill,
            **options,
        )
        if gap < 1e-6:
            continue
        compared += 1
        assert result.plan.keep.tolist() == keep.tolist()
        np.testing.assert_allclose(result.apply(tokens.double()).numpy(), value, rtol=1e-5, atol=1e-5)
        assert result.nominal == total
        assert result.achieved == total if refill else result.achieved <= total
    assert compared >= 2


@pytest.mark.parametrize("partners", [1, 2, 16])
@pytest.mark.parametrize("tile", [7, 2**21])
def test_matching_equals_sequential_greedy(monkeypatch: pytest.MonkeyPatch, partners: int, tile: int) -> None:
    monkeypatch.setattr(matching, "FIRST_PARTNERS", partners)
    monkeypatch.setattr(matching, "TILE", tile)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        tokens = rng.normal(size=(40, 3))
        frame = np.sort(rng.integers(0, 6, 40))
        for window in (None, 1, 2):
            expected, gap = oracle.greedy_pairs(tokens, frame, 0.3, window)
            pairs = match_across_frames(unit(torch.from_numpy(tokens)), frame, threshold=0.3, window=window)
            if gap > 2e-6:
                assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == set(expected)


@pytest.mark.parametrize("partners", [1, 4, 16])
def test_identical_tokens_pair_by_index(monkeypatch: pytest.MonkeyPatch, partners: int) -> None:
    monkeypatch.setattr(matching, "FIRST_PARTNERS", partners)
    tokens = np.tile(np.random.default_rng(0).normal(size=77), (60, 1))
    frame = np.repeat(np.arange(6), 10)
    expected, _ = oracle.greedy_pairs(np.ones((60, 1)), frame, 0.9, None)
    pairs = match_across_frames(unit(torch.from_numpy(tokens)), frame, threshold=0.9)
    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == set(expected)


def test_zero_tokens_are_never_matched() -> None:
    directions = unit(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))
    pairs = match_across_frames(directions, np.array([0, 1, 2, 3]), threshold=0.0)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([2], [3])


def test_golden_budgets() -> None:
    cost = np.array([400, 100, 2500, 900])
    assert BTM(retention=0.25, m_min=10).frame_budgets(cost, tokens_per_frame=100).tolist() == [21, 16, 37, 26]
    assert BTM(retention=0.5, m_min=20).frame_budgets(cost, tokens_per_frame=25).tolist() == [12, 12, 13, 13]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.floats(0, 1e9), min_size=1, max_size=40),
    st.integers(1, 300),
    st.floats(0.001, 1),
    st.one_of(st.none(), st.integers(0, 400)),
)
def test_budgets_are_exact(cost: list[float], per_frame: int, retention: float, m_min: int | None) -> None:
    total = int(np.floor(retention * len(cost) * per_frame + 0.5 + 1e-9))
    method = BTM(retention=retention, m_min=m_min)
    if total < 1:
        with pytest.raises(ConfigError):
            method.frame_budgets(cost, tokens_per_frame=per_frame)
        return
    budgets = method.frame_budgets(cost, tokens_per_frame=per_frame)
    assert budgets.sum() == total
    assert budgets.min() >= 0
    assert budgets.max() <= per_frame
    order = np.argsort(cost)
    assert (np.diff(budgets[order]) >= -1).all()


def test_fewer_tokens_than_frames_go_to_the_most_complex() -> None:
    budgets = BTM(retention=0.02).frame_budgets([1, 9, 4, 16, 25], tokens_per_frame=20)
    assert budgets.sum() == 2
    assert budgets[3] + budgets[4] == 2
    tokens, given = video(5, 20, 8, 0), signals(5, 20, 0)
    result = BTM(retention=0.02, tau_tem=1).before_llm(tokens, given)
    assert result.achieved == 2
    assert result.diagnostics["dropped"] == 60


def test_plan_frames_reads_only_metadata() -> None:
    class Meta:
        def gop_packet_size(self, kind: str = "mean") -> np.ndarray:
            return np.array([400.0, 100.0, 2500.0, 900.0]) if kind == "mean" else np.ones(4)

    assert BTM(retention=0.25, m_min=10).plan_frames(Meta(), tokens_per_frame=100).tolist() == [21, 16, 37, 26]
    assert BTM(retention=0.25, gop="total").plan_frames(Meta(), tokens_per_frame=100).tolist() == [25] * 4


def test_retention_one_is_the_identity_unless_pairs_merge_to_the_letter() -> None:
    tokens, given = video(4, 6, 8, 1), signals(4, 6, 1)
    for method in (BTM(retention=1.0, tau_tem=0.5), BTM(retention=1.0, tau_tem=1.0, refill=False)):
        assert torch.equal(method.before_llm(tokens, given).apply(tokens), tokens.flatten(0, 1))
    assert BTM(retention=1.0, tau_tem=0.5, refill=False).before_llm(tokens, given).achieved < 24


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 9),
    count=st.integers(1, 20),
    retention=st.floats(0.02, 1),
    tau=st.floats(0, 1),
    rounds=st.integers(1, 4),
    seed=st.integers(0, 50),
)
def test_the_budget_is_met_exactly(
    frames: int, count: int, retention: float, tau: float, rounds: int, seed: int
) -> None:
    wanted = math.floor(retention * frames * count + 0.5 + 1e-9)
    if wanted < 1:
        return
    tokens, here = video(frames, count, 6, seed), signals(frames, count, seed)
    result = BTM(retention=retention, tau_tem=tau, rounds=rounds).before_llm(tokens, here)
    assert result.achieved == result.nominal == wanted
    result.plan.check()


def test_the_letter_of_the_paper_is_an_upper_bound_at_new_positions() -> None:
    tokens, given = video(6, 30, 16, 2), signals(6, 30, 2)
    literal = MeToM.literal(retention=0.3, tau_tem=0.5).before_llm(tokens, given)
    ours = MeToM(retention=0.3, tau_tem=0.5).before_llm(tokens, given)
    assert literal.achieved == 54 - literal.diagnostics["pairs"] < 54
    assert ours.achieved == 54
    ids = torch.arange(180)
    assert literal.position_ids(ids).tolist() == list(range(literal.achieved))
    assert ours.position_ids(ids).tolist() == ours.plan.keep.tolist()
    assert MeToM.literal() == MeToM(refill=False, positions="contiguous")


def test_every_token_of_a_funded_frame_is_counted_once() -> None:
    tokens, given = video(6, 30, 16, 3), signals(6, 30, 3)
    plan = BTM(retention=0.3, tau_tem=0.6, fold="size").before_llm(tokens, given).plan
    assert bool((plan.assign >= 0).all())
    assert plan.col.unique().numel() == plan.col.numel() == 180


def test_position_ids() -> None:
    tokens, given = video(4, 10, 8, 4), signals(4, 10, 4)
    ids = torch.arange(40) + 7
    contiguous = BTM(retention=0.2, positions="contiguous").before_llm(tokens, given)
    assert contiguous.position_ids(ids).tolist() == list(range(7, 7 + contiguous.achieved))
    original = BTM(retention=0.2).before_llm(tokens, given)
    assert original.position_ids(ids).tolist() == (original.plan.keep + 7).tolist()


def test_missing_and_misfit_signals_are_refused() -> None:
    tokens = video(3, 5, 4, 0)
    with pytest.raises(SignalError, match="density"):
        BTM().before_llm(tokens, Signals())
    with pytest.raises(ShapeError, match="density has shape"):
        BTM().before_llm(tokens, Signals(density=np.zeros((3, 6), np.float32)))
    with pytest.raises(ShapeError, match="packet_size has shape"):
        BTM().before_llm(tokens, Signals(density=np.zeros((3, 5), np.float32), packet_size=[1, 2]))
    with pytest.raises(ShapeError, match="allowed is floating point"):
        BTM().before_llm(tokens[0], Signals())
    tokens[1, 2, 3] = float("nan")
    with pytest.raises(ShapeError, match=r"frames \[1\] hold NaN"):
        BTM().before_llm(tokens, Signals(density=np.zeros((3, 5), np.float32)))


def test_uniform_complexity_is_reported() -> None:
    tokens = video(4, 10, 8, 4)
    result = BTM(retention=0.2).before_llm(tokens, Signals(density=np.zeros((4, 10), np.float32)))
    assert result.sources["packet_size"].startswith("uniform")
    assert result.frame_budgets is not None
    assert result.frame_budgets.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"retention": 0},
        {"retention": 1.5},
        {"m_min": -1},
        {"tau_tem": 1.5},
        {"tau_tem": -0.1},
        {"window": 0},
        {"rounds": 0},
        {"fold": "sum"},
        {"mu": 2},
        {"positions": "none"},
    ],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        BTM(**options)
