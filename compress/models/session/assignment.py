"""Assignment of metadata to the videos of prompts: rows of a batch, beams, turns of a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from compress.errors import ShapeError
from compress.models.adapters.adapter import spread_rows


def assign_metas(rows: Sequence[int], entries: int, *, seen: Sequence[int]) -> list[int]:
    """Assign metadata to each video of a prompt: in the order of the conversation, row by row.

    Args:
        rows: row of each video, ascending.
        entries: metadata that was given.
        seen: per row, videos of earlier turns, which lie in the cache.

    Raises:
        ShapeError: the numbers do not match.
    """
    if entries == 1:
        return [0] * len(rows)
    if not any(seen):
        if len(rows) == entries:
            return list(range(entries))
        if (repeated := spread_rows(rows, entries)) is not None:
            return repeated
    per_row, rest = divmod(entries, len(seen))
    found, count = [], list(seen)
    for row in rows:
        found.append(row * per_row + count[row])
        count[row] += 1
    if rest or max(count) > per_row:
        earlier = f" after {sum(seen)} in earlier turns" if any(seen) else ""
        raise ShapeError(
            f"the prompts hold {len(rows)} videos{earlier}, but {entries} metadata were given; give one per video, in "
            "the order of the conversation"
        )
    return found
