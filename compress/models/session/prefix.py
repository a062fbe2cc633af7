"""Contents of a cache: lengths, masks and positions of shortened prompts and of what followed them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor

from compress.errors import ConfigError, ShapeError

_PREFIX: Final = "_compress_prefix"
"""The attribute of a cache that describes its contents; copies of the cache have copies of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Columns in the caches of the layers after a cut inside the language model, up to the end of the last prompt.

    Attributes:
        width: their number.
        mask: bool (B, width), False for padding; None without any.
    """

    width: int
    mask: Tensor | None


@dataclass(kw_only=True, eq=False)
class Prefix:
    """The part of a conversation that lies in a cache, up to the end of its last prompt.

    Text that followed the prompt needs no description: it lies in the cache column by column.

    Attributes:
        session: in which the cache was filled.
        ids: int64 (B, ...), the conversation as it was given, and text that followed.
        length: columns of the conversation as it was given.
        width: columns of it in the cache of the first layers; the rest was merged into others.
        mask: bool (B, width), False for padding; None without any.
        plain: columns before the first that was shortened, where none is padding.
        tail: columns of text at its end.
        following: (..., B), position id of text that follows in one prompt: after the last position, and after a video
            after the larger of its rows and columns, as M-RoPE counts prompts.
        beyond: (..., B), the same after the largest of all positions, as M-RoPE counts further steps.
        given: (..., B), the next of the caller's position ids, if any were passed.
        seen: per row, videos.
        inner: columns in the layers after each cut inside the language model.
        visual: per row, columns of visual tokens in the layers after the last cut; none where nobody asks.
    """

    session: weakref.ref[Any]
    ids: Tensor
    length: int
    width: int
    mask: Tensor | None
    plain: int
    tail: int
    following: Tensor
    beyond: Tensor
    given: Tensor | None
    seen: list[int]
    inner: tuple[Columns, ...] = ()
    visual: list[Tensor] = field(default_factory=list)
    _counts_alike: bool | None = None
    _last_counted_beyond: bool = False

    @property
    def removed(self) -> int:
        """Columns by which the cache is shorter than the conversation."""
        return self.length - self.width

    def bind(self, cache: Any) -> None:
        """Attach this description to a cache."""
        setattr(cache, _PREFIX, self)

    def for_rows(self, rows: int) -> Prefix:
        """Repeat the description where every row of the cache was repeated for beams or samples.

        Raises:
            ConfigError: the rows are not a multiple.
        """
        repeats, rest = divmod(rows, len(self.ids))
        if repeats == 1 and not rest:
            return self
        if rest or not repeats:
            raise ConfigError(f"the cache was filled with {len(self.ids)} rows; {rows} rows cannot follow")

        def repeat(values: Tensor | None, dim: int) -> Any:
            return None if values is None else values.repeat_interleave(repeats, dim=dim)

        return replace(
            self,
            ids=repeat(self.ids, 0),
            mask=repeat(self.mask, 0),
            following=repeat(self.following, -1),
            beyond=repeat(self.beyond, -1),
            given=repeat(self.given, -1),
            seen=[count for count in self.seen for _ in range(repeats)],
            inner=tuple(Columns(width=one.width, mask=repeat(one.mask, 0)) for one in self.inner),
            visual=[columns for columns in self.visual for _ in range(repeats)],
        )

    def cut(self, past: int, inner_past: Sequence[int]) -> Prefix:
        """Shorten the description where the cache was cut back to ``past`` columns.

        Args:
            past: columns in the first layers.
            inner_past: in the layers after each cut inside the language model.

        Raises:
            ConfigError: it was cut inside what was shortened.
        """
        added = past - self.width
        if added >= -self.tail and list(inner_past) == [one.width + added for one in self.inner]:
            return self if added >= 0 else self._without_last(-added)
        if past <= self.plain and all(one == past for one in inner_past):
            first = torch.full_like(self.following, past)
            return replace(
                self,
                ids=self.ids[:, :past],
                length=past,
                width=past,
                mask=None,
                plain=past,
                tail=past,
                following=first,
                beyond=first,
                given=None,
                seen=[0] * len(self.ids),
                inner=tuple(Columns(width=past, mask=None) for _ in inner_past),
                visual=[columns[:0] for columns in self.visual],
                _counts_alike=True,
            )
        raise ConfigError(
            f"this cache was cut back to {past} columns, within a shortened prompt (text before its first video: "
            f"{self.plain} columns, all of it: {self.width}); cut it at the end of a turn, or begin with the whole "
            "prompt"
        )

    def _without_last(self, count: int) -> Prefix:
        """Remove the last columns of text, for example rejected drafts."""
        return replace(
            self,
            ids=self.ids[:, : self.length - count],
            length=self.length - count,
            width=self.width - count,
            mask=None if self.mask is None else self.mask[:, :-count],
            plain=min(self.plain, self.width - count),
            tail=self.tail - count,
            following=self.following - count,
            beyond=self.beyond - count,
            given=None if self.given is None else self.given - count,
            inner=tuple(
                Columns(width=one.width - count, mask=None if one.mask is None else one.mask[:, :-count])
                for one in self.inner
            ),
        )

    def next_positions(self, past: int, count: int, given: Tensor | None) -> Tensor:
        """Compute position ids (..., B, count) of text that follows ``past`` cached tokens.

        Transformers counts in two ways after a video whose frames outnumber its rows and columns. The positions
        of `generate` are used where it continues the prompt, and the count of the model itself elsewhere.

        Args:
            past: columns in the cache.
            count: new tokens.
            given: position ids by the caller; None where the model counts.
        """
        tail = past - self.width
        if self._counts_alike is None:
            self._counts_alike = torch.equal(self.following, self.beyond)
        if not self._counts_alike:
            self._last_counted_beyond = (
                given is None
                or self.given is None
                or given[..., 0].shape != self.given.shape
                or not torch.equal(given[..., 0], self.given + tail)
            )
        start = self.beyond if self._last_counted_beyond else self.following
        return (start + tail)[..., None] + torch.arange(count, device=start.device)

    def next_start(self, past: int) -> Tensor:
        """Compute position ids (..., B) at which a prompt after ``past`` cached tokens begins, as in one prompt."""
        return (self.beyond if self._last_counted_beyond else self.following) + (past - self.width)

    def cached_mask(self, given: Tensor | None, past: int, count: int, *, cut: int | None = None) -> Tensor | None:
        """Return the mask over what is cached, bool (B, columns); None without padding.

        Args:
            given: the mask by the caller, of which the last ``count`` columns are new.
            past: columns in the cache of the first layers.
            count: new tokens, before they are shortened.
            cut: over the cache of the layers after this cut inside the language model; None for the first layers.
        """
        mask, width = self.mask, self.width
        if cut is not None and self.inner:
            mask, width = self.inner[cut].mask, self.inner[cut].width
        if mask is None and given is None:
            return None
        rows, tail = len(self.ids), past - self.width
        head = torch.ones(rows, width, dtype=torch.bool, device=self.ids.device) if mask is None else mask
        if not tail:
            return head
        if given is None:
            return torch.cat((head, head.new_ones(rows, tail)), dim=1)
        stop = given.shape[1] - count
        return torch.cat((head, given[:, stop - tail : stop].bool().to(head.device)), dim=1)

    def whole_mask(self, given: Tensor | None, past: int, count: int) -> Tensor | None:
        """Build the 2-D mask over what is cached and ``count`` tokens of text after it; None without padding."""
        cached = self.cached_mask(given, past, count)
        if cached is None:
            return None
        new = cached.new_ones(len(cached), count) if given is None else given[:, -count:].bool().to(cached.device)
        return torch.cat((cached, new), dim=1)

    def fed(self, past: int) -> Tensor:
        """Return the ids of what lies in the cache, as they were given, int64 (B, ...)."""
        return self.ids[:, : self.length + past - self.width]

    def feed(self, ids: Tensor, past: int, *, video_token: int, with_videos: bool) -> None:
        """Note ids that follow ``past`` cached columns.

        Raises:
            ConfigError: they repeat what the cache holds, because they were cut from the whole conversation at the
                cache's length.
            ShapeError: they hold placeholders without a video.
        """
        seen = self.fed(past)
        repeated = seen[:, past:]
        bare = not with_videos and ids.shape[1] > 1 and bool((ids == video_token).any())
        if bare and not self.removed:
            raise ShapeError(
                "video placeholders follow a cache, but no video was passed; pass pixel_values_videos with the "
                "ids of that turn (transformers below 5.24 drops them where prefill_chunk_size splits a prompt)"
            )
        if self.removed and (bare or (ids.shape[1] > self.removed and torch.equal(ids[:, : self.removed], repeated))):
            raise ConfigError(
                "the whole conversation was passed over a shortened cache, so that its end would be fed twice; "
                "pass only the new ids with an attention mask of cache length + new ids, or use session.chat()"
            )
        if not with_videos:
            self.ids = torch.cat((seen, ids), dim=1)


def prefix_of(cache: Any, session: object) -> Prefix | None:
    """Return the description of a cache; None unless this session filled it."""
    prefix: Prefix | None = getattr(cache, _PREFIX, None)
    return None if prefix is None or prefix.session() is not session else prefix
