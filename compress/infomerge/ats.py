"""ATS: selection of each frame's salient tokens without repeating the same static ones (InfoMerge, eqs. 10-11)."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def select_salient(
    saliency: NDArray[np.float64],
    static: NDArray[np.bool_],
    bounds: NDArray[np.int64],
    *,
    count: int,
    lam: float,
) -> NDArray[np.bool_]:
    """Select the ``count`` most salient tokens of each frame, with a penalty on static ones taken in earlier frames.

    The penalty is ``lam`` times the frame's own spread of saliency; it ends with the segment. Of equal scores
    unpenalised ones come first, then lower positions. The count never changes.

    Args:
        saliency: (L, N).
        static: bool (K, N), static positions of each segment.
        bounds: int64 (K + 1,), where segments begin.
        count: T_s, 0 to N.
        lam: strength, at least 0; infinity makes it a hard mask.

    Returns:
        bool (L, N).
    """
    frames, per_frame = saliency.shape
    chosen = np.zeros((frames, per_frame), dtype=bool)
    if count == 0:
        return chosen
    lengths = np.diff(bounds)
    spread = saliency.std(axis=1)
    taken = np.zeros(static.shape, dtype=bool)
    for local in range(int(lengths.max())):  # all segments at once, one step per frame of the longest
        segment = np.flatnonzero(lengths > local)
        frame = bounds[segment] + local
        penalised = taken[segment]
        if np.isinf(lam):
            keys = (-saliency[frame], penalised)
        else:
            keys = (penalised, -(saliency[frame] - lam * spread[frame, None] * penalised))
        order = np.lexsort(keys, axis=1)[:, :count]
        chosen[frame[:, None], order] = True
        taken[segment] |= chosen[frame] & static[segment]
    return chosen


def substituted_tokens(
    salient: NDArray[np.bool_], static: NDArray[np.bool_], bounds: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Find the tokens that the mean of their position over the segment replaces (eq. 30).

    From the first time that a static position is selected as salient, it and all later salient tokens at this position
    within the segment are replaced.

    Args:
        salient: bool (L, N), from `select_salient`.
        static: bool (K, N).
        bounds: int64 (K + 1,).

    Returns:
        bool (L, N).
    """
    replaced = np.zeros(salient.shape, dtype=bool)
    for k, (start, stop) in enumerate(itertools.pairwise(bounds)):
        replaced[start:stop] = np.logical_or.accumulate(salient[start:stop], axis=0) & static[k]
    return replaced


FORESIGHT = 8
"""Passes of `foresee_salient`: it is exact for segments of so many frames, and almost always for longer ones."""


def foresee_salient(
    saliency: Tensor, static: Tensor, member: Tensor, *, count: int, lam: float
) -> tuple[Tensor, Tensor]:
    """Foresee on the device what `select_salient` and `substituted_tokens` will find on the host.

    Every pass takes all frames at once, with the penalties that the pass before gives: it is right for one frame more
    of each segment. Nothing depends on it but time: a frame foreseen wrongly is scored again.

    Args:
        saliency: (L, N).
        static: bool (L, N), static positions of each frame's segment.
        member: bool (K, L), the frames of each segment.
        count: T_s, 0 to N.
        lam: strength.

    Returns:
        bool (L, N), the salient tokens; and bool (L, N), those of all tokens that a mean replaces.
    """
    wide = saliency.double()
    spread = wide.std(dim=1, unbiased=False, keepdim=True)
    # More than the range of a frame puts penalised tokens last, as infinity does.
    penalty = spread * lam if lam < torch.inf else 2 * (wide.amax(1, keepdim=True) - wide.amin(1, keepdim=True)) + 1
    together = member.float().T @ member.float()
    earlier, until_now = together.tril(-1), together.tril()
    nothing = torch.zeros_like(static)
    score, salient = wide, nothing
    for turn in range(FORESIGHT):
        if turn:
            taken = (earlier @ (salient & static).float()) > 0
            score = wide - penalty * taken
        order = score.sort(dim=1, descending=True, stable=True).indices
        salient = nothing.scatter(1, order[:, :count], True)
    return salient, ((until_now @ salient.float()) > 0) & static
