"""Coverage: how much of what moves, of what the codec coded, and of the video's time is among the tokens that leave.

A token v of the video is covered by ``c_v = min(1, sum_i P_iv)``, P the plan: 1 where it leaves as it is, a quarter
where it is one of four that are averaged, 0 where it is dropped. Over all tokens that is at most the share that is
kept, however a method merges, so that a coverage above the retention is a preference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from compress.density import measure_density
from compress.plan import MergePlan

if TYPE_CHECKING:
    from codecmeta import DensityMap, VideoMeta

MOVES: Final = 1.0
"""Pixels of a vector, less the median vector of the picture, from which a block moves."""
CHANGES: Final = 10.0
"""Grey levels of 255 by which a patch differs from the sampled frame before it, from which it counts as moving."""
DENSEST: Final = 0.1
"""Share of the patches of a frame that are of high residual."""
LUMA: Final = (0.299, 0.587, 0.114)

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Place of the tokens of a video in its pictures.

    Attributes:
        grid: rows and columns of tokens.
        covered: share of the picture's width and height that they cover, from the upper left.
        temporal: sampled frames of a frame of tokens.
    """

    grid: tuple[int, int]
    covered: float = 1.0
    temporal: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """Tokens that are marked for a reason.

    Attributes:
        flags: bool (T * N,); None where the record cannot say.
        source: what says it, or why nothing does.
    """

    flags: Flags | None
    source: str


def cover(plan: MergePlan) -> NDArray[np.float64]:
    """Return how much each token is covered, float64 (V,) in [0, 1]."""
    weight = np.bincount(plan.col.cpu().numpy(), weights=plan.weight.cpu().double().numpy(), minlength=plan.count_in)
    return np.minimum(weight, 1.0)


def cover_marked(covered: NDArray[np.float64], marks: Marks) -> float | None:
    """Return the mean cover of the marked tokens; None where none is marked."""
    if marks.flags is None or not marks.flags.any():
        return None
    return float(covered[marks.flags].mean())


def cover_time(covered: NDArray[np.float64], frames: int) -> tuple[float, int]:
    """Return the share of frames of which something leaves, and the longest run of frames of which nothing does."""
    seen = covered.reshape(frames, -1).sum(axis=1) > 0
    run = longest = 0
    for one in seen.tolist():
        run = 0 if one else run + 1
        longest = max(longest, run)
    return float(seen.mean()), longest


def mark_moving(meta: VideoMeta, place: Place) -> Marks:
    """Mark what moves: by the vectors of the record, or by how the cached frames change.

    By vectors, a patch moves where at least half of it lies in blocks whose vector differs by `MOVES` from the median
    of the picture's vectors of that direction; without, where its mean absolute luma difference to the sampled frame
    before reaches `CHANGES`.
    """
    if meta.mv is not None:
        parts = [_moving_blocks(meta, index) for index in range(len(meta.frame_pts))]
        shares, source, least = np.stack([_pool(part, place) for part in parts]), "motion vectors", 0.5
    elif meta.frames is not None:
        luma = meta.frames @ np.array(LUMA, np.float32)
        change = np.abs(np.diff(luma, axis=0, prepend=luma[:1]))
        shares, source, least = _pool(change, place), "change between sampled frames", CHANGES
    else:
        return Marks(flags=None, source="the record has neither motion vectors nor cached frames")
    return Marks(flags=_by_token_frame(shares >= least, place), source=source)


def mark_residual(meta: VideoMeta, place: Place) -> Marks:
    """Mark the densest tenth of the patches of every frame by the residual that the codec coded.

    Patches of the frame's least density are never among them, nor any of a frame whose map is flat.
    """
    found: DensityMap | None = next((name for name in ("innovation", "carried") if name in meta.density_maps), None)
    if found is None:
        return Marks(flags=None, source="the record has no residual; extract it with --residual auto")
    density = measure_density(meta, found, place.grid, covered=place.covered).reshape(len(meta.frame_pts), -1)
    count = int(np.ceil(DENSEST * density.shape[1]))
    flags = np.zeros(density.shape, bool)
    np.put_along_axis(flags, np.argsort(-density, axis=1, kind="stable")[:, :count], True, axis=1)
    flags &= density > density.min(axis=1, keepdims=True)
    residual = meta.info.get("signals", {}).get(found)
    source = residual.get("source") if isinstance(residual, dict) else residual
    return Marks(flags=_by_token_frame(flags, place), source=f"{found} ({source})" if source else found)


def _moving_blocks(meta: VideoMeta, index: int) -> NDArray[np.float32]:
    """Draw the blocks of a sampled frame that move, float32 (height, width), 1 where one lies."""
    width, height = meta.display_size
    vectors = meta.displayed_vectors(index)
    moving = np.zeros(len(vectors), bool)
    for direction in np.unique(vectors[:, 6]):
        same = vectors[:, 6] == direction
        shift = vectors[same, 4:6] - np.median(vectors[same, 4:6], axis=0)
        moving[same] = np.hypot(*shift.T) >= MOVES
    x, y, w, h = vectors[moving, :4].T
    left, right = (np.clip(np.rint(edge), 0, width).astype(np.int64) for edge in (x, x + w))
    top, bottom = (np.clip(np.rint(edge), 0, height).astype(np.int64) for edge in (y, y + h))
    steps = np.zeros((height + 1, width + 1), np.int32)
    for rows, cols, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(steps, (rows, cols), sign)
    return (steps.cumsum(axis=0).cumsum(axis=1)[:height, :width] > 0).astype(np.float32)


def _pool(pictures: NDArray[np.float32], place: Place) -> NDArray[np.float32]:
    """Average pictures (..., height, width) over the patches that tokens stand for, (..., N)."""
    height, width = pictures.shape[-2:]
    rows, cols = (max(1, round(place.covered * side)) for side in (height, width))
    part = torch.from_numpy(np.ascontiguousarray(pictures[..., :rows, :cols])).reshape(-1, 1, rows, cols)
    means = adaptive_avg_pool2d(part, place.grid)
    pooled: NDArray[np.float32] = means.reshape(*pictures.shape[:-2], -1).numpy()
    return pooled


def _by_token_frame(flags: Flags, place: Place) -> Flags:
    """Mark a token where it is marked in any of its sampled frames, (sampled frames, N) -> (T * N,)."""
    missing = -len(flags) % place.temporal
    filled = np.concatenate((flags, np.repeat(flags[-1:], missing, axis=0)))
    return filled.reshape(-1, place.temporal, flags.shape[1]).any(axis=1).ravel()
