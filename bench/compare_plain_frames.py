"""Methods that fold frames or join quadtrees of frames, written down plainly: one frame, node and link after the other.

Continues `bench.compare_plain_merging`: EarlyTom, inside the encoder and after it, and STTM.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compress.budget import allocate
from compress.stage import Signals

THRESHOLD, WINDOW, EMA = 0.5, 6, 0.9
"""EarlyTom's T, M and ema."""

Folded = list[list[tuple[int, float]]]
"""The weighted frames of each frame that is left."""
Box = tuple[int, int, int, int]


def alike(a: Tensor, b: Tensor) -> float:
    return float(functional.cosine_similarity(a.float(), b.float(), dim=1).mean())


def walk(frames: Tensor) -> list[int]:
    """Return where segments begin, and the end."""
    bounds, smoothed = [0], 1.0
    for t in range(1, len(frames)):
        smoothed = EMA * alike(frames[bounds[-1]], frames[t]) + (1 - EMA) * smoothed
        if smoothed < THRESHOLD or t - bounds[-1] + 1 >= WINDOW:
            bounds.append(t)
            smoothed = 1.0
    return [*bounds, len(frames)]


def fold(frames: Tensor, least: int) -> Folded:
    found: Folded = []
    left = len(frames)
    for start, stop in itertools.pairwise(walk(frames)):
        middle = list(range(start + 1, stop - 1))
        found.append([(start, 1.0)])
        if len(middle) >= 2:
            bar = alike(frames[start], frames[stop - 1])
            likeness = [alike(frames[a], frames[b]) for a, b in itertools.pairwise(middle)]
            j = 0
            while j < len(middle):
                last = j == len(likeness) - 1
                folds = j < len(likeness) and likeness[j] > bar and left > least
                if folds and (last or likeness[j] > likeness[j + 1]):
                    weight = 0.5 if last else likeness[j] / (likeness[j] + likeness[j + 1])
                    found.append([(middle[j], weight), (middle[j + 1], 1 - weight)])
                    left -= 1
                    j += 2
                else:
                    found.append([(middle[j], 1.0)])
                    j += 1
        else:
            found += [[(t, 1.0)] for t in middle]
        if stop - 1 > start:
            found.append([(stop - 1, 1.0)])
    return found


def mixed(values: Tensor, folded: Folded) -> Tensor:
    return torch.stack([torch.stack([w * values[t].float() for t, w in row]).sum(dim=0) for row in folded])


def earlytom_inside(patches: Tensor, blocks: int, least: int) -> tuple[Tensor, Tensor]:
    """Fold the frames of patches at so many blocks."""
    first = list(range(len(patches)))
    for _ in range(blocks):
        folded = fold(patches, least)
        patches, first = mixed(patches, folded), [first[row[0][0]] for row in folded]
    per_frame = patches.shape[1]
    keep = torch.cat([t * per_frame + torch.arange(per_frame) for t in first])
    return keep, patches.flatten(0, 1)


