"""Shortening of a prompt and its parts: positions, masks, DeepStack planes, and where its visual tokens lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.errors import ConfigError
from compress.models.adapters.adapter import VideoTokens
from compress.models.session.kv_cache import CACHE
from compress.models.session.prefix import Prefix
from compress.models.session.rows import RowSelection, places_of, real_places
from compress.plan import MergePlan
from compress.stage import Compression


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A prompt, or a later turn with a video, as it reaches the language model.

    Attributes:
        kwargs: arguments of the language model.
        ids: int64 (B, S).
        videos: where the videos lie.
        compressions: what was merged of each; None for nothing.
        prefix: what lies in the cache before it; None for nothing.
        past: columns of that in the first layers.
        positions: (..., B, S), position ids; None for one after the other from 0.
    """

    kwargs: Mapping[str, Any]
    ids: Tensor
    videos: Sequence[VideoTokens]
    compressions: Sequence[Compression | None]
    prefix: Prefix | None
    past: int
    positions: Tensor | None

    @property
    def mask(self) -> Tensor | None:
        """The mask over it, (B, S), 0 for padding.

        Raises:
            ConfigError: the mask has other dimensions.
        """
        given: Tensor | None = self.kwargs.get("attention_mask")
        if given is None:
            return None
        if given.dim() != 2:
            raise ConfigError(f"attention_mask has {given.dim()} dimensions; give two, (batch, length)")
        return given[:, -self.ids.shape[1] :]

    def changes(self, device: torch.device) -> list[tuple[VideoTokens, MergePlan]]:
        """List the videos whose tokens merge, and how."""
        return [
            (video, compression.plan.to(device))
            for video, compression in zip(self.videos, self.compressions, strict=True)
            if compression is not None and not compression.plan.keeps_all
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shortened:
    """A shortened prompt.

    Attributes:
        kwargs: arguments of the language model.
        selection: which columns stay.
        kept: the same per row, without padding.
        positions: (..., B, L), position ids.
        visual: per row, places of visual tokens among the L columns.
        text_from: per row, where the text after them begins.
    """

    kwargs: dict[str, Any]
    selection: RowSelection
    kept: list[Tensor]
    positions: Tensor
    visual: list[Tensor]
    text_from: list[int]


def shorten_prompt(prompt: Prompt, *, visual: bool) -> Shortened:
    """Build the arguments of the language model with the tokens of videos merged and the gaps closed.

    Args:
        prompt: as it was given.
        visual: whether a merge inside the language model follows, which needs the places of visual tokens.

    Raises:
        ConfigError: the mask or the positions cannot be shortened.
    """
    kwargs, mask, embeddings = prompt.kwargs, prompt.mask, prompt.kwargs["inputs_embeds"]
    rows, width = embeddings.shape[:2]
    device = embeddings.device
    changes = prompt.changes(device)
    real = real_places(mask, rows=rows, width=width, device=device)
    kept = _kept_places(changes, real, width, device)
    selection = RowSelection.of(kept)
    untouched = not changes and selection.length == width

    def shorten(values: Tensor) -> Tensor:
        if untouched:
            return values
        if changes:
            values = values.clone()
        for video, plan in changes:
            values[video.row, video.index[plan.keep]] = plan.apply(video.of(values))
        return selection.take(values)

    if untouched and prompt.positions is not None:
        positions = prompt.positions
    else:
        positions = place_positions(prompt.positions, selection, real, prompt.compressions, width, device)
    short = {**kwargs, "inputs_embeds": shorten(embeddings), "position_ids": positions}
    if not untouched:
        short |= shorten_deepstack(kwargs, shorten, selection)
    if prompt.prefix is not None:
        short["attention_mask"] = _whole_mask(
            prompt.prefix, prompt.past, kwargs.get("attention_mask"), selection, width
        )
    elif not untouched:
        if selection.real is not None:
            short["attention_mask"] = selection.real.to(torch.int64 if mask is None else mask.dtype)
        elif mask is not None:
            short["attention_mask"] = selection.take(mask.to(device))
        elif kwargs.get(CACHE) is None and not kwargs.get("use_cache"):
            # Gaps between positions would be read as several packed sequences.
            short["attention_mask"] = torch.ones(rows, selection.length, dtype=torch.int64, device=device)
    places, text_from = (
        visual_places(prompt.videos, prompt.compressions, selection, rows, width) if visual else ([], [])
    )
    return Shortened(
        kwargs=short, selection=selection, kept=kept, positions=positions, visual=places, text_from=text_from
    )


def _kept_places(
    changes: Sequence[tuple[VideoTokens, MergePlan]], real: list[Tensor], width: int, device: torch.device
) -> list[Tensor]:
    """List the columns that stay, per row."""
    if not changes:
        return real
    stays = _places_that_stay(changes, len(real), width, device)
    kept = []
    for row, tokens in enumerate(real):
        mine = [(video, plan) for video, plan in changes if video.row == row]
        stay = stays[row].index_select(0, tokens)
        if any(video.newlines is not None for video, _ in mine):
            kept.append(tokens[stay])  # only the device knows how many newlines leave
        else:
            left = sum(plan.count_in - plan.count_out for _, plan in mine)
            kept.append(tokens.index_select(0, places_of(stay, len(tokens) - left)))
    return kept


def _places_that_stay(
    changes: Sequence[tuple[VideoTokens, MergePlan]], rows: int, width: int, device: torch.device
) -> Tensor:
    """Mask the places that stay, bool (B, S): all but merged tokens, and newlines of rows that lost all of theirs."""
    stays = torch.ones(rows, width, dtype=torch.bool, device=device)
    for video, plan in changes:
        # Assigning a number by an index copies it to the device and waits; filling does not.
        stays[video.row].index_fill_(0, video.index, False).index_fill_(0, video.index[plan.keep], True)
        if video.newlines is not None:
            ends = torch.zeros(video.newlines.numel(), dtype=torch.bool, device=device)
            ends.index_fill_(0, plan.keep // video.grid[1], True)
            stays[video.row, video.newlines.flatten()] = ends
    return stays


def _whole_mask(prefix: Prefix, past: int, given: Tensor | None, selection: RowSelection, width: int) -> Tensor | None:
    """Build the 2-D mask over what is cached and a shortened prompt after it; None without padding."""
    cached = prefix.cached_mask(given, past, width)
    if cached is None and selection.real is None:
        return None
    rows, length = selection.index.shape
    new = selection.real if selection.real is not None else selection.index.new_ones(rows, length).bool()
    head = new.new_ones(rows, past) if cached is None else cached.to(new.device)
    return torch.cat((head, new), dim=1)


def place_positions(
    given: Tensor | None,
    selection: RowSelection,
    real: Sequence[Tensor],
    compressions: Sequence[Compression | None],
    width: int,
    device: torch.device,
) -> Tensor:
    """Return position ids (..., B, L) of what stays: its own, or renumbered without gaps."""
    rows = len(selection.index)
    if given is None:
        given = torch.arange(width, device=device).expand(rows, width)
    given = given.to(device)
    kinds = {compression.positions for compression in compressions if compression is not None}
    if len(kinds) > 1:
        raise ConfigError("the method gives some videos of a batch original and others contiguous positions")
    if kinds == {"contiguous"}:
        lengths = [selection.length] * rows if selection.real is None else selection.real.sum(dim=1).tolist()
        selection = RowSelection.of([places[:length] for places, length in zip(real, lengths, strict=True)])
    if given.dim() == 2:
        return selection.take(given)
    return torch.stack([selection.take(axis) for axis in given])


def shorten_deepstack(
    kwargs: Mapping[str, Any], shorten: Callable[[Tensor], Tensor], selection: RowSelection
) -> dict[str, Any]:
    """Shorten the features that DeepStack adds after the first layers like the tokens (Qwen3-VL)."""
    mask, planes = kwargs.get("visual_pos_masks"), kwargs.get("deepstack_visual_embeds")
    if mask is None or planes is None:
        return {}
    short_mask = selection.take(mask.to(selection.index.device))
    short_planes = []
    for plane in planes:
        whole = plane.new_zeros(*mask.shape, plane.shape[-1])
        whole[mask] = plane
        short_planes.append(shorten(whole)[short_mask])
    return {"visual_pos_masks": short_mask, "deepstack_visual_embeds": short_planes}


def visual_places(
    videos: Sequence[VideoTokens],
    compressions: Sequence[Compression | None],
    selection: RowSelection,
    rows: int,
    width: int,
) -> tuple[list[Tensor], list[int]]:
    """Return, per row, the places of visual tokens in the shortened prompt, and where the text after them begins."""
    is_visual = torch.zeros(rows, width, dtype=torch.bool, device=selection.index.device)
    last, counts = [0] * rows, [0] * rows
    for video, compression in zip(videos, compressions, strict=True):
        is_visual[video.row].index_fill_(0, video.index, True)
        last[video.row] = max(last[video.row], video.stop)
        counts[video.row] += len(video.index) if compression is None else compression.achieved
    visual = [places_of(row, count) for row, count in zip(selection.take(is_visual), counts, strict=True)]
    # All that follows the last video is text, and stays.
    return visual, [max(0, selection.length - width + stop) for stop in last]


def grids_of_videos(prompt: Prompt) -> list[tuple[tuple[int, int], ...]]:
    """Return, per row, rows and columns of the frames of its videos."""
    return [tuple(video.grid for video in prompt.videos if video.row == row) for row in range(len(prompt.ids))]


def kinds_in_videos(prompt: Prompt) -> list[tuple[Tensor | None, tuple[str, ...]]]:
    """Return, per row, the kind of each visual token that stays, uint8 (n,), and the kinds' names; None without any."""
    rows: list[tuple[Tensor | None, tuple[str, ...]]] = []
    for row in range(len(prompt.ids)):
        mine = [one for video, one in zip(prompt.videos, prompt.compressions, strict=True) if video.row == row]
        known = [one.kind for one in mine if one is not None and one.kind is not None]
        names = {one.kinds for one in mine if one is not None}
        whole = bool(mine) and len(known) == len(mine) and len(names) == 1
        rows.append((torch.cat(known), names.pop()) if whole else (None, ()))
    return rows


def places_in_videos(prompt: Prompt) -> list[Tensor]:
    """Return, per row, video, frame, row and column of each visual token that stays, int64 (n, 4)."""
    device = prompt.kwargs["inputs_embeds"].device
    rows: list[list[Tensor]] = [[torch.empty(0, 4, dtype=torch.int64, device=device)] for _ in range(len(prompt.ids))]
    for video, compression in zip(prompt.videos, prompt.compressions, strict=True):
        count, cols = len(video.index), video.grid[1]
        keep = torch.arange(count, device=device) if compression is None else compression.plan.keep.to(device)
        place = keep % (video.grid[0] * cols)
        number = torch.full_like(keep, len(rows[video.row]) - 1)
        rows[video.row].append(
            torch.stack((number, keep // (video.grid[0] * cols), place // cols, place % cols), dim=1)
        )
    return [torch.cat(parts) for parts in rows]


def describe(prompt: Prompt, short: Shortened, session: Any, *, given: Tensor | None, images: bool) -> Prefix:
    """Describe what the cache holds after it has taken in a shortened prompt.

    Args:
        prompt: as it was given.
        short: what is made of it.
        session: a weak reference to the session.
        given: position ids by the caller, if any.
        images: whether it has images, whose positions M-RoPE counts differently.
    """
    before, past = prompt.prefix, prompt.past
    rows, width = prompt.ids.shape
    length = short.selection.length
    whole = short.positions
    if not any(one is not None and one.positions == "contiguous" for one in prompt.compressions):
        whole = short.positions if prompt.positions is None else prompt.positions.to(short.positions.device)
    last, most = whole[..., -1], whole.amax(dim=-1)
    if whole.dim() == 3:
        # M-RoPE goes on after the axes together, and the row of text positions after itself.
        text, axes = last[:-3], last[-2:].amax(dim=0, keepdim=True).expand(3, -1)
        last = torch.cat((text, axes))
        most = torch.cat((most[:-3], most[-3:].amax(dim=0, keepdim=True).expand(3, -1)))
    following, beyond = last + 1, most + 1
    mask = short.selection.real
    plain = 0 if images or mask is not None else min((video.begin for video in prompt.videos), default=width)
    if before is None:
        ids, seen = prompt.ids, [0] * rows
    else:
        ids = torch.cat((before.fed(past), prompt.ids), dim=1)
        seen = list(before.seen)
        mask = _whole_mask(before, past, prompt.kwargs.get("attention_mask"), short.selection, width)
        plain = before.plain if before.plain < before.width or before.mask is not None else past + plain
        beyond = torch.maximum(beyond, before.beyond)
    for video in prompt.videos:
        seen[video.row] += 1
    stop = max((video.stop for video in prompt.videos), default=0)
    return Prefix(
        session=session,
        ids=ids,
        length=ids.shape[1],
        width=past + length,
        mask=mask,
        plain=plain,
        tail=min(width - stop, length),
        following=following,
        beyond=beyond,
        given=None if given is None else given[..., -1] + 1,
        seen=seen,
        visual=[torch.empty(0, dtype=torch.int64)] * rows if before is None else list(before.visual),
    )
