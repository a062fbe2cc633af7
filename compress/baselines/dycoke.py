"""DyCoke, stage 1: temporal token merging, which in fact prunes (CVPR 2025).

The reference follows the released code (KD-TAO/DyCoke, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compress.baselines.baseline import Choice, Published, share_evenly, spread
from compress.baselines.rows import Rows
from compress.budget import floor_guarded
from compress.errors import ConfigError
from compress.ops.similarity import change_between
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import Signals

WINDOW = 4
WHOLE_SHARE = 2 / 3
"""Frames that stay whole take at most this share of a budget; a smaller budget doubles the window."""
DEFAULT_K = 0.7


@dataclass(frozen=True, kw_only=True)
class DyCoke(Published):
    """All tokens of every window's first frame, and those of the others that are least similar to an earlier frame.

    In a window of four, frames 1 and 3 are compared with frames 0 and 2, and frame 2 with frame 0, place by place; of
    each, the share 1 - K stays. Fixed, K follows from the retention and is reported. The published windows cannot go
    below a quarter of the tokens; a budget of which whole frames would take more than two thirds doubles the window
    (frame 4 is then compared with frame 0, frame 6 with frame 4, and so on).

    Attributes:
        K: share of a compared frame that is pruned, in [0, 1), in place of ``retention``: windows of four, int((1 - K)
            N) tokens. None lets the retention decide; the released code then takes 0.7.
    """

    retention: float = 0.475
    K: float | None = None
    name: ClassVar[str] = "dycoke"
    looks: ClassVar[bool] = False  # all tokens that are compared are checked

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.K is not None and not 0 <= self.K < 1:
            raise ConfigError(f"K is {self.K}; the pruned share must lie in [0, 1)")

    @property
    def _keeps_all(self) -> bool:
        return super()._keeps_all and self.K is None

    def nominal(self, frames: int, per_frame: int) -> int:
        """See `Baseline.nominal`."""
        if self.K is None:
            return super().nominal(frames, per_frame)
        whole = -(-frames // WINDOW)
        return whole * per_frame + (frames - whole) * floor_guarded((1 - self.K) * per_frame)

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        frame = np.arange(frames)
        window = WINDOW
        if self.K is None:
            while window < frames and -(-frames // window) * per_frame > WHOLE_SHARE * count:
                window *= 2
        whole = frame % window == 0
        budgets = np.zeros(frames, np.int64)
        if self.K is None:
            most = int(whole.sum()) * per_frame
            # A window as long as the video can still ask for more than the budget holds.
            granted = max(
                min(most, int(WHOLE_SHARE * count)) if frames > 1 else count, count - (frames * per_frame - most)
            )
            budgets[whole] = share_evenly(granted, int(whole.sum()), per_frame)
            budgets[~whole] = share_evenly(count - granted, int((~whole).sum()), per_frame)
        else:
            budgets[:] = floor_guarded((1 - self.K) * per_frame)
            budgets[whole] = per_frame
        place = frame % window
        others = np.flatnonzero(~whole)
        change = change_between(tokens, others.tolist(), (frame - (place & -place))[others].tolist())
        order = change.sort(dim=1, descending=True, stable=True).indices
        stays = torch.zeros((frames, per_frame), dtype=torch.bool, device=tokens.device)
        if others.size:
            taken = np.arange(per_frame)[None] < budgets[others, None]
            there = torch.zeros_like(change, dtype=torch.bool)
            stays[on_device(others, tokens.device)] = there.scatter_(1, order, on_device(taken, tokens.device))
        for f in np.flatnonzero(whole).tolist():
            stays[f, on_device(spread(int(budgets[f]), per_frame), tokens.device)] = True
        keep = stays.flatten().nonzero().squeeze(1)
        pruned = 1 - float(budgets[others].mean()) / per_frame if others.size else 0.0
        return Choice(
            plan=MergePlan.selection(keep, count_in=frames * per_frame),
            frame_budgets=budgets,
            diagnostics={"K": pruned, "window": float(window)},
        )

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`.

        Pairs of frames are pruned by the similarities of the pair before them, the first pair by those of the last;
        the second loop ends one window early, tokens leave in order of similarity, and an odd last frame is lost.
        """
        frames, per_frame, _ = tokens.shape
        if frames <= WINDOW:
            raise ConfigError(f"the released code fails on {frames} frames; it takes at least {WINDOW + 1}")
        kept = int((1 - (DEFAULT_K if self.K is None else self.K)) * per_frame)
        wide = tokens.float()
        pairs = frames // 2
        first, second = wide[0 : 2 * pairs : 2], wide[1 : 2 * pairs : 2]
        similarity = functional.cosine_similarity(
            functional.normalize(first, p=2, dim=2), functional.normalize(second, p=2, dim=2), dim=2
        )
        everything = torch.arange(per_frame, device=tokens.device)
        emitted: list[Tensor] = []
        for pair in range(pairs):
            chosen = similarity[pair - 1].topk(kept, largest=False).indices
            emitted += [2 * pair * per_frame + everything, (2 * pair + 1) * per_frame + chosen]
        for start in range(0, frames - WINDOW, WINDOW):
            between = functional.cosine_similarity(wide[start], wide[start + 2], dim=1)
            chosen = between.topk(kept, largest=False).indices
            emitted[start + 2] = (start + 2) * per_frame + chosen
        return Rows.selection(torch.cat(emitted), count_in=frames * per_frame)
