"""EarlyTom's walk over frames and the folding of middle frames, from their description, in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.oracle import budget as allocation
from tests.oracle.metom import cosine


def alike(a: NDArray, b: NDArray) -> float:
    """Mean cosine of two frames' tokens at the same place."""
    return float(np.mean([cosine(x, y) for x, y in zip(a, b, strict=True)]))


def walk(frames: NDArray, threshold: float, window: int, ema: float) -> list[int]:
    """Return where segments begin, and the end."""
    bounds, reference, smoothed = [0], 0, 1.0
    for i in range(1, len(frames)):
        smoothed = ema * alike(frames[reference], frames[i]) + (1 - ema) * smoothed
        if smoothed < threshold or i - reference + 1 >= window:
            bounds.append(i)
            reference, smoothed = i, 1.0
    return [*bounds, len(frames)]


def fold(
    frames: NDArray, bounds: list[int], *, least: int = 1, released: bool = False
) -> tuple[list[list[tuple[int, float]]], list[int]]:
    """Return the weighted frames of each that is left, and what each frame became."""
    rows: list[list[tuple[int, float]]] = []
    group = [0] * len(frames)
    left = len(frames)
    for start, stop in pairwise(bounds):
        middle = list(range(start + 1, stop - 1))
        if len(middle) < 2:
            plan = [[(t, 1.0)] for t in range(start, stop)]
        else:
            bar = alike(frames[start], frames[stop - 1])
            s = [alike(frames[a], frames[b]) for a, b in pairwise(middle)]
            plan, j = [[(start, 1.0)]], 0
            while j < len(middle) - 1:
                last = j == len(s) - 1
                if s[j] > bar and (last or s[j] > s[j + 1]) and (released or left > least):
                    weight = (1.0 if released else 0.5) if last else s[j] / (s[j] + s[j + 1])
                    plan.append([(middle[j], weight), (middle[j + 1], 1 - weight)])
                    left -= 1
                    j += 2
                else:
                    plan.append([(middle[j], 1.0)])
                    j += 1
            if j == len(middle) - 1 and not released:
                plan.append([(middle[j], 1.0)])
            plan.append([(stop - 1, 1.0)])
        for row in plan:
            for t, _ in row:
                group[t] = len(rows)
            rows.append(row)
        held = {t for row in plan for t, _ in row}
        for t in range(start, stop):
            if t not in held:
                group[t] = group[t - 1]
    return rows, group


def earlytom(
    tokens: NDArray, saliency: NDArray, grid: tuple[int, int], count: int, *, threshold: float, window: int, ema: float
) -> dict[int, NDArray]:
    """Fold frames by their tokens, and select: all counts exact."""
    per_frame = tokens.shape[1]
    rows, _ = fold(tokens, walk(tokens, threshold, window, ema), least=-(-count // per_frame))
    left = np.array([sum(w * tokens[t] for t, w in row) for row in rows])
    scores = np.array([sum(w * saliency[t] for t, w in row) for row in rows])
    bounds = walk(left, threshold, window, ema)
    ends = set(bounds[:-1]) | {stop - 1 for stop in bounds[1:]}
    full = np.full(len(rows), per_frame)
    shares = allocation.allocate(np.ones(len(rows)), count, np.zeros(len(rows), np.int64), full)[0].tolist()
    answer = {}
    for i, share in enumerate(shares):
        order = sorted(range(per_frame), key=lambda n: (-scores[i, n], n))
        if i in ends:
            chosen = order[:share]
        else:
            cells = cell_of(*grid, share) if share else []
            chosen = [next(n for n in order if cells[n] == cell) for cell in range(share)]
        answer |= {rows[i][0][0] * per_frame + n: left[i, n] for n in chosen}
    return answer


def cell_of(rows: int, cols: int, count: int) -> list[int]:
    """Return the cell of each token, of ``count`` nearly square ones that are numbered in raster order."""
    bands = min(max(round((count * rows / cols) ** 0.5), -(-count // cols)), rows, count)
    widths = [(b + 1) * count // bands - b * count // bands for b in range(bands)]
    cells = []
    for r in range(rows):
        band = max(b for b in range(bands) if b * rows // bands <= r)
        cells += [
            sum(widths[:band]) + max(w for w in range(widths[band]) if w * cols // widths[band] <= c)
            for c in range(cols)
        ]
    return cells
