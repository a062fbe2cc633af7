"""Coverage, by dense matrices and by loops over pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compress.comparison.coverage import (
    CHANGES,
    Marks,
    Place,
    cover,
    cover_marked,
    cover_time,
    mark_moving,
    mark_residual,
)
from compress.plan import MergePlan
from compress.profiling.bench import synthetic_meta


def test_cover_is_the_weight_with_which_a_token_leaves() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(-1, 7, 40)
    groups[:7] = np.arange(7)
    plan = MergePlan.from_groups(groups, keep=np.arange(7))
    expected = np.minimum(plan.dense().numpy().sum(axis=0), 1)
    assert cover(plan) == pytest.approx(expected, abs=1e-6)
    assert cover(plan).sum() == pytest.approx(7)  # never more than is kept
    assert cover(MergePlan.identity(5)).tolist() == [1] * 5
    # a token that enters two outputs whole counts once
    twice = MergePlan.from_entries(
        torch.tensor([0, 1]), torch.tensor([3, 3]), torch.ones(2), keep=torch.tensor([0, 3]), count_in=4
    )
    assert cover(twice).tolist() == [0, 0, 0, 1]


def test_cover_of_marked_tokens_and_of_time() -> None:
    covered = np.array([1, 0, 0.5, 0, 0, 0, 0, 0, 0.25, 0.25])
    flags = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    assert cover_marked(covered, Marks(flags=flags, source="")) == pytest.approx(0.5)
    assert cover_marked(covered, Marks(flags=~flags, source="")) == pytest.approx(0.5 / 7)
    assert cover_marked(covered, Marks(flags=np.zeros(10, bool), source="")) is None
    assert cover_marked(covered, Marks(flags=None, source="")) is None
    assert cover_time(covered, 5) == (pytest.approx(3 / 5), 2)
    assert cover_time(np.ones(10), 5) == (1.0, 0)


def with_vectors(meta: Any, *frames: list[tuple[int, ...]]) -> Any:
    """Give a record vectors: x, y, w, h, dx and dy in quarter pixels, direction."""
    offsets = np.cumsum([0, *(len(one) for one in frames)]).astype(np.int64)
    flat = np.array([row for one in frames for row in one], np.int16).reshape(-1, 7)
    return replace(meta, mv=flat, mv_offset=offsets)


def test_blocks_that_move_mark_the_patches_that_they_fill() -> None:
    side = 64
    still = [(x, y, 16, 16, 8, 0, -1) for y in range(0, side, 16) for x in range(0, side, 16)]
    moved = [(*row[:4], 8 + 20, 0, -1) if row[:2] in ((16, 16), (32, 48)) else row for row in still]
    nearly = [(*row[:4], 8 + 3, 0, -1) if row[:2] == (0, 0) else row for row in still]  # 0.75 pixels
    meta = with_vectors(synthetic_meta(frames=3, side=side), moved, nearly, [])
    marks = mark_moving(meta, Place(grid=(4, 4)))
    assert marks.source == "motion vectors"
    assert marks.flags is not None
    assert np.argwhere(marks.flags.reshape(3, 4, 4)).tolist() == [[0, 1, 1], [0, 3, 2]]
    # two sampled frames are one frame of tokens, an odd last one by itself
    pairs = mark_moving(meta, Place(grid=(4, 4), temporal=2)).flags
    assert pairs is not None and pairs.shape == (32,) and pairs.sum() == 2
    # of a patch twice as wide a block fills a quarter, which is less than half
    wide = mark_moving(meta, Place(grid=(2, 2))).flags
    assert wide is not None and not wide.any()


def test_without_vectors_the_change_of_the_frames_counts() -> None:
    meta = synthetic_meta(frames=3, side=48)
    frames = np.full((3, 48, 48, 3), 100, np.uint8)
    frames[1:, :16, 32:] += int(CHANGES) + 1
    frames[2, 16:32, :16] += int(CHANGES) - 1
    marks = mark_moving(replace(meta, frames=frames), Place(grid=(3, 3)))
    assert marks.source == "change between sampled frames"
    assert marks.flags is not None
    assert np.flatnonzero(marks.flags).tolist() == [9 + 2]
    nothing = mark_moving(replace(meta, frames=None), Place(grid=(3, 3)))
    assert nothing.flags is None and "neither" in nothing.source


def densest(density: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    flags = np.zeros(density.shape, bool)
    for t, frame in enumerate(density):
        for place in sorted(range(frame.size), key=lambda i: -frame[i])[:count]:
            flags[t, place] = frame[place] > frame.min()
    return flags


def test_high_residual_is_the_densest_tenth_of_every_frame() -> None:
    meta = synthetic_meta(frames=3, side=96)
    assert meta.energy_carried is not None and meta.range_carried is not None
    flat = meta.energy_carried.copy()
    flat[1] = 2.0
    extent = np.stack((flat.min(axis=(1, 2)), flat.max(axis=(1, 2))), axis=1)
    meta = replace(meta, energy_carried=flat, range_carried=extent)
    marks = mark_residual(meta, Place(grid=(6, 6)))
    expected = densest(meta.density((6, 6), map="carried").reshape(3, -1), 4)
    assert marks.flags is not None
    assert (marks.flags == expected.ravel()).all()
    assert marks.flags.reshape(3, -1).sum(axis=1).tolist() == [4, 0, 4]
    assert marks.source.startswith("carried")
    none = mark_residual(replace(meta, energy_carried=None, range_carried=None), Place(grid=(6, 6)))
    assert none.flags is None and "--residual auto" in none.source
