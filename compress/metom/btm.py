"""BTM: token budgets of frames by packet size, pairing of repeated tokens, folding of the rest (MeToM)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.budget import allocate, check_retention, count_tokens
from compress.errors import ConfigError, ShapeError, SignalError
from compress.ops.graphs import fetch
from compress.ops.matching import (
    LARGE_TILE,
    Pairs,
    match_across_frames,
    partner_keys,
    partners_listed,
    strongest_pairs,
)
from compress.ops.similarity import check_finite, largest_sum, unit
from compress.ops.transfer import on_device, on_device_together
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import (
    Compression,
    GopKind,
    Positions,
    Signals,
    VideoSignals,
    check_signal,
    check_tokens,
)

M_MIN_SHARE = 0.25
"""Share of the mean frame budget that every frame gets by default."""

FOLD_TILE = 2**23
"""Elements of padded core tokens that a processor holds at a time while folding: 32 MB in float32."""

LARGE_FOLD_TILE = 2**26
"""The same for an accelerator, which prefers few large tiles."""

Fold = Literal["mean", "size", "core"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Coreset:
    """Core tokens and the rows that they merge into.

    Attributes:
        token: int64 (M,), flat index of each core token.
        row: int64 (M,), the row that it counts in.
        weight: float32 (M,), what it counts for there.
        keep: int64 (M',), ascending, the token whose position each row takes.
    """

    token: NDArray[np.int64]
    row: NDArray[np.int64]
    weight: NDArray[np.float32]
    keep: NDArray[np.int64]

    @staticmethod
    def of(token: NDArray[np.int64]) -> Coreset:
        """Put every token in a row of its own."""
        return Coreset(token=token, row=np.arange(len(token)), weight=np.ones(len(token), np.float32), keep=token)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64 (M',), core tokens of each row."""
        return np.bincount(self.row, minlength=len(self.keep))

    def merged(self, pairs: Pairs) -> Coreset:
        """Merge pairs of rows into the first of each, as the mean of the two."""
        stays = np.ones(len(self.keep), dtype=bool)
        stays[pairs.second] = False
        place = np.cumsum(stays) - 1
        place[pairs.second] = place[pairs.first]
        share = np.ones(len(self.keep), np.float32)
        share[pairs.first] = share[pairs.second] = 0.5
        return Coreset(
            token=self.token,
            row=place[self.row],
            weight=self.weight * share[self.row],
            keep=self.keep[stays],
        )

    def with_selected(self, extra: NDArray[np.int64]) -> Coreset:
        """Add further tokens in rows of their own."""
        keep = np.sort(np.concatenate((self.keep, extra)))
        return Coreset(
            token=np.concatenate((self.token, extra)),
            row=np.concatenate((np.searchsorted(keep, self.keep)[self.row], np.searchsorted(keep, extra))),
            weight=np.concatenate((self.weight, np.ones(len(extra), np.float32))),
            keep=keep,
        )

    def in_rows(self) -> Coreset:
        """Return the same with the tokens of each row together, ascending."""
        order = np.lexsort((self.token, self.row))
        return Coreset(token=self.token[order], row=self.row[order], weight=self.weight[order], keep=self.keep)

    def plan(self, count_in: int, device: torch.device) -> MergePlan:
        """Build the plan from all tokens to the rows."""
        sorted_rows = self.in_rows()
        begin = np.concatenate(([0], np.cumsum(self.sizes)))
        keep, crow, col = on_device_together(self.keep, begin, sorted_rows.token, device=device)
        weight = on_device(sorted_rows.weight, device)
        return MergePlan(keep=keep, crow=crow, col=col, weight=weight, count_in=count_in)


@dataclass(frozen=True, kw_only=True)
class BTM(Attachable):
    """Budgeted temporal merging before the language model.

    Frame t gets ``m_t = m_min + (M_v - T m_min) sqrt(c_t) / sum_k sqrt(c_k)`` tokens, rounded exactly, where c_t is the
    mean packet size of its GoP. Its m_t densest tokens are its coreset. Core tokens of different frames whose cosine
    exceeds ``tau_tem`` merge in pairs, most similar first, into the earlier one. Every other token joins the
    most similar core token of its own frame. Slots that pairs freed go to further tokens, so that exactly M_v leave;
    with ``refill=False``, the letter of the paper, each pair saves one token more and M_v is an upper bound.

    Attributes:
        retention: M_v as a fraction of all tokens, in (0, 1].
        m_min: tokens that every frame gets; None for a quarter of the mean frame budget. Never more than
            floor(M_v / T).
        tau_tem: pairs have a cosine strictly above it, in [0, 1]; 1 turns pairing off.
        window: largest distance in frames of a pair; None for any. 1 makes the cost linear in the number of frames.
        rounds: passes of pairing; beyond the first, merged tokens can meet again.
        fold: a core token and what it takes in become their plain ``mean``, a mean in which a merged pair counts by its
            ``size``, or ``mu`` times the ``core`` and the rest from the mean of the others.
        mu: weight of the core token for ``fold="core"``, in [0, 1].
        refill: give slots that pairs freed to the next densest tokens of the frames that lost one; where fewer tokens
            than pairs are left, only the most similar pairs merge.
        gop: measure of c_t in `plan_frames`, see `GopKind`.
        positions: position ids of the tokens that leave.

    Raises:
        ConfigError: a field is outside its range.
    """

    retention: float = 0.3
    m_min: int | None = None
    tau_tem: float = 0.9
    window: int | None = None
    rounds: int = 1
    fold: Fold = "mean"
    mu: float = 0.6
    refill: bool = True
    gop: GopKind = "mean"
    positions: Positions = "original"

    def __post_init__(self) -> None:
        check_retention(self.retention)
        if self.m_min is not None and self.m_min < 0:
            raise ConfigError(f"m_min is {self.m_min}; it must be at least 0")
        if not 0 <= self.tau_tem <= 1:
            raise ConfigError(f"tau_tem is {self.tau_tem}; the threshold of the cosine must lie in [0, 1]")
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window is {self.window}; it must be at least 1 frame, or None for all")
        if self.rounds < 1:
            raise ConfigError(f"rounds is {self.rounds}; it must be at least 1 (tau_tem=1 turns pairing off)")
        if self.fold not in ("mean", "size", "core"):
            raise ConfigError(f"fold is {self.fold!r}; choose from 'mean', 'size' and 'core'")
        if not 0 <= self.mu <= 1:
            raise ConfigError(f"mu is {self.mu}; allowed is [0, 1]")
        if self.positions not in ("original", "contiguous"):
            raise ConfigError(f"positions is {self.positions!r}; choose from 'original' and 'contiguous'")

    def plan_frames(self, meta: VideoSignals, *, tokens_per_frame: int) -> NDArray[np.int64]:
        """Compute the tokens of each frame from metadata only.

        Args:
            meta: the video's metadata.
            tokens_per_frame: N.

        Returns:
            m_t, int64 (T,).
        """
        return self.frame_budgets(meta.gop_packet_size(kind=self.gop), tokens_per_frame=tokens_per_frame)

    def frame_budgets(self, packet_size: ArrayLike, *, tokens_per_frame: int) -> NDArray[np.int64]:
        """Compute m_t from c_t: exact, within [0, N], and never fewer for the more complex frame.

        Args:
            packet_size: c_t, (T,), at least 0.
            tokens_per_frame: N.

        Returns:
            int64 (T,), summing to M_v.
        """
        cost = np.asarray(packet_size, dtype=np.float64)
        if cost.ndim != 1 or not cost.size or tokens_per_frame < 1:
            raise ShapeError(
                f"packet_size has shape {cost.shape} for {tokens_per_frame} tokens per frame; "
                "allowed is one number per frame, and at least one of each"
            )
        if not (np.isfinite(cost).all() and (cost >= 0).all()):
            raise ConfigError("packet_size holds negative or non-finite values; all must be finite and at least 0")
        total = count_tokens(self.retention, cost.size * tokens_per_frame)
        # A floor beyond the budget would turn the formula upside down: the remainder it shares becomes negative.
        floor = int(M_MIN_SHARE * total / cost.size) if self.m_min is None else self.m_min
        base = min(floor, total // cost.size, tokens_per_frame)
        return base + allocate(np.sqrt(cost), total - base * cost.size, upper=tokens_per_frame - base)

    @planned
    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """Shorten the tokens of a video.

        Args:
            tokens: (T, N, D), any float dtype.
            signals: ``density`` (T, N) is needed; without ``packet_size`` (T,) every frame counts the same.

        Returns:
            The plan, M_v tokens (at most M_v with ``refill=False``), in (frame, raster) order.

        Raises:
            ShapeError: sizes do not match, or tokens or signals are not finite.
            SignalError: the signals lack the density.
        """
        frames, per_frame, _ = check_tokens(tokens)
        if signals.density is None:
            raise SignalError(
                "the signals lack density, which BTM ranks by; pass density=meta.density(grid) reshaped to (T, N)"
            )
        density = check_signal("density", signals.density, (frames, per_frame))
        uniform = signals.packet_size is None
        packet_size = np.ones(frames) if uniform else np.asarray(signals.packet_size, np.float64)
        if packet_size.shape != (frames,):
            raise ShapeError(f"packet_size has shape {packet_size.shape}; {frames} frames take one number each")
        budgets = self.frame_budgets(packet_size, tokens_per_frame=per_frame)

        rank = np.empty((frames, per_frame), np.int64)
        np.put_along_axis(rank, np.argsort(-density, axis=1, kind="stable"), np.arange(per_frame)[None], axis=1)
        is_core = rank < budgets[:, None]
        coreset = self._pair(tokens, np.flatnonzero(is_core), spare=frames * per_frame - int(budgets.sum()))
        pairs = len(coreset.token) - len(coreset.keep)
        if self.refill and pairs:
            lost = budgets - np.bincount(coreset.keep // per_frame, minlength=frames)
            granted = allocate(lost, pairs, upper=per_frame - budgets)
            extra = ~is_core
            is_core = rank < (budgets + granted)[:, None]
            coreset = coreset.with_selected(np.flatnonzero(is_core & extra))
        plan = self._fold(tokens, coreset, is_core)
        return Compression(
            method="btm",
            plan=plan,
            frames=frames,
            nominal=int(budgets.sum()),
            kind=on_device((coreset.sizes > 1).astype(np.uint8), tokens.device),
            kinds=("core", "pair"),
            frame_budgets=budgets,
            positions=self.positions,
            sources={
                "packet_size": "uniform (none given)" if uniform else "given",
                "density": signals.density_source,
            },
            diagnostics={
                "pairs": float(pairs),
                "dropped": float(int((~is_core).all(axis=1).sum()) * per_frame),
            },
        )

    def _pair(self, tokens: Tensor, core: NDArray[np.int64], *, spare: int) -> Coreset:
        """Merge core tokens of different frames in pairs; with refilling at most ``spare`` pairs."""
        coreset = Coreset.of(core)
        if self.tau_tem == 1 or (self.refill and not spare):
            check_finite(tokens)
            return coreset
        flat = tokens.flatten(0, 1)
        keys = self._first_partners(tokens, core)
        for turn in range(self.rounds):
            frame = coreset.keep // tokens.shape[1]
            directions = partial(self._directions, flat, coreset, turn)
            pairs = match_across_frames(
                directions, frame, threshold=self.tau_tem, window=self.window, keys=None if turn else keys
            )
            if self.refill and len(pairs.first) > spare:
                pairs = strongest_pairs(pairs, directions(), spare)
            if not len(pairs.first):
                break
            coreset = coreset.merged(pairs)
            spare -= len(pairs.first)
        return coreset

    @staticmethod
    def _directions(flat: Tensor, coreset: Coreset, turn: int) -> Tensor:
        """Return the directions of rows; before the first merge they are the core tokens themselves."""
        if turn:
            return unit(coreset.plan(len(flat), flat.device).apply(flat, dtype=torch.float32))
        return unit(flat.index_select(0, on_device(coreset.keep, flat.device)))

    def _first_partners(self, tokens: Tensor, core: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Check the tokens, on an accelerator together with listing the partners of core tokens, in one wait."""
        if tokens.device.type == "cpu" or not 1 < len(core) ** 2 <= LARGE_TILE:
            check_finite(tokens)
            return None
        there = on_device_together(core, core // tokens.shape[1], device=tokens.device)
        largest, keys = fetch(
            _list_core_partners,
            (tokens, *there),
            threshold=self.tau_tem,
            window=self.window,
            count=partners_listed(len(core)),
        )
        if not np.isfinite(largest):
            check_finite(tokens)
        return keys

    def _fold(self, tokens: Tensor, coreset: Coreset, is_core: NDArray[np.bool_]) -> MergePlan:
        """Let every other token join the most similar core token of its own frame."""
        frames, per_frame, _ = tokens.shape
        device = tokens.device
        counts = is_core.sum(axis=1)
        slots = np.zeros((frames, int(counts.max())), np.int64)
        empty = np.arange(slots.shape[1])[None] >= counts[:, None]
        slots[~empty] = coreset.row[np.argsort(coreset.token)]
        folded_here = np.flatnonzero((~is_core) & (counts > 0)[:, None])
        members = coreset.in_rows()
        slot_row, folded, core_row, col = on_device_together(
            slots, folded_here, members.row, np.concatenate((members.token, folded_here)), device=device
        )
        slot_empty = None if not empty.any() else on_device(empty, device)
        paired = coreset.plan(frames * per_frame, device)
        direction = unit(paired.apply(tokens.flatten(0, 1), dtype=torch.float32))

        tile = FOLD_TILE if device.type == "cpu" else LARGE_FOLD_TILE
        step = max(1, tile // max(1, slots.shape[1] * tokens.shape[2]))
        parts = []
        for start in range(0, frames, step):
            rows = slot_row[start : start + step]
            cosine = tokens[start : start + step].float() @ direction[rows].mT
            if slot_empty is not None:
                cosine.masked_fill_(slot_empty[start : start + step, None], -torch.inf)
            parts.append(rows.gather(1, cosine.argmax(dim=2)))
        nearest = parts[0] if len(parts) == 1 else torch.cat(parts)

        row = nearest.reshape(-1)[folded]
        taken = torch.zeros(paired.count_out, dtype=torch.float32, device=device).index_add_(
            0, row, torch.ones_like(row, dtype=torch.float32)
        )
        known = on_device(np.concatenate((members.weight, np.ones(len(folded_here), np.float32))), device)
        all_rows = torch.cat((core_row, row))
        if self.fold == "mean":
            weight = known * taken.add_(1).reciprocal_()[all_rows]
        else:
            if self.fold == "core":
                core_weight = torch.where(taken > 0, torch.full_like(taken, self.mu), 1.0)
                other_weight = (1 - self.mu) / taken.clamp_min(1)
            else:
                size = paired.sizes.float()
                core_weight, other_weight = size / (size + taken), 1 / (size + taken)
            weight = known * torch.cat((core_weight[core_row], other_weight[row]))
        return MergePlan.from_entries(all_rows, col, weight, keep=paired.keep, count_in=paired.count_in)


def _list_core_partners(
    tokens: Tensor, core: Tensor, frame: Tensor, *, threshold: float, window: int | None, count: int
) -> tuple[Tensor, Tensor]:
    """Return the `largest_sum` of all tokens, and the `partner_keys` of those with flat indices ``core``."""
    directions = unit(tokens.flatten(0, 1).index_select(0, core))
    everyone = slice(0, len(core))
    keys = partner_keys(directions, frame, everyone, everyone, threshold=threshold, window=window, count=count)
    return largest_sum(tokens), keys
