"""Questions about the clips of data/sprites, in the form that lmms-eval takes: one document each.

sprites.yaml names these functions; docs/models.md says how the task is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CLIPS = Path(__file__).resolve().parents[2] / "data" / "sprites"


def list_questions(clips: Any) -> Any:
    """List the dataset with one row per question, from one row that has a column of questions per clip."""
    return clips.map(_spread, batched=True, remove_columns=clips.column_names)


def _spread(columns: Mapping[str, Sequence[Sequence[Mapping[str, str]]]]) -> dict[str, list[str]]:
    rows = [(clip, item) for clip, (items,) in columns.items() for item in items]
    texts = {name: [item[name] for _, item in rows] for name in ("family", "question", "answer")}
    return {"clip": [clip for clip, _ in rows], **texts}


def find_clip(question: Mapping[str, str]) -> list[str]:
    """Return the video of a question; the model reads codec metadata from it."""
    return [str(CLIPS / question["clip"])]


def compare(question: Mapping[str, str], answers: Sequence[str]) -> dict[str, float]:
    """Return 1 where the answer is the expected word, else 0."""
    return {"accuracy": float(answers[0].strip().lower() == question["answer"].lower())}
