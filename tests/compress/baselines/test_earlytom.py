"""EarlyTom against its description: the walk, the folding, the selection, and what its released code does otherwise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from compress.baselines import EarlyTom, replay
from compress.baselines.earlytom import best_of_windows, end_frames, runs
from compress.baselines.frame_folding import FrameSimilarity, fold_frames, walk_segments
from compress.encoder_merging import EncoderState
from compress.stage import Signals
from tests.compress.baselines.scenes import signals_for, video
from tests.oracle import earlytom as oracle


def scene(frames: int, seed: int) -> torch.Tensor:
    return video(frames, (4, 5), seed=seed, width=12, shot=7)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("threshold", "window"), [(0.5, 6), (-1.0, 8), (0.7, 5)])
def test_walk_and_folding_equal_the_description(threshold: float, window: int, released: bool) -> None:
    folded = 0
    for seed in range(6):
        tokens = scene(15, seed)
        x = tokens.double().numpy()
        similarity = FrameSimilarity(tokens, window)
        bounds = walk_segments(similarity, threshold=threshold, window=window, ema=0.9)
        assert bounds.tolist() == oracle.walk(x, threshold, window, 0.9)
        assert np.diff(bounds).max() <= window - 1
        for least in (1, 12):
            folding = fold_frames(similarity, bounds, least=least, released=released)
            rows, group = oracle.fold(x, bounds.tolist(), least=least, released=released)
            assert folding.first.tolist() == [row[0][0] for row in rows]
            assert folding.group.tolist() == group
            mean = np.array([sum(w * x[t] for t, w in row) for row in rows])
            np.testing.assert_allclose(folding.apply(tokens).numpy(), mean, atol=1e-5)
            folded += 15 - len(rows)
            assert released or len(rows) >= least
    assert folded


def test_similarity_of_folded_frames_is_that_of_their_means() -> None:
    tokens = scene(15, 3)
    before = FrameSimilarity(tokens, 6)
    folding = fold_frames(before, walk_segments(before, threshold=-1.0, window=6, ema=0.9))
    left = folding.apply(tokens)
    assert len(left) < 15
    after, fresh = before.after(folding), FrameSimilarity(left, 6)
    assert after.frames == len(left)
    for a, b in itertools.combinations(range(len(left)), 2):
        assert after.between(a, b) == pytest.approx(fresh.between(a, b), abs=1e-6)
        assert after.between(a, b) == pytest.approx(oracle.alike(*left[[a, b]].double().numpy()), abs=1e-6)


def test_the_released_code_always_loses_the_last_middle_frame() -> None:
    lost = 0
    for seed in range(20):
        tokens = scene(7, seed)
        similarity = FrameSimilarity(tokens, 8)
        bounds = np.array([0, 7])
        released = fold_frames(similarity, bounds, released=True)
        held = {frame for frame, w in zip(released.first, released.weight, strict=True) if w > 0}
        held |= {frame for frame, w in zip(released.second, released.weight, strict=True) if w < 1}
        assert 5 not in held
        fixed = fold_frames(similarity, bounds)
        lost += 5 in {*fixed.first, *fixed.second}
    assert lost == 20
    two = fold_frames(FrameSimilarity(scene(4, 3), 8), np.array([0, 4]), released=True)
    assert two.first.tolist() == [0, 1, 3]


@pytest.mark.parametrize("retention", [0.08, 0.3, 0.8])
@pytest.mark.parametrize("frames", [1, 2, 14])
def test_selection_equals_the_description(frames: int, retention: float) -> None:
    tokens = scene(frames, seed=frames)
    signals = signals_for(tokens, grid=(4, 5))
    assert signals.saliency is not None
    method = EarlyTom(retention=retention, T=-1.0)
    result = method.before_llm(tokens, signals)
    answer = oracle.earlytom(
        tokens.double().numpy(),
        signals.saliency.double().numpy(),
        (4, 5),
        result.nominal,
        threshold=-1.0,
        window=6,
        ema=0.9,
    )
    assert result.plan.keep.tolist() == sorted(answer)
    merged = result.apply(tokens.double()).numpy()
    np.testing.assert_allclose(merged, np.array([answer[i] for i in sorted(answer)]), atol=1e-5)
    assert "no encoder" in result.sources["frames"]


def test_frames_that_the_encoder_folded_are_taken_from_it() -> None:
    tokens = scene(6, seed=1)
    groups = np.array([0, 1, 1, 2, 2, 3])
    tokens = tokens[[0, 1, 1, 3, 3, 5]]
    signals = Signals(
        saliency=torch.rand(6, 20, generator=torch.Generator().manual_seed(1))[groups.tolist()],
        grid=(4, 5),
        frame_groups=groups,
        frame_segments=np.array([0, 4]),
    )
    result = EarlyTom(retention=0.25).before_llm(tokens, signals)
    assert set((result.plan.keep // 20).tolist()) == {0, 1, 3, 5}
    assert result.frame_counts.tolist() == [8, 8, 0, 7, 0, 7]
    assert result.sources["frames"] == "folded in the encoder"


def test_the_released_code_counts_by_the_frames_that_are_left() -> None:
    tokens = scene(12, seed=2)
    attention = signals_for(tokens).saliency
    assert attention is not None
    found = replay("earlytom", {"X": tokens.numpy(), "A": attention.numpy()}, retention=0.2, T=-1.0)
    x = tokens.double().numpy()
    rows, _ = oracle.fold(x, oracle.walk(x, -1.0, 6, 0.9), released=True)
    left = np.array([sum(w * x[t] for t, w in row) for row in rows])
    scores = np.array([sum(w * attention[t].double().numpy() for t, w in row) for row in rows])
    ratio = min(1, 0.2 * 12 / len(rows))
    bounds = oracle.walk(left, -1.0, 6, 0.9)
    ends = {*bounds[:-1], *(stop - 1 for stop in bounds[1:])}
    expected = []
    for i in range(len(rows)):
        order = sorted(range(20), key=lambda n: (-scores[i, n], n))
        if i in ends:
            chosen = order[: math.ceil(20 * ratio)]
        else:
            count = max(1, round(20 * ratio))
            short, longer = divmod(20, count)
            edges = np.cumsum([0, *([short + 1] * longer), *([short] * (count - longer))])
            chosen = [next(n for n in order if a <= n < b) for a, b in itertools.pairwise(edges)]
        expected += [rows[i][0][0] * 20 + n for n in sorted(chosen)]
    assert found["keep"].tolist() == expected
    np.testing.assert_allclose(
        found["values"], [left[[row[0][0] for row in rows].index(i // 20), i % 20] for i in expected], atol=1e-5
    )


def test_windows_and_ends() -> None:
    assert runs(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert best_of_windows(np.array([1.0, 3, 3, 0, 5, 2, 2]), runs(7, 3)).tolist() == [1, 4, 5]
    assert end_frames(np.array([0, 1, 3, 6])).tolist() == [True, True, True, True, False, True]


def test_inside_an_encoder_frames_stay_as_far_as_the_budget_needs_them() -> None:
    tokens = scene(14, seed=3).expand(14, 20, 12)
    still = tokens[:1].expand(14, -1, -1) + 0.01 * torch.randn(14, 20, 12, generator=torch.Generator().manual_seed(1))
    for retention in (0.2, 0.8, 0.9):
        method = EarlyTom(retention=retention, T=-1.0)
        state = EncoderState(block=0, depth=3, hidden=still, keys=None, size=torch.ones(14, 20), frames=14, patches=20)
        merge = method.inside_encoder(state)
        assert merge is not None
        assert merge.frames >= math.ceil(retention * 14 - 1e-9)
        total = torch.zeros(len(merge.keep)).index_add_(0, merge.origin, merge.weight)
        torch.testing.assert_close(total, torch.ones_like(total))
    assert EarlyTom(retention=1.0).merge_blocks(26) == ()
    assert EarlyTom().merge_blocks(26) == (10, 21, 23)
    assert EarlyTom(prune_layers=(1,)).scored_block(3) == 1
