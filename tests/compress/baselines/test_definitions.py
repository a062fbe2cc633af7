"""Every published method against the oracle that is written from its definition; the naive ones by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from compress.baselines import (
    EVS,
    AveragePooling,
    DivPrune,
    DyCoke,
    FastVID,
    FewerFrames,
    FlashVID,
    HoliTom,
    RandomTokens,
    SmallerFrames,
    UniformStride,
    VidCom2,
    VisionZip,
)
from compress.baselines.baseline import spread
from compress.baselines.holitom import select_windows
from compress.stage import Compression, Signals
from tests.compress.baselines.scenes import signals_for, video
from tests.oracle import baselines as oracle

RETENTIONS = (0.08, 0.2, 0.35, 0.6, 0.9)


def agrees(result: Compression, tokens: torch.Tensor, answer: oracle.Answer) -> None:
    order = sorted(answer)
    assert result.plan.keep.tolist() == order
    merged = result.apply(tokens.double()).numpy()
    np.testing.assert_allclose(merged, np.array([answer[i] for i in order]), atol=1e-5, rtol=1e-5)


def scene(frames: int, seed: int) -> tuple[torch.Tensor, Signals, int]:
    tokens = video(frames, (4, 5), seed=seed, width=12)
    return tokens, signals_for(tokens, grid=(4, 5)), frames * 20


def wanted(retention: float, total: int) -> int:
    return math.floor(retention * total + 0.5 + 1e-9)


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("frames", [1, 2, 7, 13])
def test_methods_without_attention(frames: int, retention: float) -> None:
    tokens, signals, total = scene(frames, seed=frames)
    x, count = tokens.double().numpy(), wanted(retention, total)
    agrees(EVS(retention=retention).before_llm(tokens, signals), tokens, oracle.evs(x, count))
    agrees(DyCoke(retention=retention).before_llm(tokens, signals), tokens, oracle.dycoke(x, count))
    agrees(VidCom2(retention=retention).before_llm(tokens, signals), tokens, oracle.vidcom2(x, retention, count))
    if frames < 8 and retention < 0.9:  # the last tokens are near duplicates, which differ by rounding only
        agrees(DivPrune(retention=retention).before_llm(tokens, signals), tokens, oracle.divprune(x, count))


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_methods_with_attention(frames: int, retention: float) -> None:
    tokens, signals, total = scene(frames, seed=20 + frames)
    assert signals.saliency is not None
    assert signals.keys is not None
    assert signals.frame_features is not None
    x, count = tokens.double().numpy(), wanted(retention, total)
    attention, keys, features = (
        one.double().numpy() for one in (signals.saliency, signals.keys, signals.frame_features)
    )
    zipped = VisionZip(retention=retention).before_llm(tokens, signals)
    agrees(zipped, tokens, oracle.visionzip(x, attention, keys, count))
    for budget in ("video", "onevision"):
        method: Any = FastVID(retention=retention, budget=budget, c=3)
        answer = oracle.fastvid(x, attention, features, count, budget=budget, c=3)
        agrees(method.before_llm(tokens, signals), tokens, answer)
    for selection in ("v2", "v1"):
        method = FlashVID(retention=retention, selection=selection, c=3)
        answer = oracle.flashvid(x, attention, count, c=3, relevance=selection == "v2")
        agrees(method.before_llm(tokens, signals), tokens, answer)


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("no_beta", [False, True])
def test_holitom(retention: float, no_beta: bool) -> None:
    for frames in (1, 2, 9):
        tokens, signals, total = scene(frames, seed=40 + frames)
        assert signals.saliency is not None
        result = HoliTom(retention=retention, no_beta=no_beta).before_llm(tokens, signals)
        windows = [(s.start, s.start + s.frames - 1) for s in result.segments]
        tau = float(result.diagnostics["tau"])
        x = tokens.double().numpy()
        margin = 1e-6 if tau > 0.8 else 0  # a raised threshold is a similarity itself, in float32
        answer = oracle.holitom(
            x, signals.saliency.double().numpy(), windows, tau + margin, wanted(retention, total), plain=no_beta
        )
        agrees(result, tokens, answer)


def test_windows_are_the_best_of_all_divisions() -> None:
    rng = np.random.default_rng(0)
    for trial in range(60):
        frames, per_frame = int(rng.integers(1, 9)), int(rng.integers(1, 7))
        similar = rng.random((frames - 1, per_frame))
        if trial % 3 == 0:
            similar = np.round(similar)  # many ties
        windows, gain = select_windows(similar, tau=0.4, longest=1024)
        assert [frame for a, b in windows for frame in range(a, b + 1)] == list(range(frames))
        static = [int((similar[a:b] > 0.4).all(axis=0).sum()) if b > a else 0 for a, b in windows]
        assert gain == sum(n * (b - a) for n, (a, b) in zip(static, windows, strict=True))
        assert gain == (oracle.best_windows(similar, 0.4) if frames > 1 else 0)


def test_windows_have_a_longest() -> None:
    windows, gain = select_windows(np.ones((7, 3)), tau=0.5, longest=4)
    assert max(b - a + 1 for a, b in windows) == 4
    assert gain == 3 * 6
    assert select_windows(np.ones((7, 3)), tau=0.5, longest=1024) == ([(0, 7)], 21)
    assert select_windows(np.ones((7, 3)), tau=1.0, longest=1024) == ([(i, i) for i in range(8)], 0)


def test_holitom_raises_its_threshold_as_far_as_needed() -> None:
    frame = torch.randn(1, 12, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(10, 12, 8, generator=torch.Generator().manual_seed(1))
    tokens = frame + noise * torch.linspace(0.01, 0.2, 12)[None, :, None]
    result = HoliTom(retention=0.6).before_llm(tokens, Signals())
    assert result.achieved == 72
    tau = float(result.diagnostics["tau"])
    direction = torch.nn.functional.normalize(tokens.double(), dim=2)
    similar = (direction[1:] * direction[:-1]).sum(dim=2).numpy()
    below = max(value for value in similar.ravel() if value < tau - 1e-6)
    assert 0.8 < tau < 1
    assert 120 - select_windows(similar, tau=tau + 1e-6, longest=1024)[1] >= 72
    assert 120 - select_windows(similar, tau=below - 1e-6, longest=1024)[1] < 72


@pytest.mark.parametrize(
    ("retention", "video_split", "onevision_split"),
    [
        # Frames of 196 tokens get int(196 r) = 19, 29 and 49; (salient, context) of segments of 1, 2 and 5 frames.
        (0.10, [(12, 7), (23, 15), (57, 38)], [(12, 7), (24, 14), (60, 35)]),
        (0.15, [(18, 11), (35, 23), (87, 58)], [(18, 11), (36, 22), (90, 55)]),
        (0.25, [(30, 19), (59, 39), (147, 98)], [(30, 19), (60, 38), (150, 95)]),
    ],
)
def test_fastvid_splits_every_segment(
    retention: float, video_split: list[tuple[int, int]], onevision_split: list[tuple[int, int]]
) -> None:
    bounds = np.array([0, 1, 3, 8])
    granted = np.full(8, int(196 * retention + 1e-9))
    for budget, expected in (("video", video_split), ("onevision", onevision_split)):
        salient, context = FastVID(budget=budget).split(granted, bounds, 196)
        assert list(zip(np.add.reduceat(salient, bounds[:-1]).tolist(), context.tolist(), strict=True)) == expected
    # With 169 tokens (LLaVA-Video) the two agree where 0.4 of a frame's budget is whole: 25 at 15 %, not 16 or 42.
    agreeing = []
    for r in (0.10, 0.15, 0.25):
        granted = np.full(8, int(169 * r))
        splits = [FastVID(budget=budget).split(granted, bounds, 169)[1].tolist() for budget in ("video", "onevision")]
        agreeing += [r] if splits[0] == splits[1] else []
    assert agreeing == [0.15]


def test_fastvid_works_beyond_the_capacity_of_its_anchors() -> None:
    tokens, signals, _ = scene(8, seed=60)
    for retention in (0.46, 0.7, 0.95):
        result = FastVID(retention=retention, c=2, tau=-1).before_llm(tokens, signals)
        assert result.achieved == wanted(retention, 160)


def test_random_tokens() -> None:
    tokens = torch.zeros(4, 10, 2)
    first = RandomTokens(retention=0.3).before_llm(tokens, Signals()).plan.keep
    assert first.tolist() != RandomTokens(retention=0.3, seed=(1,)).before_llm(tokens, Signals()).plan.keep.tolist()
    counts = np.zeros(40)
    for seed in range(300):
        counts[RandomTokens(retention=0.5, seed=(seed,)).before_llm(tokens, Signals()).plan.keep] += 1
    assert counts.sum() == 300 * 20
    assert abs(counts / 300 - 0.5).max() < 0.15


def test_uniform_stride_and_fewer_frames() -> None:
    tokens = torch.zeros(4, 5, 2)
    assert UniformStride(retention=0.25).before_llm(tokens, Signals()).plan.keep.tolist() == [2, 6, 10, 14, 18]
    result = FewerFrames(retention=0.5).before_llm(tokens, Signals())
    assert result.plan.keep.tolist() == [*range(5, 10), *range(15, 20)]
    result = FewerFrames(retention=0.35).before_llm(tokens, Signals())  # 7 tokens: frames 1 and 3, 4 and 3 of them
    assert result.plan.keep.tolist() == [5, 6, 8, 9, 15, 17, 19]
    assert result.frame_budgets is not None
    assert result.frame_budgets.tolist() == [0, 4, 0, 3]


@pytest.mark.parametrize("retention", (0.5, 0.3, 0.2, 0.15, 0.1, 0.05))
def test_stride_prefers_no_frame_row_or_column(retention: float) -> None:
    tokens = torch.zeros(16, 49, 2)
    kept = UniformStride(retention=retention).before_llm(tokens, Signals()).plan.keep.numpy()
    for part, count in ((kept // 49, 16), (kept % 49 // 7, 7), (kept % 7, 7)):
        counts = np.bincount(part, minlength=count)
        assert counts.max() - counts.min() <= 2
    even = spread(8 * 8 * 4 // 2, 8 * 8 * 4)
    assert np.unique(even % 8).size == 4  # on an even grid half of the columns would never be seen


@pytest.mark.parametrize(("retention", "frames"), [(0.5, 8), (0.3, 5), (0.1, 2), (0.05, 1)])
def test_frames_are_as_few_as_hold_the_budget(retention: float, frames: int) -> None:
    counts = FewerFrames(retention=retention).before_llm(torch.zeros(16, 49, 2), Signals()).frame_counts
    held = np.flatnonzero(counts)
    assert len(held) == frames
    assert counts[held].max() - counts[held].min() <= 1
    assert np.ptp(np.diff(held, prepend=held[0] - 16 // frames)) <= 1


def test_pooling_over_space() -> None:
    tokens = torch.arange(16.0).view(1, 16, 1)
    result = AveragePooling(retention=0.25).before_llm(tokens, Signals(grid=(4, 4)))
    assert result.apply(tokens).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert result.plan.keep.tolist() == [1, 3, 9, 11]
    result = AveragePooling(retention=5 / 16).before_llm(tokens, Signals(grid=(4, 4)))  # bands of 2 and 3 cells
    assert result.apply(tokens).flatten().tolist() == [2.5, 4.5, 10, 11, 12.5]


def test_pooling_over_time() -> None:
    tokens = torch.arange(8.0).view(4, 2, 1)
    result = AveragePooling(retention=0.5, over="time").before_llm(tokens, Signals(grid=(1, 2)))
    assert result.apply(tokens).flatten().tolist() == [1, 2, 5, 6]
    result = AveragePooling(retention=3 / 8, over="time").before_llm(tokens, Signals(grid=(1, 2)))
    assert result.apply(tokens).flatten().tolist() == [1, 4, 5]
    result = AveragePooling(retention=1 / 8, over="time").before_llm(tokens, Signals(grid=(1, 2)))
    assert result.apply(tokens).flatten().tolist() == [3.5]


def test_smaller_frames_are_resized_by_area() -> None:
    tokens = torch.arange(9.0).view(1, 9, 1)
    result = SmallerFrames(retention=4 / 9).before_llm(tokens, Signals(grid=(3, 3)))
    # Cells of 1.5 x 1.5: the first holds token 0 whole, half of 1 and 3, a quarter of 4.
    first = (0 + 0.5 * 1 + 0.5 * 3 + 0.25 * 4) / 2.25
    np.testing.assert_allclose(result.apply(tokens).flatten(), [first, first + 4 / 3, first + 4, first + 16 / 3])
    pooled = torch.nn.functional.interpolate(tokens.view(1, 1, 3, 3), size=(1, 1), mode="area")
    result = SmallerFrames(retention=1 / 9).before_llm(tokens, Signals(grid=(3, 3)))
    assert result.apply(tokens).item() == pytest.approx(pooled.item())
    assert result.plan.keep.tolist() == [4]
