"""Which video takes which metadata, by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from compress.errors import ShapeError
from compress.models.adapters.adapter import spread_rows
from compress.models.session.assignment import assign_metas


@pytest.mark.parametrize(
    ("rows", "entries", "expected"),
    [
        ([0, 1], 2, [0, 1]),
        ([0, 0, 1, 1], 2, [0, 1, 0, 1]),  # two beams over A B
        ([0, 0, 1, 1, 2, 3], 3, [0, 1, 0, 1, 2, 2]),  # two beams over the rows A B and C
        ([0, 1, 2, 3], 2, [0, 0, 1, 1]),
        ([0, 0, 0], 2, None),
        ([0, 0, 1], 3, [0, 1, 2]),
        ([0, 0, 1, 2, 2, 2], 3, None),
    ],
)
def test_rows_that_repeat_prompts(rows: list[int], entries: int, expected: list[int] | None) -> None:
    assert spread_rows(rows, entries) == expected


@pytest.mark.parametrize(
    ("rows", "entries", "seen", "expected"),
    [
        ([0, 0, 0], 1, [0], [0, 0, 0]),
        ([0], 2, [0], [0]),  # the first of a conversation with two
        ([0], 2, [1], [1]),
        ([0, 1], 4, [1, 1], [1, 3]),  # the second turns of two conversations
        ([0, 0, 1, 1], 2, [0, 0], [0, 1, 0, 1]),
    ],
)
def test_turns_and_rows(rows: list[int], entries: int, seen: list[int], expected: list[int]) -> None:
    assert assign_metas(rows, entries, seen=seen) == expected


@pytest.mark.parametrize(("rows", "entries", "seen"), [([0], 2, [2]), ([0, 1, 2], 2, [0, 0, 0]), ([0, 0, 0], 2, [0])])
def test_what_does_not_go_together(rows: list[int], entries: int, seen: list[int]) -> None:
    with pytest.raises(ShapeError, match="one per video"):
        assign_metas(rows, entries, seen=seen)
