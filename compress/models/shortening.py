"""The parts of a shortened prompt: positions, DeepStack planes, and where its visual tokens lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compress.errors import ConfigError, ShapeError
from compress.models.adapter import VideoTokens
from compress.models.rows import RowSelection
from compress.stage import Compression

_SAME = 1e-2
"""How far features of the same video may differ, relative to their size, when a batch holds it several times."""


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


def check_same(embeddings: Tensor, first: VideoTokens, again: VideoTokens) -> None:
    """Raise ShapeError unless two videos that share metadata are one."""
    a = embeddings[first.row].index_select(0, first.index)
    b = embeddings[again.row].index_select(0, again.index)
    if a.shape != b.shape or bool((a - b).abs().amax() > _SAME * a.abs().amax()):
        raise ShapeError(
            f"rows {first.row} and {again.row} hold different videos but share one metadata; give one per video"
        )


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
    videos: Sequence[VideoTokens], selection: RowSelection, rows: int, width: int
) -> tuple[list[Tensor], list[int]]:
    """Per row, the places of visual tokens in the shortened prompt, and where the text after them begins."""
    is_visual = torch.zeros(rows, width, dtype=torch.bool, device=selection.index.device)
    last = [0] * rows
    for video in videos:
        is_visual[video.row, video.index] = True
        last[video.row] = max(last[video.row], video.stop)
    short = selection.take(is_visual)
    index = selection.index if selection.real is None else selection.index.masked_fill(~selection.real, -1)
    visual = [row.nonzero().squeeze(1) for row in short]
    text_from = [int((index[row] < last[row]).sum()) for row in range(rows)]
    return visual, text_from
