"""VisionZip: the most attended tokens of a frame, and the rest merged into a few context tokens (CVPR 2025).

The reference follows the released code (dvlab-research/VisionZip, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from compress.baselines.baseline import Choice, FrameBudgets, Published, saliency_of, saliency_source
from compress.baselines.rows import Rows
from compress.budget import round_half_up
from compress.errors import ConfigError, ShapeError
from compress.ops.similarity import unit
from compress.ops.transfer import on_device
from compress.plan import MergePlan
from compress.stage import Signals

Form = Literal["siglip", "clip"]

CONTEXT_SHARE = 10 / 64
"""Context tokens of the published setting: 54 dominant and 10 contextual."""

KINDS = ("dominant", "contextual")


@dataclass(frozen=True, kw_only=True)
class VisionZip(Published, FrameBudgets):
    """Dominant tokens by attention, contextual tokens at a uniform stride among the rest, into which the rest merges.

    The released code for CLIP keeps the class token, the first of a frame, as one of the dominant tokens; the reference
    does so where ``form`` is ``clip`` and tokens have one more place than the saliency.

    A token joins the contextual token whose attention key is most similar; without keys the tokens themselves are
    compared. Fixed, a contextual token is the mean of itself and what joins it. The released code adds the mean of
    what joins it to it, so that its norm doubles, and puts dominant before contextual tokens.

    Attributes:
        form: ``clip`` ranks by the class token's attention, ``siglip``, for encoders without one, by the mean attention
            that a token receives. It names the saliency that is expected; what was given is in the result.
        dominant: dominant tokens of a frame, and
        contextual: contextual ones, in place of ``retention``; give both or neither.
    """

    form: Form = "siglip"
    dominant: int | None = None
    contextual: int | None = None
    name: ClassVar[str] = "visionzip"
    reads: ClassVar[tuple[str, ...]] = ("saliency", "keys")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("form", ("siglip", "clip"))
        if (self.dominant is None) != (self.contextual is None):
            raise ConfigError("only one of dominant and contextual is given; give both or neither")
        if self.dominant is not None and self.frame_budget == "packets":
            raise ConfigError(
                "dominant and contextual fix the tokens of every frame; leave them out with frame_budget='packets'"
            )
        for name in ("dominant", "contextual"):
            self._check_range(name, 0, 2**31)

    @property
    def _keeps_all(self) -> bool:
        return super()._keeps_all and self.dominant is None

    def nominal(self, frames: int, per_frame: int) -> int:
        """See `Baseline.nominal`."""
        return (
            super().nominal(frames, per_frame)
            if self.dominant is None
            else int(self.own_budgets(frames, per_frame).sum())
        )

    def own_budgets(self, frames: int, per_frame: int) -> NDArray[np.int64]:
        """Return the tokens of each frame, int64 (T,)."""
        if self.dominant is None or self.contextual is None:
            return super().own_budgets(frames, per_frame)
        return np.full(frames, min(self.dominant + self.contextual, per_frame))

    def choose(self, tokens: Tensor, signals: Signals, count: int) -> Choice:
        """See `Baseline.choose`."""
        frames, per_frame, _ = tokens.shape
        budgets, sources = self.budgets(tokens, signals)
        context = np.array([self._context_of(int(budget)) for budget in budgets])
        saliency = saliency_of(tokens, signals)
        keys = _keys_of(tokens, signals)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for budget, merged in sorted(set(zip(budgets.tolist(), context.tolist(), strict=True)) - {(0, 0)}):
            mine = on_device(np.flatnonzero((budgets == budget) & (context == merged)), tokens.device)
            # On a CPU one frame at a time, which stays in its cache.
            for some in mine.tensor_split(len(mine) if tokens.device.type == "cpu" else 1):
                direction = unit(keys.index_select(0, some))
                parts.append(_merge(saliency[some], direction, budget - merged, merged, frame=some))
        anchor, member = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        dominant = torch.cat([part[2] for part in parts])
        keep = torch.cat((anchor[anchor == member], dominant)).sort().values
        row = torch.searchsorted(keep, torch.cat((anchor, dominant)))
        size = torch.zeros(len(keep), dtype=torch.float32, device=keep.device)
        size.index_add_(0, row, torch.ones_like(row, dtype=torch.float32))
        plan = MergePlan.from_entries(
            row, torch.cat((member, dominant)), 1 / size[row], keep=keep, count_in=frames * per_frame
        )
        kind = torch.ones(len(keep), dtype=torch.uint8, device=keep.device)
        kind.index_fill_(0, torch.searchsorted(keep, dominant), 0)
        return Choice(
            plan=plan,
            kind=kind,
            kinds=KINDS,
            frame_budgets=budgets,
            sources={**sources, **self._sources_of(signals)},
        )

    def released(self, tokens: Tensor, signals: Signals, noise: Tensor | None = None) -> Rows:
        """See `Published.released`."""
        frames, per_frame, _ = tokens.shape
        budget = int(self.retention * per_frame) if self.dominant is None else self.dominant + (self.contextual or 0)
        context = self._context_of(budget)
        if budget - context < 1 or context < 1 or per_frame - (budget - context) < context:
            raise ConfigError(
                f"the released code fails with {budget - context} dominant and {context} contextual of {per_frame} "
                "tokens; it takes at least one of each, and as many tokens besides the dominant ones"
            )
        saliency = self._attention(tokens, signals)
        keys = _keys_of(tokens, signals).float()
        direction = keys / keys.norm(dim=2, keepdim=True)
        parts: list[Rows] = []
        for frame in range(frames):
            mine = torch.tensor([frame], device=tokens.device)
            anchor, member, dominant = _merge(
                saliency[mine], direction[mine], budget - context, context, frame=mine, stable=False
            )
            targets = anchor[anchor == member]
            joins = anchor != member
            row = torch.searchsorted(targets, anchor)
            joined = torch.zeros(context, dtype=torch.float32, device=tokens.device)
            joined.index_add_(0, row[joins], torch.ones_like(row[joins], dtype=torch.float32))
            weight = torch.where(joins, 1 / joined.clamp_min(1)[row], 1.0)
            parts.append(Rows.selection(dominant, count_in=frames * per_frame))
            parts.append(
                Rows(keep=targets, row=row, col=member, weight=weight, count_in=frames * per_frame, stochastic=False)
            )
        return Rows.joined(parts, count_in=frames * per_frame)

    def _attention(self, tokens: Tensor, signals: Signals) -> Tensor:
        """Return the saliency of the released run; a class token that leads every frame's tokens is always dominant."""
        given = signals.saliency
        if self.form == "clip" and given is not None and given.shape[1] + 1 == tokens.shape[1]:
            patches = saliency_of(tokens[:, 1:], signals)
            return functional.pad(patches, (1, 0), value=torch.inf)
        return saliency_of(tokens, signals)

    def _context_of(self, budget: int) -> int:
        if self.dominant is not None and self.contextual is not None:
            return min(self.contextual, max(budget - self.dominant, 0))
        return round_half_up(CONTEXT_SHARE * budget) if budget > 1 else 0

    def _sources_of(self, signals: Signals) -> dict[str, str]:
        named = saliency_source(signals)
        if self.form == "clip" and signals.saliency is not None and "class" not in named and named != "given":
            named = f"{named} (no class token)"
        return {"saliency": named, "keys": "tokens (none given)" if signals.keys is None else "given"}


