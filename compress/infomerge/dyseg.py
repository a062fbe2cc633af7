"""DySeg: segmentation of the video where consecutive frames differ (InfoMerge, eqs. 22-23; FastVID)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import ShapeError
from compress.ops.similarity import unit


def transitions(frame_features: Tensor) -> Tensor:
    """Compute the cosine of each frame's global feature with the next one's (eq. 22).

    Args:
        frame_features: (L, Dg), any float dtype.

    Returns:
        float32 (L - 1,).
    """
    direction = unit(frame_features)
    return (direction[1:] * direction[:-1]).sum(dim=1)


def cut_segments(similarity: NDArray[np.float64], *, c: int, tau_seg: float) -> NDArray[np.int64]:
    """Return where segments begin: after the c - 1 smallest transitions and all below ``tau_seg`` (eq. 23).

    Args:
        similarity: (L - 1,), `transitions` on the host.
        c: least number of segments, as far as there are frames.
        tau_seg: transitions strictly below it cut.

    Returns:
        int64 (K + 1,), ascending from 0 to L; segment k holds the frames ``bounds[k]:bounds[k + 1]``.

    Raises:
        ShapeError: a transition is not finite.
    """
    if not np.isfinite(similarity).all():
        frames = np.flatnonzero(~np.isfinite(similarity)).tolist()
        raise ShapeError(f"the features of frames {frames[:10]} or of those after them are not finite")
    smallest = np.argsort(similarity, kind="stable")[: c - 1]
    cuts = np.union1d(smallest, np.flatnonzero(similarity < tau_seg)) + 1
    return np.concatenate(([0], cuts, [len(similarity) + 1])).astype(np.int64)


def segment_members(bounds: NDArray[np.int64]) -> Tensor:
    """Mark the frames of each segment, bool (K, L) on the host.

    Args:
        bounds: int64 (K + 1,), where segments begin, from any first frame on.
    """
    frame = np.arange(bounds[0], bounds[-1])
    return torch.from_numpy((bounds[:-1, None] <= frame) & (frame < bounds[1:, None]))


def segment_members_there(similarity: Tensor, *, c: int, tau_seg: float) -> Tensor:
    """Mark the frames of each segment where the transitions are, without the host: `cut_segments` in a fixed shape.

    Returns:
        bool (L, L); rows beyond the number of segments are empty.
    """
    cuts = similarity.double() < tau_seg
    smallest = similarity.sort(stable=True).indices[: c - 1]
    segment = torch.nn.functional.pad(cuts.index_fill_(0, smallest, True).long().cumsum(0), (1, 0))
    return torch.arange(len(segment), device=segment.device)[:, None] == segment


def group_segments(bounds: NDArray[np.int64], *, frames: int) -> Iterator[tuple[int, int]]:
    """Group consecutive segments to process together: runs of at most ``frames`` frames, or one longer segment.

    Yields:
        The first segment of a run and the one after its last.
    """
    first = 0
    while first < len(bounds) - 1:
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + frames, side="right")) - 1)
        yield first, last
        first = last
