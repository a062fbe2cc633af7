"""EVS: tokens that differ from the same place in the frame before (Efficient Video Sampling, arXiv 2510.14624).

The reference follows vLLM's implementation (Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from compress.baselines.baseline import Choice, Published, spread
from compress.baselines.rows import Rows
from compress.errors import ConfigError
from compress.ops.similarity import change_between
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import Signals

FORCED = 255.0
"""Dissimilarity of the first frame in the released code, above that of any other token."""


@dataclass(frozen=True, kw_only=True)
class EVS(Published):
    """The tokens that are most dissimilar to their predecessors, over the whole video.

    The first frame has no predecessor. Fixed, it takes at most half of the budget, at equal distances where that is
    less than all of it. The released code always keeps it whole, whatever remains for the others.

    Attributes:
        q: share of the tokens that is pruned, in [0, 1), in place of ``retention``; None for 1 - retention.
    """

    retention: float = 0.25
    q: float | None = None
    name: ClassVar[str] = "evs"
    looks: ClassVar[bool] = False  # all tokens that are compared are checked

    def __post_init__(self) -> None:
        if self.q is not None:
            if not 0 <= self.q < 1:
                raise ConfigError(f"q is {self.q}; the pruned share must lie in [0, 1)")
            object.__setattr__(self, "retention", 1 - self.q)
        super().__post_init__()

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        total = frames * per_frame
        first = count if frames == 1 else max(min(per_frame, count // 2), count - (total - per_frame))
        change = change_between(tokens, range(1, frames), range(frames - 1)).flatten()
        rest = change.sort(descending=True, stable=True).indices[: count - first] + per_frame
        keep = torch.cat((on_device(spread(first, per_frame), tokens.device), rest.sort().values))
        return Choice(plan=MergePlan.selection(keep, count_in=total))

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`."""
        frames, per_frame, _ = tokens.shape
        pruned = 1 - self.retention if self.q is None else self.q
        kept = max(per_frame, int(frames * per_frame * (1 - pruned)))
        wide = tokens.float()
        change = 1 - functional.cosine_similarity(wide[1:], wide[:-1], dim=2)
        change = torch.cat((torch.full_like(wide[:1, :, 0], FORCED), change)).flatten()
        keep = change.argsort(descending=True, stable=True)[:kept].sort().values
        return Rows.selection(keep, count_in=frames * per_frame)