def earlytom(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    assert signals.saliency is not None and signals.grid is not None
    per_frame = tokens.shape[1]
    folded = fold(tokens, -(-count // per_frame))
    left, scores = mixed(tokens, folded), mixed(signals.saliency, folded)
    bounds = walk(left)
    ends = {*bounds[:-1], *(stop - 1 for stop in bounds[1:])}
    shares = allocate(np.ones(len(folded)), count, upper=per_frame).tolist()
    keep, values = [], []
    for i, share in enumerate(shares):
        order = scores[i].sort(descending=True, stable=True).indices.tolist()
        if i not in ends and share:
            cells = windows(*signals.grid, share)
            order = [next(n for n in order if cells[n] == cell) for cell in range(share)]
        places = torch.tensor(sorted(order[:share]))
        keep.append(folded[i][0][0] * per_frame + places)
        values.append(left[i, places])
    return torch.cat(keep), torch.cat(values)


def windows(rows: int, cols: int, count: int) -> list[int]:
    """Return the window of each place, of ``count`` nearly square ones that are numbered in raster order."""
    bands = min(max(round((count * rows / cols) ** 0.5), -(-count // cols)), rows, count)
    widths = [(b + 1) * count // bands - b * count // bands for b in range(bands)]
    found = []
    for r in range(rows):
        band = max(b for b in range(bands) if b * rows // bands <= r)
        for c in range(cols):
            within = max(w for w in range(widths[band]) if w * cols // widths[band] <= c)
            found.append(sum(widths[:band]) + within)
    return found


def sttm(tokens: Tensor, signals: Signals, count: int) -> tuple[Tensor, Tensor]:
    """Cut and link quadtrees at one threshold after the other, by halving what is left of them."""
    assert signals.grid is not None
    boxes, children, roots = quadtree(*signals.grid)
    frames, per_frame = tokens.shape[:2]
    nodes = torch.stack([torch.zeros_like(tokens[:, 0], dtype=torch.float32)] * len(boxes), dim=1)
    nodes[:, :per_frame] = tokens
    for node, of in enumerate(children):
        if of:
            nodes[:, node] = nodes[:, of].mean(dim=1)
    direction = functional.normalize(nodes, dim=2)
    within = np.array([[_inside(a, b) or _inside(b, a) for b in boxes] for a in boxes])
    likeness = [(direction[t] @ direction[t + 1].T).numpy() for t in range(frames - 1)]
    least = np.full((frames, len(boxes)), np.inf)
    for node, of in enumerate(children):
        if len(of) > 1:
            least[:, node] = (direction[:, of] @ direction[:, node, :, None]).amin(dim=(1, 2)).numpy()
        elif of:
            least[:, node] = -np.inf

    def standing(tau: float) -> list[tuple[int, int]]:
        """Return frames and nodes, in the order of their first tokens."""
        found: list[tuple[int, int]] = []

        def split(t: int, node: int) -> None:
            if not children[node] or least[t, node] >= tau:
                found.append((t, node))
            else:
                for child in children[node]:
                    split(t, child)

        for t in range(frames):
            for root in roots:
                split(t, root)
        return sorted(found, key=lambda one: (one[0], _first(boxes[one[1]], signals)))

    def links(found: Sequence[tuple[int, int]]) -> list[tuple[float, int, int]]:
        """Return similarity and places of linked nodes, most similar first."""
        of: list[list[int]] = [[] for _ in range(frames)]
        for place, (t, _) in enumerate(found):
            of[t].append(place)
        pairs = []
        for t in range(frames - 1):
            for a in of[t]:
                for b in of[t + 1]:
                    if within[found[a][1], found[b][1]]:
                        pairs.append((float(likeness[t][found[a][1], found[b][1]]), a, b))
        return sorted(pairs, reverse=True)

    inner = least[np.isfinite(least)]
    crossing = np.concatenate([one[within] for one in likeness]).astype(np.float64)
    steps = np.append(np.unique(np.concatenate((inner, (crossing + 1) / 2))), np.inf)
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        found = standing(steps[middle])
        joined = Groups(len(found))
        for similar, a, b in links(found):
            if similar >= 2 * steps[middle] - 1:
                joined.join(a, b)
        low, high = (low, middle) if joined.left >= count else (middle + 1, high)
    found = standing(steps[low])
    joined = Groups(len(found))
    for _, a, b in links(found):
        if joined.left == count:
            break
        joined.join(a, b)
    members: dict[int, list[int]] = {}
    for place in range(len(found)):
        members.setdefault(joined.find(place), []).append(place)
    keep, values = [], []
    for some in members.values():
        t, node = found[some[0]]
        keep.append(t * per_frame + _first(boxes[node], signals))
        values.append(torch.stack([nodes[found[one]] for one in some]).mean(dim=0))
    return torch.tensor(keep), torch.stack(values)


class Groups:
    """Groups of places that are joined one by one; a group is named by its first place."""

    def __init__(self, count: int) -> None:
        self.of, self.left = list(range(count)), count

    def find(self, place: int) -> int:
        """Return the first place of a group."""
        while self.of[place] != place:
            place = self.of[place]
        return place

    def join(self, a: int, b: int) -> None:
        """Join the groups of two places."""
        first, second = sorted((self.find(a), self.find(b)))
        if first != second:
            self.of[second] = first
            self.left -= 1


def quadtree(rows: int, cols: int) -> tuple[list[Box], list[list[int]], list[int]]:
    """Return boxes and children of all nodes, tokens first, and the nodes that trees begin at, below a whole frame."""
    boxes: list[Box] = [(r, r + 1, c, c + 1) for r in range(rows) for c in range(cols)]
    children: list[list[int]] = [[] for _ in boxes]
    level, sides = list(range(len(boxes))), (rows, cols)
    while max(sides) > 2:
        above = tuple(-(-side // 2) for side in sides)
        of: dict[tuple[int, int], list[int]] = {}
        for place, node in enumerate(level):
            row, col = divmod(place, sides[1])
            of.setdefault(((row + sides[0] % 2) // 2, (col + sides[1] % 2) // 2), []).append(node)
        level = []
        for key in itertools.product(range(above[0]), range(above[1])):
            parts = [boxes[node] for node in of[key]]
            level.append(len(boxes))
            boxes.append((parts[0][0], parts[-1][1], parts[0][2], parts[-1][3]))
            children.append(of[key])
        sides = (above[0], above[1])
    return boxes, children, level


def _inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and a[1] <= b[1] and b[2] <= a[2] and a[3] <= b[3]


def _first(box: Box, signals: Signals) -> int:
    assert signals.grid is not None
    return box[0] * signals.grid[1] + box[2]
