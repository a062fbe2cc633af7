"""Methods inside the language model and at decoding in NumPy float64, written from their definitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray as Array

NDArray = Array[Any]


def cosine(a: NDArray, b: NDArray) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0


def ranked(importance: NDArray) -> list[int]:
    """Places by falling importance, the first of equal ones first."""
    return sorted(range(len(importance)), key=lambda i: (-importance[i], i))


def top(importance: NDArray, kept: int) -> list[int]:
    return sorted(ranked(importance)[:kept])


def absorbed(importance: NDArray, hidden: NDArray, kept: int, *, halves: bool) -> tuple[list[int], NDArray]:
    """HoliTom's merge: kept places and their values."""
    order = ranked(importance)[:kept]
    keep = sorted(order)
    joined: dict[int, list[NDArray]] = {i: [] for i in keep}
    for j in range(len(importance)):
        if j not in joined:
            similar = [cosine(hidden[j], hidden[i]) for i in keep]
            joined[keep[int(np.argmax(similar))]].append(hidden[j])
    values = []
    for i in keep:
        value = hidden[i]
        if halves:
            for h in joined[i]:
                value = (value + h) / 2
        else:
            value = np.mean([hidden[i], *joined[i]], axis=0)
        values.append(value)
    return keep, np.array(values)


def pyramid(scores: Sequence[NDArray], counts: Sequence[int]) -> list[int]:
    """Places left after several cuts; scores of each are of all that entered."""
    left = list(range(len(scores[0])))
    for score, count in zip(scores, counts, strict=True):
        left = [left[i] for i in top(score[left], count)]
    return left


def independent(
    importance: NDArray, kept: int, pivots: int, similar: Callable[[int, int], float], theta: float, *, block: bool
) -> list[int]:
    """D2Pruner's choice."""
    order = ranked(importance)
    chosen = order[:pivots]
    blockers = list(chosen) if block else []
    for i in order[pivots:]:
        if len(chosen) == kept:
            break
        if all(similar(i, j) <= theta for j in blockers):
            chosen.append(i)
            blockers.append(i)
    for i in order:
        if len(chosen) == kept:
            break
        if i not in chosen:
            chosen.append(i)
    return sorted(chosen)


def steps(scores: NDArray, kept: int, tau: float, *, everything: bool) -> list[list[int]]:
    """DyCoke's choice at each decoding step; ``everything``: a step like the last one reads all."""
    found: list[list[int]] = []
    choice: list[int] = []
    for number, score in enumerate(scores):
        if number and cosine(score, scores[number - 1]) >= tau:
            found.append(list(range(len(score))) if everything else found[-1])
        else:
            choice = top(score, kept)
            found.append(choice)
    return found
