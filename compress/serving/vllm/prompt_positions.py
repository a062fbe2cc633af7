"""Position ids of a prompt whose videos are shortened: of text and images beforehand, of video tokens with their
embeddings.

Positions of text and images do not depend on which tokens of a video stay, so that a prompt that begins in a cache has
the right ones after that beginning. Those of a video's tokens are columns after their embeddings, in digits to base
256, which bfloat16 holds exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from compress.errors import ShapeError

BASE: Final = 256
DIGITS: Final = 3
AXES: Final = 3
COLUMNS: Final = AXES * DIGITS
"""Columns after the embeddings of a video."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedItem:
    """An image or a video in a prompt.

    Attributes:
        offset: place of its first placeholder.
        length: placeholders.
        extent: by how much the position of what follows exceeds that of its first placeholder.
        positions: int64 (3, length), relative to its first; None for a video, whose come with its embeddings.
    """

    offset: int
    length: int
    extent: int
    positions: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptLayout:
    """Layout of a prompt.

    Attributes:
        items: images and videos by place.
        bases: position id of the first placeholder of each.
        delta: what a place has to be shifted by to be the position of a token that is generated there.
    """

    items: tuple[PlacedItem, ...]
    bases: tuple[int, ...]
    delta: int


def lay_out(count: int, items: Sequence[PlacedItem]) -> tuple[Tensor, PromptLayout]:
    """Lay out a prompt.

    Args:
        count: tokens of the prompt, placeholders included.
        items: its images and videos, by place.

    Returns:
        Positions int64 (3, count), in which those of video tokens are those of its first, and the layout.
    """
    positions = torch.empty(AXES, count, dtype=torch.int64)
    bases = []
    place = position = 0
    for item in items:
        text = item.offset - place
        positions[:, place : item.offset] = torch.arange(position, position + text)
        position += text
        own = torch.zeros(AXES, 1, dtype=torch.int64) if item.positions is None else item.positions
        positions[:, item.offset : item.offset + item.length] = own + position
        bases.append(position)
        place, position = item.offset + item.length, position + item.extent
    positions[:, place:] = torch.arange(position, position + count - place)
    delta = position - place
    return positions, PromptLayout(items=tuple(items), bases=tuple(bases), delta=delta)


def append_positions(embeddings: Tensor, positions: Tensor) -> Tensor:
    """Append positions (3, n) relative to the video's first, at least 0, to its embeddings (n, D): (n, D + 9)."""
    if int(positions.amax()) >= BASE**DIGITS:
        raise ShapeError(f"a video spans {int(positions.amax())} positions; at most {BASE**DIGITS - 1} can be written")
    scale = BASE ** torch.arange(DIGITS - 1, -1, -1, device=positions.device)
    digits = (positions[:, :, None] // scale) % BASE
    columns = digits.transpose(0, 1).flatten(1)
    return torch.cat((embeddings, columns.to(embeddings.device, embeddings.dtype)), dim=1)


def split_positions(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Undo `append_positions`: embeddings (n, D) and positions int64 (3, n)."""
    digits = rows[:, -COLUMNS:].long().view(-1, AXES, DIGITS)
    scale = BASE ** torch.arange(DIGITS - 1, -1, -1, device=rows.device)
    return rows[:, :-COLUMNS], (digits * scale).sum(dim=2).T


def take_positions(layout: PromptLayout, positions: Tensor, rows: Sequence[Tensor], computed: int) -> list[Tensor]:
    """Remove the positions from embeddings and write them into those of the prompt.

    Args:
        layout: of the prompt.
        positions: int64 (3, count), of the prompt; written to.
        rows: embeddings of its items from the first that does not end before ``computed``, one after the other; of the
            first and the last perhaps only a part.
        computed: tokens that were computed before.

    Returns:
        The embeddings without positions.

    Raises:
        ShapeError: there are more than the prompt has items.
    """
    ahead = [
        (item, base)
        for item, base in zip(layout.items, layout.bases, strict=True)
        if item.offset + item.length > computed
    ]
    if len(rows) > len(ahead):
        raise ShapeError(f"embeddings of {len(rows)} images and videos came where the prompt has {len(ahead)} left")
    bare = []
    for part, (item, base) in zip(rows, ahead, strict=False):
        if item.positions is not None:
            bare.append(part)
            continue
        embeddings, relative = split_positions(part)
        start = max(computed, item.offset)
        positions[:, start : start + len(part)] = relative.to(positions.device) + base
        bare.append(embeddings)
    return bare
