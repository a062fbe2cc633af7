"""Calls: the state of one forward pass, and of one `generate`, of one thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compress.errors import ConfigError
from compress.models.session.encoding import EncodedVideo
from compress.models.session.kv_cache import CACHE


@dataclass(kw_only=True, eq=False)
class Generation:
    """A call of `generate`, which encodes videos before any forward pass, and feeds prompts in chunks.

    Attributes:
        ids: of the prompt, before beams repeat it; None where it begins otherwise.
        inputs: its arguments.
        videos: those that were encoded or passed for it.
        seen: per row, videos that were in the cache before.
        fed: columns that had been fed to that cache.
    """

    ids: Tensor | None
    inputs: Mapping[str, Any]
    videos: list[EncodedVideo] | None = None
    seen: Sequence[int] = ()
    fed: int = 0

    @property
    def rows(self) -> int:
        """Rows of the prompt; 0 where they are not known."""
        return 0 if self.ids is None else self.ids.shape[0]


@dataclass(kw_only=True, eq=False)
class WantedLogits:
    """Columns of the prompt whose logits are wanted, by their places before it is shortened.

    Attributes:
        given: int64 (n,), or how many at the end.
        places: what the model slices by; filled in once it is known what stays.
    """

    given: Tensor | int
    places: Tensor | None = None

    @staticmethod
    def of(given: Any) -> WantedLogits | None:
        """Read ``logits_to_keep``; None where all are wanted."""
        if isinstance(given, Tensor):
            if given.dtype == torch.bool:
                given = given.nonzero().flatten()
            return WantedLogits(given=given, places=given.clone())
        return WantedLogits(given=given) if given else None

    @property
    def last(self) -> int:
        """Number of columns wanted at the end."""
        return self.given if isinstance(self.given, int) else 0

    def check_tail(self, tail: int) -> None:
        """Raise ConfigError unless all columns that are counted from the end are still there."""
        if self.last > tail:
            raise ConfigError(
                f"logits_to_keep is {self.last}, but only the last {tail} tokens of the shortened prompt stand where "
                "they stood; ask for fewer, or name columns of the whole prompt by a tensor"
            )

    def fill(self, kept: Sequence[Tensor], width: int) -> None:
        """Find the wanted columns among those that stay.

        Args:
            kept: per row, int64, ascending: the columns that stay, padding on the left left out.
            width: columns before.

        Raises:
            ConfigError: one was merged away, rows keep different columns, or a number fits both prompts.
        """
        if not isinstance(self.given, Tensor) or self.places is None:
            return
        wanted = torch.where(self.given < 0, self.given + width, self.given)
        longest = max(map(len, kept))
        places = [torch.searchsorted(row, wanted.to(row.device)) + (longest - len(row)) for row in kept]
        found = [
            row[(place - (longest - len(row))).clamp(max=len(row) - 1)] for row, place in zip(kept, places, strict=True)
        ]
        if any(not torch.equal(one, wanted.to(one.device)) for one in found):
            raise ConfigError(
                f"logits_to_keep names columns {self.given.tolist()}, some of which were merged into others; "
                "name columns of text only"
            )
        if any(not torch.equal(place, places[0]) for place in places):
            raise ConfigError(
                "logits_to_keep names columns that stand at different places in rows of the shortened batch; "
                "ask row by row, or give a number of columns at the end"
            )
        ambiguous = (self.given >= 0) & (self.given < longest) & (places[0].to(self.given.device) != self.given)
        if bool(ambiguous.any()):
            raise ConfigError(
                f"logits_to_keep names columns {self.given[ambiguous].tolist()}, which the prompt of {width} columns "
                f"and the shortened one of {longest} both have, at different places; count from the end: -1 is the last"
            )
        self.places.copy_(places[0])


@dataclass(kw_only=True, eq=False)
class Call:
    """One forward pass.

    Attributes:
        wanted: columns that logits are asked of.
        inputs: arguments of the core.
        generation: the `generate` that it is part of, if any.
        videos: those that were encoded within it.
        kept: per row, the columns that stay, where a prompt was read.
        inside: what the merge inside the language model needs and finds.
        step: the same of a decoding step that reads part of the cache.
        visual: per row of a prompt, places of visual tokens among what is new.
        past: columns in the cache of the first layers before a prompt.
        prefix: what the cache holds after it.
    """

    wanted: WantedLogits | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    generation: Generation | None = None
    videos: list[EncodedVideo] | None = None
    kept: list[Tensor] | None = None
    inside: Any = None
    step: Any = None
    visual: list[Tensor] | None = None
    past: int = 0
    prefix: Any = None

    @property
    def ids(self) -> Tensor | None:
        """int64 (B, S), what is fed."""
        return self.inputs.get("input_ids")

    @property
    def features(self) -> Any:
        """Features of videos that are passed in; None where there are none."""
        return (self.inputs.get("mm_encoder_outputs") or {}).get("video")

    @property
    def has_videos(self) -> bool:
        """Whether videos come with it."""
        return self.features is not None or self.inputs.get("pixel_values_videos") is not None

    @property
    def has_images(self) -> bool:
        """Whether images come with it."""
        encoded = (self.inputs.get("mm_encoder_outputs") or {}).get("image")
        return encoded is not None or self.inputs.get("pixel_values") is not None

    @property
    def cache(self) -> Any:
        """The cache that it is given."""
        return self.inputs.get(CACHE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """A prompt that is read without a cache, again for every further token.

    Attributes:
        ids: int64 (B, S), as it was read first.
        width: columns when it was last read.
    """

    ids: Tensor
    width: int

    def continues(self, ids: Tensor) -> bool:
        """Return whether this is the same prompt and one more token than before."""
        rows, first = self.ids.shape
        return ids.shape == (rows, self.width + 1) and torch.equal(ids[:, :first], self.ids)


class Calls(threading.local):
    """Calls of a model that the current thread is making.

    Attributes:
        wanted: columns that logits are asked of by the forward pass that begins.
        current: the forward pass, from the core's call on.
        generation: its `generate`.
        reading: the last prompt that was read without a cache.
        ends_at_the_language_model: the forward pass is to give what the language model would be given, no more.
    """

    wanted: WantedLogits | None = None
    current: Call | None = None
    generation: Generation | None = None
    reading: Reading | None = None
    ends_at_the_language_model: bool = False
