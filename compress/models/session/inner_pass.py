"""One forward pass through a decoder in which visual tokens leave: what each part of it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compress.models.session.prefix import Columns, Prefix
from compress.models.session.rows import RowSelection
from compress.plan import MergePlan
from compress.stage import Compression


@dataclass(kw_only=True, eq=False)
class InnerPass:
    """One pass, over a prompt or over what follows it. Cuts divide the decoder into parts; the first is before them.

    Attributes:
        prefix: what the cache holds after it, or, for text that follows, before it.
        cached: columns in the cache of each part.
        cached_masks: bool (B, columns), the same of each part, False for padding; None without any.
        new_mask: bool (B, columns), over what is new in the present part; None without padding.
        prompt: whether it is over a prompt, whose tokens merge.
        drafted: tokens at the end that are guesses of an assistant, whose attention does not count.
        visual: per row of a prompt, places of visual tokens among what is new in the present part.
        place: per row, int64 (n, 4), video, frame, row and column of each of them; empty if nobody asks.
        grids: per row, rows and columns of the frames of its videos.
        kinds: per row, uint8 (n,), kind of each of them and the kinds' names, see `InnerTokens`.
        text_from: per row, where the text after them begins.
        lengths: per row, tokens of the present part, without padding.
        part: the present part.
        kept: per row, the places that stay, among the columns of the first part.
        results: per row with visual tokens, what was merged in all cuts so far.
        counts: per such row, visual tokens of each part.
        scores: (cut, layer) -> scores per row.
        replaced: arguments of the layers of the present part.
    """

    prefix: Prefix
    cached: Sequence[int]
    cached_masks: Sequence[Tensor | None]
    new_mask: Tensor | None
    prompt: bool
    drafted: int = 0
    visual: list[Tensor] = field(default_factory=list)
    place: list[Tensor] = field(default_factory=list)
    grids: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    kinds: list[tuple[Tensor | None, tuple[str, ...]]] = field(default_factory=list)
    text_from: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    part: int = 0
    kept: list[Tensor] | None = None
    results: dict[int, Compression] = field(default_factory=dict)
    counts: dict[int, list[int]] = field(default_factory=dict)
    scores: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)
    replaced: dict[str, Any] = field(default_factory=dict)
    probing: bool = False

    def mask(self, new: Tensor | None, count: int, part: int) -> Tensor | None:
        """Build the 2-D mask of a part: over its cache, and over ``count`` new tokens; None without padding."""
        head = self.cached_masks[part]
        if head is None and new is None:
            return None
        rows, device = len(self.prefix.ids), self.prefix.ids.device

        def ones(columns: int) -> Tensor:
            return torch.ones(rows, columns, dtype=torch.bool, device=device)

        head = ones(self.cached[part]) if head is None else head
        return torch.cat((head, (ones(count) if new is None else new).to(head.device)), dim=1)

    def real_keys(self, row: int, count: int) -> Tensor | None:
        """Return which keys of a row are tokens in the present part, bool (columns,); None without padding."""
        mask = self.mask(self.new_mask, count, self.part)
        return None if mask is None else mask[row]

    def places(self, row: int, width: int, device: torch.device) -> Tensor:
        """List the columns of a row's tokens among the ``width`` new ones, without padding on the left."""
        return torch.arange(width - self.lengths[row], width, device=device)

    def contiguous_positions(self, new: Tensor | None, count: int, device: torch.device) -> Tensor:
        """Count the tokens of the present part before each new one, int64 (B, count)."""
        head = self.cached_masks[self.part]
        rows = len(self.prefix.ids)
        before = torch.full((rows, 1), self.cached[self.part], device=device)
        if head is not None:
            before = head.sum(dim=1, keepdim=True).to(device)
        if new is None:
            return before + torch.arange(count, device=device)
        return before + (new.to(device).long().cumsum(dim=1) - 1).clamp_min(0)

    def account(self, row: int, compression: Compression) -> None:
        """Add what a cut did to a row."""
        if row not in self.results:
            self.results[row], self.counts[row] = compression, [compression.plan.count_in, compression.achieved]
            return
        before = self.results[row]
        plan: MergePlan = compression.plan.compose(before.plan.to(compression.plan.keep.device))
        self.results[row] = Compression(
            method=compression.method,
            plan=plan,
            frames=before.frames,
            nominal=compression.nominal,
            sources={**before.sources, **compression.sources},
            diagnostics={**before.diagnostics, **compression.diagnostics},
        )
        self.counts[row].append(compression.achieved)

    def enter_part(self, kept: list[Tensor], selection: RowSelection, width: int) -> None:
        """Go on to the next part, in which the places ``kept`` among ``width`` columns are left."""
        device = selection.index.device
        if self.kept is None:
            self.kept = kept
        else:
            self.kept = [
                before.index_select(0, places - (width - len(before)))
                for before, places in zip(self.kept, kept, strict=True)
            ]
        self.text_from = [selection.length - (width - start) for start in self.text_from]
        self.visual = [
            torch.searchsorted(places, visual.to(device)) + (selection.length - len(places))
            for places, visual in zip(kept, self.visual, strict=True)
        ]
        self.lengths = [len(places) for places in kept]
        self.part += 1
        self.new_mask = selection.real
        mask = self.mask(selection.real, selection.length, self.part)
        columns = Columns(width=self.cached[self.part] + selection.length, mask=mask)
        self.prefix.inner = (*self.prefix.inner[: self.part - 1], columns)
