"""ToMe's matching by comparing every pair, and STTM's quadtrees by recursion, in float64."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from tests.oracle.metom import cosine

Box = tuple[int, int, int, int]
"""First row, stop of rows, first column, stop of columns."""


def match(metric: NDArray, count: int, *, protected: bool = False) -> list[tuple[int, int]]:
    """Return (source, target) of the best edges from tokens 0, 2, 4 ... to tokens 1, 3, 5 ..., best first."""
    total = len(metric)
    edges = []
    for source in range(2 if protected else 0, total, 2):
        similar = [(cosine(metric[source], metric[target]), -target) for target in range(1, total, 2)]
        value, target = max(similar, default=(-2.0, 0))
        edges.append((value, -source, target))
    edges.sort(reverse=True)
    return [(-source, -target) for _, source, target in edges[: min(count, (total - protected) // 2)]]


def tome_video(
    tokens: NDArray, count: int, *, in_order: bool = True, size_weighted: bool = True
) -> list[tuple[int, NDArray]]:
    """Return (first-hand token, value) of what stays, in the order in which it leaves."""
    live = [(i, token, 1) for i, token in enumerate(tokens)]
    while len(live) > count:
        metric = np.array([token for _, token, _ in live])
        merged = match(metric, len(live) - count)
        every = match(metric, len(live))
        ranked = [source for source, _ in every]  # by falling similarity
        ranked += [i for i in range(0, len(live), 2) if i not in ranked]
        gone = dict(merged)
        joined: dict[int, list[int]] = {}
        for source, target in merged:
            joined.setdefault(target, []).append(source)
        stays = [i for i in ranked if i not in gone] + list(range(1, len(live), 2))
        after = []
        for i in stays:
            members = [live[i], *(live[j] for j in joined.get(i, []))]
            weights = [size if size_weighted else 1 for _, _, size in members]
            value = sum(w * token for w, (_, token, _) in zip(weights, members, strict=True)) / sum(weights)
            after.append((live[i][0], value, sum(size for _, _, size in members)))
        live = sorted(after, key=lambda one: one[0]) if in_order else after
    return [(i, value) for i, value, _ in live]


class Tree:
    """The quadtree of one frame.

    Attributes:
        edges: per level, where rows and where columns of nodes begin and end.
    """

    def __init__(self, tokens: NDArray, grid: tuple[int, int]) -> None:
        self.tokens = tokens.reshape(*grid, -1)
        self.edges = [tuple(list(range(side + 1)) for side in grid)]
        while any(len(edges) > 2 for edges in self.edges[-1]):
            self.edges.append(tuple(self._pair(edges) for edges in self.edges[-1]))

    @staticmethod
    def _pair(edges: list[int]) -> list[int]:
        cells = len(edges) - 1
        return edges[::2] if cells % 2 == 0 else [edges[0], *edges[1::2]]

    def boxes(self, level: int) -> list[Box]:
        rows, cols = self.edges[level]
        return [(a, b, c, d) for (a, b), (c, d) in product(pairwise(rows), pairwise(cols))]

    def children(self, level: int, box: Box) -> list[Box]:
        return [one for one in self.boxes(level - 1) if inside(one, box)]

    def value(self, level: int, box: Box) -> NDArray:
        if level == 0:
            return self.tokens[box[0], box[2]]
        return np.mean([self.value(level - 1, child) for child in self.children(level, box)], axis=0)

    def standing(self, level: int, box: Box, tau: float, *, quirks: bool) -> list[tuple[Box, NDArray]]:
        mine = self.value(level, box)
        if level == 0:
            return [(box, mine)]
        children = self.children(level, box)
        compared = [self.value(level - 1, child) for child in children]
        if quirks and len(children) < 4:
            compared.append(self.value(level - 1, self.boxes(level - 1)[0]))
        if (len(children) > 1 or quirks) and all(cosine(one, mine) >= tau for one in compared):
            return [(box, mine)]
        return [node for child in children for node in self.standing(level - 1, child, tau, quirks=quirks)]


def inside(one: Box, other: Box) -> bool:
    return other[0] <= one[0] and one[1] <= other[1] and other[2] <= one[2] and one[3] <= other[3]


def sttm(
    tokens: NDArray,
    grid: tuple[int, int],
    tau_s: float,
    tau_t: float,
    *,
    root_level: int = 1,
    weighted: bool = False,
    quirks: bool = False,
) -> dict[int, NDArray]:
    """Return {first token: value} of the groups, by depth-first search over all links."""
    per_frame = grid[0] * grid[1]
    nodes: list[tuple[int, Box, NDArray]] = []
    for t, frame in enumerate(tokens):
        tree = Tree(frame, grid)
        top = max(0, len(tree.edges) - 1 - root_level)
        found = [node for box in tree.boxes(top) for node in tree.standing(top, box, tau_s, quirks=quirks)]
        nodes += [(t, *node) for node in sorted(found, key=lambda node: (node[0][0], node[0][2]))]
    links = {
        i: [
            j
            for j, (t, box, value) in enumerate(nodes)
            if abs(t - nodes[i][0]) == 1
            and (inside(box, nodes[i][1]) or inside(nodes[i][1], box))
            and cosine(value, nodes[i][2]) >= tau_t
        ]
        for i in range(len(nodes))
    }
    answer, seen = {}, set()
    for i, (t, box, _) in enumerate(nodes):
        if i in seen:
            continue
        front, group = [i], {i}
        while front:
            for j in links[front.pop()]:
                if j not in group:
                    group.add(j)
                    front.append(j)
        seen |= group
        sizes = [
            (nodes[j][1][1] - nodes[j][1][0]) * (nodes[j][1][3] - nodes[j][1][2]) if weighted else 1 for j in group
        ]
        mean = sum(s * nodes[j][2] for s, j in zip(sizes, group, strict=True)) / sum(sizes)
        answer[t * per_frame + box[0] * grid[1] + box[2]] = mean
    return answer