def _keys_of(tokens: Tensor, signals: Signals) -> Tensor:
    """Return what contextual tokens are compared by, (T, N, Dk)."""
    if signals.keys is None:
        return tokens
    keys = signals.keys.detach().to(tokens.device)
    if keys.dim() != 3 or keys.shape[:2] != tokens.shape[:2]:
        raise ShapeError(f"keys have shape {tuple(keys.shape)}; these tokens take {(*tokens.shape[:2], 'Dk')}")
    return keys


def _merge(
    saliency: Tensor, direction: Tensor, dominant: int, context: int, *, frame: Tensor, stable: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Select dominant tokens, and find the contextual token that each of the rest joins, as flat indices.

    Args:
        saliency: (F, N).
        direction: float32 (F, N, Dk), unit rows.
        dominant: tokens of a frame.
        context: tokens of a frame.
        frame: int64 (F,), which frames these are.
        stable: break ties by position.

    Returns:
        For every token that is not dominant its contextual token, and itself; the dominant ones in raster order. Where
        ``context`` is 0 the first two are empty.
    """
    frames, per_frame = saliency.shape
    base = frame[:, None] * per_frame
    if stable:
        top = saliency.sort(dim=1, descending=True, stable=True).indices[:, :dominant]
    else:
        top = saliency.topk(dominant, dim=1).indices
    is_rest = torch.ones((frames, per_frame), dtype=torch.bool, device=saliency.device).scatter_(1, top, False)
    chosen = (base + top.sort(dim=1).values).flatten()
    if not context:
        return chosen[:0], chosen[:0], chosen
    left = per_frame - dominant
    rest = torch.arange(per_frame, device=saliency.device).expand(frames, -1)[is_rest].view(frames, left)
    step = max(1, left // context)
    target = torch.arange(0, left, step, device=saliency.device)[:context]
    place = rest[:, target]
    towards = direction.gather(1, place[..., None].expand(-1, -1, direction.shape[2]))
    nearest = (direction @ towards.mT).argmax(dim=2).gather(1, rest)
    nearest[:, target] = torch.arange(context, device=saliency.device)
    anchor = rest.gather(1, target[nearest])
    return (base + anchor).flatten(), (base + rest).flatten(), chosen
