"""Selections and poolings keep what they say, evenly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compress.accuracy.baselines import (
    Everything,
    FewerFrames,
    Oracle,
    RandomTokens,
    SpacePooling,
    TimePooling,
    UniformStride,
    spread,
)
from compress.errors import ConfigError, ShapeError
from compress.stage import Compression, Signals

FRAMES, GRID = 16, (7, 7)
TOKENS = torch.randn(FRAMES, 49, 8, generator=torch.Generator().manual_seed(0))
SIGNALS = Signals(grid=GRID)
RETENTIONS = (0.5, 0.3, 0.2, 0.15, 0.1, 0.05)
OCCUPIED = np.random.default_rng(0).random((FRAMES, *GRID)) < 0.15


def keep(method: Any) -> Compression:
    compression: Compression = method.before_llm(TOKENS, SIGNALS)
    return compression


def exact(retention: float) -> int:
    return int(retention * 784 + 0.5)


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("kind", [RandomTokens, UniformStride, FewerFrames])
def test_selections_are_exact(kind: Any, retention: float) -> None:
    found = keep(kind(retention=retention))
    assert found.achieved == found.nominal == exact(retention)
    kept = found.plan.keep
    assert torch.equal(found.apply(TOKENS), TOKENS.flatten(0, 1)[kept])
    assert found.positions == "original"


@pytest.mark.parametrize("kind", [Everything, RandomTokens, UniformStride, FewerFrames, SpacePooling, TimePooling])
def test_all_tokens_are_the_identity(kind: Any) -> None:
    method = kind() if kind is Everything else kind(retention=1.0)
    assert torch.equal(keep(method).apply(TOKENS), TOKENS.flatten(0, 1))


def test_random_depends_on_its_seed_alone() -> None:
    one = keep(RandomTokens(retention=0.2, seed=(1, 2))).plan.keep
    assert torch.equal(one, keep(RandomTokens(retention=0.2, seed=(1, 2))).plan.keep)
    assert not torch.equal(one, keep(RandomTokens(retention=0.2, seed=(1, 3))).plan.keep)


@pytest.mark.parametrize("retention", RETENTIONS)
def test_stride_prefers_no_frame_row_or_column(retention: float) -> None:
    kept = keep(UniformStride(retention=retention)).plan.keep.numpy()
    for part, count in ((kept // 49, FRAMES), (kept % 49 // 7, 7), (kept % 7, 7)):
        counts = np.bincount(part, minlength=count)
        assert counts.max() - counts.min() <= 2
    even = spread(8 * 8 * 4 // 2, 8 * 8 * 4)
    assert np.unique(even % 8).size == 4  # on an even grid half of the columns would never be seen


@pytest.mark.parametrize(("retention", "frames"), [(0.5, 8), (0.3, 5), (0.1, 2), (0.05, 1)])
def test_frames_are_as_few_as_hold_the_budget(retention: float, frames: int) -> None:
    counts = keep(FewerFrames(retention=retention)).frame_counts
    held = np.flatnonzero(counts)
    assert len(held) == frames
    assert counts[held].max() - counts[held].min() <= 1
    assert np.ptp(np.diff(held, prepend=held[0] - FRAMES // frames)) <= 1


@pytest.mark.parametrize(
    ("retention", "count"), [(0.5, 400), (0.3, 256), (0.2, 144), (0.15, 96), (0.1, 64), (0.05, 32)]
)
def test_space_pooling_averages_blocks(retention: float, count: int) -> None:
    found = keep(SpacePooling(retention=retention))
    assert (found.achieved, found.nominal) == (count, exact(retention))
    # Every token counts in exactly one mean of its own frame.
    dense = found.plan.dense()
    assert ((dense > 0).sum(dim=0) == 1).all()
    assert all(len({int(t) // 49 for t in row.nonzero()}) == 1 for row in dense)
    assert torch.allclose(found.apply(TOKENS), dense @ TOKENS.flatten(0, 1), atol=1e-6)


def test_space_pooling_by_hand() -> None:
    tokens = torch.arange(16.0).view(1, 16, 1)
    found = SpacePooling(retention=0.25).before_llm(tokens, Signals(grid=(4, 4)))
    assert found.apply(tokens).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert found.plan.keep.tolist() == [1, 3, 9, 11]
    with pytest.raises(ShapeError, match="grid"):
        SpacePooling(retention=0.25).before_llm(tokens, Signals())


@pytest.mark.parametrize(("retention", "runs"), [(0.5, 8), (0.3, 5), (0.1, 2), (0.05, 1)])
def test_time_pooling_averages_runs_of_frames(retention: float, runs: int) -> None:
    found = keep(TimePooling(retention=retention))
    assert found.achieved == runs * 49
    means = found.apply(TOKENS).view(runs, 49, 8)
    edges = [np.flatnonzero(np.arange(FRAMES) * runs // FRAMES == run) for run in range(runs)]
    for run, frames in enumerate(edges):
        assert torch.allclose(means[run], TOKENS[frames].mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("retention", RETENTIONS)
def test_oracle_takes_objects_first(retention: float) -> None:
    found = keep(Oracle(retention=retention, occupied=OCCUPIED))
    kept = np.zeros(784, bool)
    kept[found.plan.keep] = True
    held = OCCUPIED.ravel()
    assert found.achieved == exact(retention)
    enough = exact(retention) >= held.sum()
    assert kept[held].all() if enough else not kept[~held].any()
    candidates = ~held if enough else held
    taken = (kept & candidates).reshape(FRAMES, 49).sum(axis=1)
    open_frames = taken < candidates.reshape(FRAMES, 49).sum(axis=1)
    assert np.ptp(taken[open_frames]) <= 1
    assert taken[~open_frames].max(initial=0) <= taken[open_frames].max()


def test_oracle_of_another_clip_is_refused() -> None:
    with pytest.raises(ShapeError, match="occupied"):
        keep(Oracle(retention=0.5, occupied=OCCUPIED[:8]))


def test_retentions_are_checked() -> None:
    for kind in (RandomTokens, UniformStride, FewerFrames, SpacePooling, TimePooling):
        with pytest.raises(ConfigError, match="retention"):
            keep(kind(retention=1.5))
