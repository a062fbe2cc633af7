"""A shortened prompt and its parts: positions, DeepStack planes, and where its visual tokens lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def shorten_prompt(
    kwargs: Mapping[str, Any],
    ids: Tensor,
    videos: Sequence[VideoTokens],
    compressions: Sequence[Compression | None],
    *,
    drafted: int,
    visual: bool,
) -> tuple[dict[str, Any], Prefix]:
    """The arguments of the language model with the tokens of videos merged and the gaps closed.

    Args:
        kwargs: as they were given.
        ids: int64 (B, S).
        videos: where the videos lie.
        compressions: what was merged of each; None for nothing.
        drafted: tokens at the end that are guesses of an assistant.
        visual: whether a merge inside the language model follows, which needs the places of visual tokens.

    Raises:
        ConfigError: the mask or the positions cannot be shortened.
    """
    embeddings, mask = kwargs["inputs_embeds"], kwargs.get("attention_mask")
    rows, width = embeddings.shape[:2]
    device = embeddings.device
    if mask is not None and mask.dim() != 2:
        raise ConfigError(f"attention_mask has {mask.dim()} dimensions; give two, (batch, length)")
    changes = [
        (video, compression.plan.to(device))
        for video, compression in zip(videos, compressions, strict=True)
        if compression is not None and not compression.plan.keeps_all
    ]
    real = real_places(mask, rows=rows, width=width, device=device)
    kept = real
    if changes:
        stays = _places_that_stay(changes, rows, width, device)
        kept = []
        for row, tokens in enumerate(real):
            mine = [(video, plan) for video, plan in changes if video.row == row]
            stay = stays[row].index_select(0, tokens)
            if any(video.newlines is not None for video, _ in mine):
                kept.append(tokens[stay])  # only the device knows how many newlines leave
            else:
                left = sum(plan.count_in - plan.count_out for _, plan in mine)
                kept.append(tokens.index_select(0, places_of(stay, len(tokens) - left)))
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

    given = kwargs.get("position_ids")
    if untouched and given is not None:
        positions = given
    else:
        positions = place_positions(given, selection, real, compressions, width, device)
    short = {**kwargs, "inputs_embeds": shorten(embeddings), "position_ids": positions}
    if not untouched:
        short |= shorten_deepstack(kwargs, shorten, selection)
        if selection.real is not None:
            short["attention_mask"] = selection.real.to(torch.int64 if mask is None else mask.dtype)
        elif mask is not None:
            short["attention_mask"] = selection.take(mask)
        elif kwargs.get(CACHE) is None and not kwargs.get("use_cache"):
            # Gaps between positions would be read as several packed sequences.
            short["attention_mask"] = torch.ones(rows, selection.length, dtype=torch.int64, device=device)
    places, text_from = visual_places(videos, compressions, selection, rows, width) if visual else ([], [])
    prefix = Prefix(
        ids=ids,
        given=width,
        width=selection.length,
        mask=selection.real,
        positions=positions,
        visual=places,
        text_from=text_from,
        drafted=drafted,
    )
    return short, prefix


def _places_that_stay(
    changes: Sequence[tuple[VideoTokens, MergePlan]], rows: int, width: int, device: torch.device
) -> Tensor:
    """bool (B, S): all but merged tokens, and newlines of rows that lost all of theirs."""
    stays = torch.ones(rows, width, dtype=torch.bool, device=device)
    for video, plan in changes:
        # Assigning a number by an index copies it to the device and waits; filling does not.
        stays[video.row].index_fill_(0, video.index, False).index_fill_(0, video.index[plan.keep], True)
        if video.newlines is not None:
            ends = torch.zeros(video.newlines.numel(), dtype=torch.bool, device=device)
            ends.index_fill_(0, plan.keep // video.grid[1], True)
            stays[video.row, video.newlines.flatten()] = ends
    return stays


def place_positions(
    given: Tensor | None,
    selection: RowSelection,
    real: Sequence[Tensor],
    compressions: Sequence[Compression | None],
    width: int,
    device: torch.device,
) -> Tensor:
    """Position ids (..., B, L) of what stays: its own, or renumbered without gaps."""
    rows = len(selection.index)
    if given is None:
        given = torch.arange(width, device=device).expand(rows, width)
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
    """The features that DeepStack adds after the first layers, shortened like the tokens (Qwen3-VL)."""
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
    """Per row, the places of visual tokens in the shortened prompt, and where the text after them begins."""
    is_visual = torch.zeros(rows, width, dtype=torch.bool, device=selection.index.device)
    last, counts = [0] * rows, [0] * rows
    for video, compression in zip(videos, compressions, strict=True):
        is_visual[video.row].index_fill_(0, video.index, True)
        last[video.row] = max(last[video.row], video.stop)
        counts[video.row] += len(video.index) if compression is None else compression.achieved
    visual = [places_of(row, count) for row, count in zip(selection.take(is_visual), counts, strict=True)]
    # All that follows the last video is text, and stays.
    return visual, [max(0, selection.length - width + stop) for stop in last]
