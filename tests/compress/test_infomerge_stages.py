"""The stages of InfoMerge one by one: golden values, precision, and what breaks when a rule is broken."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.budget import allocate
from compress.errors import ShapeError
from compress.infomerge import tfd as tfd_module
from compress.infomerge.ats import select_salient, substituted_tokens
from compress.infomerge.caba import Richness, context_weights, finish_richness, measure_richness, uniqueness, z_scores
from compress.infomerge.dtm import pick_anchors, schedule_anchor_frames
from compress.infomerge.dyseg import cut_segments, group_segments, transitions
from compress.infomerge.shares import share_context, split_budget
from compress.infomerge.tfd import static_positions, temporal_feature_difference
from compress.ops.similarity import unit
from compress.ops.spectral_entropy import exact_entropy, finish_entropy, sketch_spectra
from tests.oracle import infomerge as oracle


def bounds(*lengths: int) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


# DySeg


def test_cuts_are_the_smallest_and_all_below_the_threshold() -> None:
    t = np.array([0.95, 0.85, 0.99, 0.95, 0.97])
    assert cut_segments(t, c=1, tau_seg=0.9).tolist() == [0, 2, 6]
    assert cut_segments(t, c=2, tau_seg=0.5).tolist() == [0, 2, 6]
    assert cut_segments(t, c=3, tau_seg=0.9).tolist() == [0, 1, 2, 6]  # the tie at 0.95 goes to the earlier one
    assert cut_segments(t, c=99, tau_seg=0.9).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert cut_segments(np.array([0.9]), c=1, tau_seg=0.9).tolist() == [0, 2]  # strict
    assert cut_segments(np.zeros(0), c=8, tau_seg=0.9).tolist() == [0, 1]
    with pytest.raises(ShapeError, match="frames \\[1\\]"):
        cut_segments(np.array([1, np.nan]), c=1, tau_seg=0.9)


def test_transitions_are_cosines() -> None:
    features = torch.randn(6, 10)
    expected = [oracle.cosine(a, b) for a, b in zip(features[:-1].numpy(), features[1:].numpy(), strict=True)]
    np.testing.assert_allclose(transitions(features).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert transitions(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).item() == 0


def test_groups_of_segments_cover_all_once() -> None:
    edges = bounds(3, 3, 100, 1, 1, 60, 4)
    assert list(group_segments(edges, frames=64)) == [(0, 2), (2, 3), (3, 6), (6, 7)]
    assert list(group_segments(edges, frames=0)) == [(k, k + 1) for k in range(7)]


# TFD


def at_angles(*degrees: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack((angle.cos(), angle.sin()), dim=1)[:, None]


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ((0, 90), 1),
        ((0, 0, 90), 0.5),
        ((0, 60, 120), 0.6666667),
        ((0, 30, 0, 30), 0.1339746),
        ((40, 40, 40), 0),
        ((0, 180), 2),
        ((17,), 0),
    ],
)
def test_golden_tfd(degrees: tuple[float, ...], expected: float) -> None:
    tokens = at_angles(*degrees)
    assert temporal_feature_difference(tokens, bounds(len(degrees))).item() == pytest.approx(expected, abs=1e-6)
    backwards = temporal_feature_difference(tokens.flip(0), bounds(len(degrees))).item()
    assert backwards == pytest.approx(expected, abs=1e-6)
    scaled = tokens * torch.linspace(0.1, 9, len(degrees))[:, None, None]
    assert temporal_feature_difference(scaled, bounds(len(degrees))).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize("tile", [1, 2**24])
def test_tfd_equals_the_oracle_however_it_is_tiled(monkeypatch: pytest.MonkeyPatch, chunk: int, tile: int) -> None:
    monkeypatch.setattr(tfd_module, "CHUNK_FRAMES", chunk)
    monkeypatch.setattr(tfd_module, "TILE", tile)
    tokens = torch.randn(11, 6, 5, generator=torch.Generator().manual_seed(0))
    tokens[4, 2] = 0
    edges = bounds(1, 4, 2, 3, 1)
    expected = [oracle.tfd(tokens[a:b].double().numpy()) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(temporal_feature_difference(tokens, edges).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_adjacent_difference_equals_the_oracle() -> None:
    tokens = torch.randn(25, 6, 5, generator=torch.Generator().manual_seed(0))
    tokens[4, 2] = 0
    edges = bounds(1, 4, 2, 5, 3, 9, 1)
    found = temporal_feature_difference(tokens, edges, over="adjacent").numpy()
    expected = [oracle.adjacent_difference(tokens[a:b].double().numpy()) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # Windows matter: over the whole segment of 9 frames the mean is another.
    other = oracle.adjacent_difference(tokens[15:24].double().numpy(), window=9)
    assert np.abs(found[5] - other).max() > 1e-3
    assert np.abs(found - temporal_feature_difference(tokens, edges).numpy()).max() > 1e-3


def nearly_static_bfloat16(noise: float, width: int) -> Tensor:
    """Return a segment of 4 frames, each of whose 196 positions moves by its own small amount, in bfloat16."""
    generator = torch.Generator().manual_seed(3)
    scene = torch.randn(1, 196, width, generator=generator)
    amount = torch.linspace(0.2, 2, 196)[:, None] * noise
    return (scene + amount * torch.randn(4, 196, width, generator=generator)).bfloat16()


def test_tfd_in_bfloat16_would_lose_the_static_set() -> None:
    tokens = nearly_static_bfloat16(0.08, 512)
    exact = oracle.tfd(tokens.double().numpy())
    truth = static_positions(exact[None], np.array([4]), rho=0.1)
    ours = temporal_feature_difference(tokens, bounds(4)).double().numpy()
    np.testing.assert_array_equal(static_positions(ours, np.array([4]), rho=0.1), truth)
    np.testing.assert_allclose(ours[0], exact, atol=1e-6)

    # The broken rules: similarities, or directions, rounded to bfloat16.
    direction = unit(tokens).transpose(0, 1)
    similarity = (direction @ direction.mT).bfloat16().float()
    rounded_similarity = (similarity[:, 1:] - similarity[:, :-1]).abs().sum(dim=(1, 2)) / 12
    direction = direction.bfloat16().float()
    similarity = direction @ direction.mT
    rounded_direction = (similarity[:, 1:] - similarity[:, :-1]).abs().sum(dim=(1, 2)) / 12
    for broken, fewest in ((rounded_similarity, 19), (rounded_direction, 19)):
        kept = static_positions(broken.double().numpy()[None], np.array([4]), rho=0.1)
        assert (kept & truth).sum() < fewest


def test_static_positions_are_counted_and_ordered() -> None:
    difference = np.array([[0.3, 0.1, 0.1, 0.2], [0.0, 0.0, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1]])
    lengths = np.array([3, 3, 1])
    picked = static_positions(difference, lengths, rho=0.5)
    assert [np.flatnonzero(row).tolist() for row in picked] == [[1, 2], [0, 1], []]
    preference = np.array([[0, 0, 0, 0], [1, 4, 3, 2], [0, 0, 0, 0]])
    picked = static_positions(difference, lengths, rho=0.5, preference=preference)
    assert [np.flatnonzero(row).tolist() for row in picked] == [[1, 2], [1, 2], []]
    assert static_positions(np.zeros((1, 50)), np.array([2]), rho=0.58).sum() == 29  # 0.58 * 50 is stored below 29
    assert not static_positions(difference, lengths, rho=0).any()
    assert static_positions(difference, lengths, rho=1)[:2].all()


# CABA


def test_uniqueness_has_no_cancellation() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = 5 + 0.01 * torch.randn(12, 9, 64, generator=generator)
    edges = bounds(3, 4, 5)
    means = [tokens[a:b].double().mean(dim=(0, 1)).numpy() for a, b in itertools.pairwise(edges)]
    whole = tokens.double().mean(dim=(0, 1)).numpy()

    def exact(mean: np.ndarray) -> float:
        difference = mean / np.linalg.norm(mean) - whole / np.linalg.norm(whole)
        return float(difference @ difference / 2)

    truth = np.array([exact(mean) for mean in means])
    assert truth.max() < 1e-6
    np.testing.assert_allclose(uniqueness(tokens, edges).double().numpy(), truth, rtol=1e-2)

    # The broken rule: one minus a cosine in float32 has lost all digits.
    naive = [1 - float(unit(torch.tensor(mean)) @ unit(torch.tensor(whole))) for mean in means]
    assert np.abs(np.array(naive) / truth - 1).max() > 0.2


def test_uniqueness_of_missing_directions() -> None:
    tokens = torch.zeros(3, 2, 4)
    assert uniqueness(tokens, bounds(1, 2)).tolist() == [1, 1]
    tokens[1:] = 1
    assert uniqueness(tokens, bounds(1, 2)).tolist() == pytest.approx([1, 0])


def with_singular_values(values: tuple[float, ...], rows: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=generator)).Q
    right = torch.linalg.qr(torch.randn(width, len(values), generator=generator)).Q
    return (left * torch.tensor(values)) @ right.T


def richness_of(tokens: Tensor, edges: np.ndarray, richness: Richness, *, normalise: bool = True) -> np.ndarray:
    fetched = [tensor.double().numpy() for tensor in measure_richness(tokens, edges, richness)]
    _, per_frame, width = tokens.shape
    return finish_richness(
        fetched, np.diff(edges), per_frame=per_frame, width=width, richness=richness, normalise=normalise
    )


def test_golden_entropy() -> None:
    assert exact_entropy(with_singular_values((2, 1, 1), 3, 5)).item() == pytest.approx(0.8675632, abs=1e-6)
    tokens = with_singular_values((2, 1, 1), 3, 5)[None]
    for richness in ("exact", "fast"):
        assert richness_of(tokens, bounds(1), richness)[0] == pytest.approx(0.7896901, abs=1e-6)
        assert richness_of(tokens, bounds(1), richness, normalise=False)[0] == pytest.approx(0.8675632, abs=1e-6)
    assert exact_entropy(with_singular_values((3,), 4, 6)).item() == pytest.approx(0, abs=1e-5)
    assert exact_entropy(with_singular_values((1,) * 4, 4, 6)).item() == pytest.approx(math.log(4), abs=1e-6)
    assert exact_entropy(torch.zeros(3, 4)).item() == 0


@pytest.mark.parametrize("decay", [0.3, 0.6, 1.0, 1.6, 2.5])
def test_fast_entropy_is_within_one_per_cent(decay: float) -> None:
    generator = torch.Generator().manual_seed(5)
    left = torch.linalg.qr(torch.randn(300, 300, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(400, 300, generator=generator)).Q
    sigma = torch.arange(1, 301) ** (-decay / 2)
    flat = (left * sigma) @ right.T
    tokens = torch.cat((flat, flat[:100])).reshape(8, 50, 400)
    edges = bounds(6, 2)
    fast = richness_of(tokens, edges, "fast")
    truth = [oracle.entropy(tokens[a:b].flatten(0, 1).double().numpy()) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(fast, truth, rtol=0.01)
    np.testing.assert_array_equal(fast, richness_of(tokens, edges, "fast"))


def test_sketches_do_not_depend_on_grouping() -> None:
    tokens = torch.randn(9, 30, 120, generator=torch.Generator().manual_seed(0))
    segment = torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 2])
    all_at_once = sketch_spectra(tokens, segment, 3).tensors()
    one_by_one = measure_richness(tokens, bounds(2, 4, 3), "fast")
    first, second = ([x.double().numpy() for x in sketch] for sketch in (all_at_once, one_by_one))
    np.testing.assert_allclose(finish_entropy(*first), finish_entropy(*second), rtol=1e-4)


def test_golden_weights_and_budgets() -> None:
    lengths, u, e = np.array([7, 12, 13]), np.array([0.019, 0.136, 0.121]), np.array([5.21, 6.65, 3.77])
    for ddof, m_expected, w_expected, rounded in (
        (0, (-1.2639, 0.8843, 0.3796), (1.2596, 8.9149, 7.9555), (17, 123, 110)),
        (1, (-1.0320, 0.7220, 0.3100), (1.5730, 8.4480, 7.6951), (22, 120, 109)),
    ):
        m, w = context_weights(u, e, lengths, tau=1.2, alpha=0.9, beta=0.1, ddof=ddof)
        np.testing.assert_allclose(m, m_expected, atol=6e-5)
        np.testing.assert_allclose(w, w_expected, atol=6e-5)
        shares = split_budget(32, 196, retention=0.1, d=0.4, mode="paper")
        assert shares.context == pytest.approx(250.88)
        assert share_context(w, shares, lengths, 196, mode="paper").tolist() == list(rounded)
        if ddof == 0:
            np.testing.assert_allclose(250.88 * w / w.sum(), (17.43, 123.36, 110.09), atol=6e-3)
            assert allocate(w, 251, lower=1).tolist() == [18, 123, 110]
    assert allocate(lengths, 7 * 32).tolist() == [49, 84, 91]


def test_without_information_weights_are_half_the_length() -> None:
    lengths = np.array([3, 9])
    _, w = context_weights(np.array([0.1, 0.5]), np.zeros(2), lengths, tau=2, alpha=0, beta=0, ddof=1)
    assert w.tolist() == [1.5, 4.5]
    assert z_scores(np.array([3.0]), ddof=1).tolist() == [0]
    assert z_scores(np.array([3.0, 3.0]), ddof=1).tolist() == [0, 0]
    assert z_scores(np.array([0.0, 2.0]), ddof=0).tolist() == [-1, 1]


# Budgets


@pytest.mark.parametrize(
    ("frames", "count", "r", "paper", "fastvid", "exact"),
    [
        (32, 196, 0.05, (5, 125.44), (6, 3), 314),
        (32, 196, 0.10, (11, 250.88), (12, 7), 627),
        (32, 196, 0.15, (17, 376.32), (18, 11), 941),
        (64, 169, 0.05, (5, 216.32), (5, 3), 541),
        (64, 169, 0.10, (10, 432.64), (10, 6), 1082),
        (64, 169, 0.15, (15, 648.96), (15, 10), 1622),
    ],
)
def test_golden_shares(
    frames: int, count: int, r: float, paper: tuple[int, float], fastvid: tuple[int, int], exact: int
) -> None:
    in_paper = split_budget(frames, count, retention=r, d=0.4, mode="paper")
    assert (in_paper.salient, in_paper.context) == (paper[0], pytest.approx(paper[1]))
    in_fastvid = split_budget(frames, count, retention=r, d=0.4, mode="fastvid")
    assert (in_fastvid.salient, in_fastvid.context) == (fastvid[0], frames * fastvid[1])
    ours = split_budget(frames, count, retention=r, d=0.4)
    assert frames * ours.salient + ours.context == exact == ours.nominal
    nearest = split_budget(frames, count, retention=r, d=0.4, salient_rounding="nearest")
    assert frames * nearest.salient + nearest.context == exact


def test_nearest_rounding_of_the_paper_setting() -> None:
    shares = split_budget(32, 196, retention=0.1, d=0.4, salient_rounding="nearest")
    assert (shares.salient, shares.context) == (12, 243)


# ATS


def test_golden_ats() -> None:
    saliency = np.array([[0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    static = np.array([[True, False, False, True]])

    def picks(lam: float) -> list[list[int]]:
        chosen = select_salient(saliency, static, bounds(3), count=2, lam=lam)
        return [np.flatnonzero(row).tolist() for row in chosen]

    assert picks(0) == picks(1) == [[0, 1], [0, 1], [2, 3]]
    assert picks(12) == picks(math.inf) == [[0, 1], [1, 2], [2, 3]]


def test_ats_quota_history_and_flat_attention() -> None:
    static = np.ones((2, 3), bool)
    saliency = np.ones((4, 3))
    chosen = select_salient(saliency, static, bounds(2, 2), count=2, lam=12)
    # No spread, no penalty; still a repeat comes last, and the next segment starts afresh.
    assert [np.flatnonzero(row).tolist() for row in chosen] == [[0, 1], [0, 2], [0, 1], [0, 2]]
    assert select_salient(saliency, static, bounds(2, 2), count=3, lam=math.inf).all()
    assert not select_salient(saliency, static, bounds(2, 2), count=0, lam=1).any()


def test_substitution_starts_at_the_first_pick() -> None:
    salient = np.array([[False, True], [True, False], [False, False], [True, False]])
    static = np.array([[True, False], [True, True]])
    replaced = substituted_tokens(salient, static, bounds(3, 1))
    assert replaced[:, 0].tolist() == [False, True, True, True]
    assert not replaced[:, 1].any()


# DTM


def test_anchor_frames_are_counted_from_the_end() -> None:
    anchors = schedule_anchor_frames(np.array([7, 2]), bounds(10, 3), candidates=100, p=4)
    assert anchors.frame.tolist() == [1, 5, 9, 12]
    assert anchors.quota.tolist() == [2, 2, 3, 2]
    from_start = schedule_anchor_frames(np.array([7, 2]), bounds(10, 3), candidates=100, p=4, anchor_from="start")
    assert from_start.frame.tolist() == [0, 4, 8, 10]
    few = schedule_anchor_frames(np.array([2, 0]), bounds(10, 3), candidates=100, p=4)
    assert (few.frame.tolist(), few.quota.tolist()) == ([5, 9], [1, 1])


@settings(max_examples=2000, deadline=None)
@given(st.integers(1, 600), st.integers(1, 200), st.integers(1, 9), st.floats(0, 1), st.sampled_from(["end", "start"]))
def test_anchor_frames_hold_every_budget(length: int, candidates: int, p: int, share: float, side: str) -> None:
    budget = round(share * length * candidates)
    anchors = schedule_anchor_frames(np.array([budget]), bounds(length), candidates=candidates, p=p, anchor_from=side)
    assert anchors.quota.sum() == budget
    assert (anchors.quota <= candidates).all()
    assert len(set(anchors.frame.tolist())) == len(anchors.frame)
    assert ((anchors.frame >= 0) & (anchors.frame < length)).all()
    if budget:
        assert anchors.frame[-1] == length - 1 or side == "start"


def test_the_fixed_interval_would_run_out_of_tokens() -> None:
    """Beyond r = 1 / (1 - d + p d) the anchors of a full step cannot hold their share."""
    largest = 1 / (1 - Fraction(2, 5) + 4 * Fraction(2, 5))
    assert float(largest) == pytest.approx(0.4545, abs=1e-4)
    budget, candidates = 32 * 60, 100
    assert -(-budget // 8) > candidates
    assert schedule_anchor_frames(np.array([budget]), bounds(32), candidates=candidates, p=4).quota.max() <= candidates


def test_masked_positions_are_used_last_but_used() -> None:
    anchors = schedule_anchor_frames(np.array([4]), bounds(8), candidates=3, p=4)
    scores = np.array([[3.0, 2, 1], [3.0, 2, -np.inf]])
    salient = np.zeros((8, 3), bool)
    static = np.array([[True, True, False]])
    masked = pick_anchors(scores, anchors, salient, static, hard_mask=True)
    assert [np.flatnonzero(row).tolist() for row in masked] == [[0, 1], [0, 2]]
    free = pick_anchors(scores, anchors, salient, static, hard_mask=False)
    assert [np.flatnonzero(row).tolist() for row in free] == [[0, 1], [0, 1]]
