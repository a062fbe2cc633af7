"""The identity keeps everything, the oracle objects first, evenly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compress.accuracy.extremes import Everything, Oracle
from compress.errors import ShapeError
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


def test_everything_is_the_identity() -> None:
    assert torch.equal(keep(Everything()).apply(TOKENS), TOKENS.flatten(0, 1))


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
