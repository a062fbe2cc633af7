"""What a shortened prompt leaves behind for the steps that follow: lengths, masks, positions."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compress.errors import ConfigError


@dataclass(kw_only=True, eq=False)
class Prefix:
    """A prompt whose tokens lie in a cache, fewer of them than were given.

    Attributes:
        ids: int64 (B, S), the prompt as it was given and what was fed since.
        given: S of the prompt.
        width: S1, columns of the shortened prompt in the first layers.
        mask: bool (B, S1), False for padding; None without any.
        positions: (..., B, S1), position ids of the shortened prompt.
        visual: per row, places of visual tokens among the S1.
        text_from: per row, where the text after the last visual token begins.
        drafted: tokens at the end of the prompt that are guesses of an assistant, which attention is not asked of.
        inner_width: columns in the layers after the merge; None before there was one.
        inner_mask: bool (B, inner_width), likewise.
    """

    ids: Tensor
    given: int
    width: int
    mask: Tensor | None
    positions: Tensor
    visual: list[Tensor]
    text_from: list[int]
    drafted: int = 0
    inner_width: int | None = None
    inner_mask: Tensor | None = None
    _cache: weakref.ref[Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # M-RoPE continues after the largest of its three axes, and the row of text positions after itself.
        last = self.positions.amax(dim=-1)
        if last.dim() == 2 and last.shape[0] in (3, 4):
            axes = last[-3:].amax(dim=0, keepdim=True).expand(3, -1)
            last = torch.cat((last[:-3], axes))
        self._offset = last + 1 - self.width

    @property
    def removed(self) -> int:
        """Columns by which the cache is shorter than the prompt."""
        return self.given - self.width

    def bind(self, cache: Any) -> None:
        """Remember the cache that holds this prompt."""
        self._cache = None if cache is None else weakref.ref(cache)

    def holds(self, cache: Any) -> bool:
        """Whether this cache holds this prompt."""
        return self._cache is not None and self._cache() is cache

    def next_positions(self, past: int, count: int) -> Tensor:
        """Position ids (..., B, count) of what follows ``past`` cached tokens."""
        step = torch.arange(past, past + count, device=self._offset.device)
        return self._offset[..., None] + step

    def next_mask(self, given: Tensor | None, past: int, count: int) -> Tensor | None:
        """The 2-D mask over cache and new tokens in the first layers, from that over the prompt as it was given."""
        return self._extend(self.mask, self.width, given, past, count)

    def next_inner_mask(self, given: Tensor | None, past: int, count: int) -> Tensor | None:
        """The same in the layers after the merge; ``past`` counts cached tokens of the first layers."""
        assert self.inner_width is not None  # only asked for once there is one
        return self._extend(self.inner_mask, self.inner_width, given, past, count)

    def _extend(self, mask: Tensor | None, width: int, given: Tensor | None, past: int, count: int) -> Tensor | None:
        if mask is None and given is None:
            return None
        tail = past - self.width + count
        rows = len(self.ids)
        head = torch.ones(rows, width, dtype=torch.bool, device=self.ids.device) if mask is None else mask
        if given is None:
            new = torch.ones(rows, tail, dtype=torch.bool, device=head.device)
        else:
            new = given[:, given.shape[1] - tail :].bool()
        return torch.cat((head, new), dim=1)

    def feed(self, ids: Tensor, past: int, *, video_token: int) -> None:
        """Note tokens that follow ``past`` cached ones.

        Raises:
            ConfigError: they repeat what the cache holds, because they were cut from the full prompt at its length.
        """
        seen = self.ids[:, : self.given + past - self.width]
        repeated = seen[:, past:]
        if self.removed and (
            bool((ids == video_token).any())
            or (ids.shape[1] > self.removed and torch.equal(ids[:, : self.removed], repeated))
        ):
            raise ConfigError(
                "the whole conversation was passed over a shortened cache, so that its end would be fed twice; "
                "pass only the new ids with an attention mask of cache length + new ids, or use session.chat()"
            )
        self.ids = torch.cat((seen, ids), dim=1)
