"""Positions of prompts whose videos are shortened; no vLLM is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.errors import ShapeError
from compress.serving.vllm.prompt_positions import (
    AXES,
    COLUMNS,
    PlacedItem,
    append_positions,
    lay_out,
    split_positions,
    take_positions,
)


def grid(frames: int, rows: int, cols: int) -> Tensor:
    return torch.from_numpy(np.indices((frames, rows, cols)).reshape(3, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_positions_survive_any_dtype(dtype: torch.dtype) -> None:
    positions = torch.randint(0, 2**24, (AXES, 500), generator=torch.Generator().manual_seed(0))
    positions[:, :4] = torch.tensor([257, 301, 611, 2**24 - 1])
    embeddings = torch.randn(500, 16).to(dtype)
    rows = append_positions(embeddings, positions)
    assert rows.dtype == dtype
    assert rows.shape == (500, 16 + COLUMNS)
    bare, found = split_positions(rows)
    assert torch.equal(bare, embeddings)
    assert torch.equal(found, positions)


def test_as_numbers_they_would_not_survive() -> None:
    """What vLLM does: a column per axis in the embeddings' dtype."""
    plain = torch.tensor([257, 301, 611]).to(torch.bfloat16).long()
    assert plain.tolist() == [256, 300, 612]


def test_positions_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(ShapeError, match="16777216 positions"):
        append_positions(torch.zeros(1, 4), torch.full((3, 1), 2**24))


def items() -> list[PlacedItem]:
    """Place an image of 2 x 3 and two videos of which 5 of 2 x 3 x 4 tokens are left, one right after the other."""
    return [
        PlacedItem(offset=2, length=6, extent=3, positions=grid(1, 2, 3)),
        PlacedItem(offset=10, length=5, extent=4),
        PlacedItem(offset=15, length=5, extent=4),
    ]


def test_text_lies_where_it_would_without_compression() -> None:
    positions, layout = lay_out(23, items())
    assert layout.bases == (2, 7, 11)
    assert positions[:, :2].tolist() == [[0, 1]] * 3
    assert torch.equal(positions[:, 2:8], grid(1, 2, 3) + 2)
    assert positions[:, 8:10].tolist() == [[5, 6]] * 3
    assert positions[:, 20:].tolist() == [[15, 16, 17]] * 3
    assert positions[0, 22] + 1 == 23 + layout.delta, "the next token follows the last"


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7, 13, 23])
@pytest.mark.parametrize("cached", [0, 1, 9, 10, 12, 15, 17, 20])
def test_chunks_and_cached_beginnings_give_the_same_positions(chunk: int, cached: int) -> None:
    placed = items()
    rows = [torch.randn(6, 8)]
    whole, _ = lay_out(23, placed)
    generator = torch.Generator().manual_seed(1)
    for item, base in zip(placed[1:], (7, 11), strict=True):
        keep = torch.randperm(24, generator=generator)[:5].sort().values
        own = grid(2, 3, 4)[:, keep]
        rows.append(append_positions(torch.randn(5, 8), own))
        whole[:, item.offset : item.offset + item.length] = own + base
    positions, layout = lay_out(23, placed)
    computed = cached
    while computed < 23:
        stop = min(computed + chunk, 23)
        parts = [
            row[max(computed - item.offset, 0) : stop - item.offset]
            for row, item in zip(rows, placed, strict=True)
            if item.offset < stop and computed < item.offset + item.length
        ]
        bare = take_positions(layout, positions, parts, computed)
        assert [one.shape[1] for one in bare] == [8] * len(bare)
        assert torch.equal(positions[:, computed:stop], whole[:, computed:stop])
        computed = stop


def test_more_embeddings_than_items_are_refused() -> None:
    positions, layout = lay_out(23, items())
    with pytest.raises(ShapeError, match="2 images and videos came where the prompt has 1"):
        take_positions(layout, positions, [torch.zeros(5, 17)] * 2, 16)
