"""DivPrune: the subset whose closest two tokens are farthest apart, greedily (CVPR 2025).

Written from the paper's description; its code is CC BY-NC 4.0 and was not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compress.baselines.baseline import Choice, Published
from compress.baselines.rows import Rows
from compress.ops.greedy import pick_greedily
from compress.ops.pairwise import Pairwise
from compress.ops.similarity import unit
from compress.plan import MergePlan
from compress.stage import Signals


@dataclass(frozen=True, kw_only=True)
class DivPrune(Published):
    """Greedy max-min diversity by cosine distance over all tokens of the video.

    The first token is the one whose nearest neighbour is farthest; each further one is the farthest from those that are
    already chosen. Chosen tokens are set aside; the released code leaves them in, so that it repeats tokens once only
    duplicates are left.
    """

    retention: float = 0.098
    name: ClassVar[str] = "divprune"

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        picked = _pick(unit(tokens).flatten(0, 1), count, repeat=False)
        plan = MergePlan.selection(picked.sort().values, count_in=tokens.shape[0] * tokens.shape[1])
        return Choice(plan=plan)

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`."""
        flat = tokens.float().flatten(0, 1)
        picked = _pick(flat / flat.norm(dim=1, keepdim=True), max(1, int(self.retention * len(flat))), repeat=True)
        return Rows.selection(picked.sort().values, count_in=len(flat))


def _pick(direction: Tensor, count: int, *, repeat: bool) -> Tensor:
    """Pick tokens, int64 (count,), in the order in which they are chosen (ties: lower index).

    Args:
        direction: float32 (V, D), unit rows.
        count: at least 1.
        repeat: leave chosen tokens among the candidates.
    """
    distances = Pairwise(
        lambda rows, start: 1 - direction[rows] @ direction[start:].T, len(direction), direction.device
    )
    return pick_greedily(distances, count, combine="least", repeat=repeat)
