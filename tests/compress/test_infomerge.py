"""InfoMerge as a whole: against the float64 oracle, against FastVID, and on every edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import ConfigError, ShapeError
from compress.infomerge import InfoMerge
from compress.infomerge.infomerge import TABLE_7
from compress.stage import Compression, Signals
from tests.oracle import infomerge as oracle

PAPER = {"tau": 1.2, "rho": 0.2, "lam": 12.0, "alpha": 0.9, "beta": 0.1}


def video(frames: int, count: int, width: int, seed: int) -> tuple[torch.Tensor, Signals]:
    """Shots of four frames, of which one position in three hardly changes."""
    generator = torch.Generator().manual_seed(seed)
    shots = -(-frames // 4)
    scene = torch.randn(shots, count, width, generator=generator).repeat_interleave(4, 0)[:frames]
    noise = torch.randn(frames, count, width, generator=generator)
    noise[:, ::3] *= 0.05
    look = torch.randn(shots, 24, generator=generator).repeat_interleave(4, 0)[:frames]
    features = look + 0.15 * torch.randn(frames, 24, generator=generator)
    saliency = torch.rand(shots, count, generator=generator).repeat_interleave(4, 0)[:frames]
    saliency = saliency + 0.05 * torch.rand(frames, count, generator=generator)
    return scene + 0.5 * noise, Signals(saliency=saliency, frame_features=features)


def expected(tokens: torch.Tensor, signals: Signals, **options: object) -> oracle.Answer:
    assert signals.saliency is not None
    assert signals.frame_features is not None
    return oracle.infomerge(
        tokens.double().numpy(),
        signals.saliency.double().numpy(),
        signals.frame_features.double().numpy(),
        **options,
    )


SWITCHES: list[tuple[dict[str, object], dict[str, object]]] = [
    ({}, {}),
    ({"budget": "paper"}, {"mode": "paper"}),
    ({"budget": "fastvid"}, {"mode": "fastvid"}),
    ({"substitute": False}, {"substitute": False}),
    ({"dtm_features": "original"}, {"dtm_sees_means": False}),
    ({"hard_mask": False}, {"hard_mask": False}),
    ({"anchor_from": "start"}, {"from_end": False}),
    ({"assignment": "segment_global"}, {"per_anchor_frame": False}),
    ({"include_self": True}, {"include_self": True}),
    ({"ddof": 0, "normalise": False}, {"ddof": 0, "normalise": False}),
    ({"lam": math.inf, "rho": 0.6}, {"lam": math.inf, "rho": 0.6}),
    ({"lam": 0.0, "rho": 1.0}, {"lam": 0.0, "rho": 1.0}),
    (
        {"c": 2, "tau_seg": 0.5, "p": 3, "k_nn": 2, "mu": 0.3},
        {"c": 2, "tau_seg": 0.5, "p_step": 3, "k_nn": 2, "mu": 0.3},
    ),
    ({"retention": 0.7}, {"r": 0.7}),
    ({"retention": 0.95, "c": 1, "tau_seg": -1.0}, {"r": 0.95, "c": 1, "tau_seg": -1.0}),
]


@pytest.mark.parametrize(("ours", "theirs"), SWITCHES, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_oracle(ours: dict[str, object], theirs: dict[str, object], dtype: torch.dtype) -> None:
    compared = 0
    for seed in range(3):
        tokens, signals = video(17, 15, 12, seed)
        tokens = tokens.to(dtype)
        result = InfoMerge(**{"retention": 0.3, "richness": "exact", **PAPER, **ours}).before_llm(tokens, signals)
        answer = expected(tokens, signals, **{"r": 0.3, **PAPER, **theirs})
        np.testing.assert_allclose(result.diagnostics["uniqueness"], answer.u, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.diagnostics["richness"], answer.e, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.diagnostics["tfd"], answer.tfd, rtol=1e-5, atol=1e-6)
        if answer.gap < 1e-6:
            continue
        compared += 1
        assert [s.start for s in result.segments] == answer.bounds[:-1]
        assert [set(np.flatnonzero(row)) for row in np.asarray(result.diagnostics["static"])] == answer.static
        assert [s.context for s in result.segments] == answer.budgets.tolist()
        assert result.plan.keep.tolist() == answer.keep.tolist()
        assert result.kind is not None
        assert [result.kinds[i] for i in result.kind.tolist()] == answer.kinds
        merged = result.apply(tokens.double()).numpy()
        np.testing.assert_allclose(merged, answer.values, rtol=1e-5, atol=1e-5)
    assert compared >= 2


def test_every_kind_of_token_occurs() -> None:
    tokens, signals = video(17, 15, 12, 0)
    answer = expected(tokens, signals, r=0.3, **PAPER)
    assert set(answer.kinds) == {"salient", "substituted", "context"}


def test_fastvid_is_the_case_without_information_terms() -> None:
    compared = 0
    for seed in range(4):
        tokens, signals = video(24, 25, 12, seed)
        assert signals.saliency is not None
        assert signals.frame_features is not None
        keep, values, gap = oracle.fastvid(
            tokens.double().numpy(), signals.saliency.double().numpy(), signals.frame_features.double().numpy(), r=0.2
        )
        fastvid = InfoMerge(retention=0.2, alpha=0, beta=0, rho=0, budget="fastvid").before_llm(tokens, signals)
        infomerge = InfoMerge(retention=0.2, budget="fastvid").before_llm(tokens, signals)
        if gap < 1e-6:
            continue
        compared += 1
        assert fastvid.plan.keep.tolist() == keep.tolist()
        np.testing.assert_allclose(fastvid.apply(tokens.double()).numpy(), values, rtol=1e-5, atol=1e-5)
        assert infomerge.plan.keep.tolist() != keep.tolist()
        assert {s.context // s.frames for s in fastvid.segments} == {2}
    assert compared >= 3


@settings(max_examples=150, deadline=None)
@given(
    frames=st.integers(1, 33),
    count=st.integers(1, 40),
    retention=st.floats(0.005, 1),
    seed=st.integers(0, 99),
    d=st.sampled_from([0.0, 0.4, 1.0]),
    rounding=st.sampled_from(["floor", "nearest"]),
)
def test_budget_is_met_exactly(frames: int, count: int, retention: float, seed: int, d: float, rounding: str) -> None:
    tokens, signals = video(frames, count, 6, seed)
    method = InfoMerge(retention=retention, d=d, salient_rounding=rounding, richness="exact")
    target = math.floor(retention * frames * count + 0.5 + 1e-9)
    if target < 1:
        with pytest.raises(ConfigError, match="leaves none"):
            method.before_llm(tokens, signals)
        return
    result = method.before_llm(tokens, signals)
    check_result(result, frames, count)
    assert result.achieved == result.nominal == target
    context = sum(s.context for s in result.segments)
    if result.segments and context >= len(result.segments):
        assert min(s.context for s in result.segments) >= 1


def check_result(result: Compression, frames: int, count: int) -> None:
    plan = result.plan
    plan.check()
    assert plan.count_in == frames * count
    assert bool((plan.keep.diff() > 0).all())
    assert result.frame_counts.sum() == plan.count_out
    if result.segments:
        assert sum(s.frames for s in result.segments) == frames
        assert sum(s.salient + s.context for s in result.segments) == plan.count_out


@pytest.mark.parametrize("mode", ["exact", "paper", "fastvid"])
@pytest.mark.parametrize(
    "name", ["black", "still", "blank frame", "one frame", "fewer frames than c", "flat attention", "tiny width"]
)
def test_edge_videos(name: str, mode: str) -> None:
    frames, count, width = 12, 20, 8
    tokens, signals = video(frames, count, width, 5)
    if name == "black":
        tokens = torch.ones(frames, count, width) * 0.3
    elif name == "still":
        tokens = tokens[:1].expand(frames, -1, -1)
        signals = Signals(saliency=signals.saliency, frame_features=torch.ones(frames, 4))
    elif name == "blank frame":
        tokens[3] = 0
    elif name in ("one frame", "fewer frames than c"):
        frames = 1 if name == "one frame" else 3
        tokens, signals = video(frames, count, width, 5)
    elif name == "flat attention":
        signals = Signals(saliency=torch.ones(frames, count), frame_features=signals.frame_features)
    else:
        tokens = tokens[:, :, :1]
    result = InfoMerge(retention=0.25, budget=mode).before_llm(tokens.contiguous(), signals)
    check_result(result, frames, count)
    assert torch.isfinite(result.apply(tokens.contiguous())).all()
    if mode == "exact":
        assert result.achieved == result.nominal
    if name == "black" and mode == "exact":
        # All ties: the first positions of each frame and anchor frame, decided by position alone.
        again = InfoMerge(retention=0.25).before_llm(tokens.flip(2).contiguous(), signals)
        assert torch.equal(again.plan.keep, result.plan.keep)


def test_retention_one_is_the_identity() -> None:
    tokens, signals = video(9, 7, 5, 1)
    result = InfoMerge(retention=1.0).before_llm(tokens.half(), signals)
    assert torch.equal(result.apply(tokens.half()), tokens.half().flatten(0, 1))


def test_gradients_pass_through_the_merge() -> None:
    tokens, signals = video(6, 16, 8, 0)
    expected = InfoMerge(retention=0.3).before_llm(tokens, signals)
    tokens = tokens.float().requires_grad_()
    found = InfoMerge(retention=0.3).before_llm(tokens, signals)
    assert torch.equal(found.plan.keep, expected.plan.keep)
    found.apply(tokens).sum().backward()
    assert tokens.grad is not None
    torch.testing.assert_close(tokens.grad.flatten(0, 1)[:, 0], found.plan.dense().sum(dim=0))


def test_scaling_and_permuting_features() -> None:
    tokens, signals = video(16, 20, 12, 2)
    method = InfoMerge(retention=0.3, richness="exact", **PAPER)
    result = method.before_llm(tokens, signals)
    permuted = method.before_llm(tokens[..., torch.randperm(12, generator=torch.Generator().manual_seed(0))], signals)
    assert torch.equal(permuted.plan.keep, result.plan.keep)
    assert torch.equal(permuted.plan.assign, result.plan.assign)
    scaled = method.before_llm(tokens * 8, signals)
    assert [s.context for s in scaled.segments] == [s.context for s in result.segments]
    for name in ("uniqueness", "richness", "tfd"):
        np.testing.assert_allclose(scaled.diagnostics[name], result.diagnostics[name], rtol=1e-5, atol=1e-6)
    other, _ = video(16, 20, 12, 3)
    assert not torch.equal(method.before_llm(other, signals).plan.keep, result.plan.keep)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decides_as_its_float32_copy(dtype: torch.dtype) -> None:
    tokens, signals = video(16, 20, 12, 4)
    tokens = (tokens * 100).to(dtype)
    half = InfoMerge(retention=0.3).before_llm(tokens, signals)
    wide = InfoMerge(retention=0.3).before_llm(tokens.float(), signals)
    assert torch.equal(half.plan.keep, wide.plan.keep)
    torch.testing.assert_close(half.plan.weight, wide.plan.weight)
    assert half.apply(tokens).dtype == dtype


def test_fast_richness_moves_a_budget_by_at_most_one_token() -> None:
    for seed in range(3):
        tokens, signals = video(32, 49, 160, seed)
        tokens = tokens * torch.linspace(0, 3, 160).neg().exp()
        exact = InfoMerge(retention=0.1, richness="exact").before_llm(tokens, signals)
        fast = InfoMerge(retention=0.1, richness="fast").before_llm(tokens, signals)
        np.testing.assert_allclose(fast.diagnostics["richness"], exact.diagnostics["richness"], rtol=0.01)
        moved = [abs(a.context - b.context) for a, b in zip(exact.segments, fast.segments, strict=True)]
        assert max(moved) <= 1
        assert InfoMerge(retention=0.1, richness="off").before_llm(tokens, signals).diagnostics["richness"].max() == 0


def test_presets_and_the_nearest_row() -> None:
    assert InfoMerge(retention=0.05).parameter("tau") == 2.0
    assert InfoMerge(retention=0.15).parameter("rho") == 0.09
    assert InfoMerge(retention=0.5).parameter("rho") == 0.09
    assert InfoMerge(retention=0.075).parameter("tau") == TABLE_7[0.05]["tau"]
    assert InfoMerge(retention=0.08).parameter("tau") == TABLE_7[0.10]["tau"]
    assert InfoMerge(retention=0.05, tau=3.0).parameter("tau") == 3.0
    assert InfoMerge(retention=0.05, alpha=0).parameter("alpha") == 0


def test_fallbacks_are_named() -> None:
    tokens, signals = video(8, 9, 5, 1)
    result = InfoMerge(retention=0.3).before_llm(tokens, Signals())
    assert result.sources["saliency"].startswith("distance to frame mean")
    assert result.sources["frame_features"].startswith("mean of tokens")
    named = Signals(saliency=signals.saliency, frame_features=signals.frame_features, saliency_source="siglip head")
    assert InfoMerge(retention=0.3).before_llm(tokens, named).sources["saliency"] == "siglip head"


def test_bad_input_is_refused() -> None:
    tokens, signals = video(8, 9, 5, 1)
    with pytest.raises(ShapeError, match="saliency has shape"):
        InfoMerge().before_llm(tokens, Signals(saliency=torch.zeros(8, 8)))
    with pytest.raises(ShapeError, match="frame_features have shape"):
        InfoMerge().before_llm(tokens, Signals(frame_features=torch.zeros(7, 4)))
    with pytest.raises(ShapeError, match="floating point"):
        InfoMerge().before_llm(tokens.long(), signals)
    with pytest.raises(ConfigError, match="fastvid"):
        InfoMerge(retention=0.1, budget="fastvid").before_llm(tokens, signals)
    for place in (tokens.clone(), signals.saliency, signals.frame_features):
        assert place is not None
        spoilt = place.clone()
        spoilt.view(-1)[7] = float("nan")
        given_tokens = spoilt if place.dim() == 3 else tokens
        given = Signals(
            saliency=spoilt if place is signals.saliency else signals.saliency,
            frame_features=spoilt if place is signals.frame_features else signals.frame_features,
        )
        with pytest.raises(ShapeError, match=r"NaN|finite"):
            InfoMerge(retention=0.3).before_llm(given_tokens, given)


@pytest.mark.parametrize(
    "options",
    [
        {"retention": 0},
        {"retention": 1.01},
        {"rho": 1.5},
        {"lam": -1},
        {"tau": math.inf},
        {"tau": math.nan},
        {"c": 0},
        {"d": 2},
        {"p": 0},
        {"k_nn": 0},
        {"mu": -0.1},
        {"ddof": 2},
        {"budget": "all"},
        {"richness": "svd"},
        {"assignment": "none"},
    ],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        InfoMerge(**options)
