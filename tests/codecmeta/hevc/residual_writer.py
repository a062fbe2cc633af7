"""Residual coding and what it stands for, written from the text of the standard (Rec. ITU-T H.265, 7.3.8.11, 8.6).

Nothing here is shared with the reader but the numbers of tables.json.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.codecmeta.entropy.arithmetic_encoder import ArithmeticEncoder

TABLES: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[3] / "codecmeta" / "hevc" / "tables.json").read_text()
)
OFFSET: dict[str, int] = {}
for _name, _values in TABLES["cabac_init_values"].items():
    OFFSET[_name] = sum(len(values[0]) for values in list(TABLES["cabac_init_values"].values())[: len(OFFSET)])
DIAGONAL, HORIZONTAL, VERTICAL = 0, 1, 2


def scan(side: int, kind: int) -> list[tuple[int, int]]:
    """Positions (x, y) of a block in coding order (6.5.3 to 6.5.5)."""
    if kind == HORIZONTAL:
        return [(x, y) for y in range(side) for x in range(side)]
    if kind == VERTICAL:
        return [(x, y) for x in range(side) for y in range(side)]
    return [(x, total - x) for total in range(2 * side - 1) for x in range(side) if 0 <= total - x < side]


class ContextCoder(ArithmeticEncoder):
    """Arithmetic encoder with the contexts of HEVC, and StatCoeff."""

    def initialise(self, init_type: int, qp: int) -> None:
        """Initialise the context variables (9.3.2.2)."""
        self.states = []
        for values in TABLES["cabac_init_values"].values():
            for value in values[init_type]:
                slope, intercept = (value >> 4) * 5 - 45, ((value & 15) << 3) - 16
                state = min(max(((slope * min(max(qp, 0), 51)) >> 4) + intercept, 1), 126)
                self.states.append([63 - state, 0] if state <= 63 else [state - 64, 1])
        self.statistics = [0, 0, 0, 0]

    def saved(self) -> tuple[list[list[int]], list[int]]:
        """Return the context variables and StatCoeff as they are."""
        return [list(state) for state in self.states], list(self.statistics)

    def restore(self, saved: tuple[list[list[int]], list[int]]) -> None:
        """Take over what `saved` gave."""
        self.states, self.statistics = [list(state) for state in saved[0]], list(saved[1])

    def flag(self, name: str, value: int, increment: int = 0) -> int:
        """One bin with a context."""
        self.bins(OFFSET[name] + increment, value)
        return value

    def fixed(self, value: int, count: int) -> None:
        """Bypass bins, the most significant first."""
        for bit in range(count - 1, -1, -1):
            self.bypass(value >> bit & 1)

    def exp_golomb(self, value: int, order: int) -> None:
        """EGk (9.3.3.5)."""
        while value >= 1 << order:
            self.bypass(1)
            value -= 1 << order
            order += 1
        self.bypass(0)
        self.fixed(value, order)

    def remaining(self, value: int, rice: int) -> None:
        """coeff_abs_level_remaining (9.3.3.11)."""
        prefix = value >> rice
        if prefix < 4:
            self.fixed((1 << prefix) - 1 << 1, prefix + 1)
            self.fixed(value, rice) if rice else None
            return
        self.fixed(15, 4)
        self.exp_golomb(value - (4 << rice), rice + 1)


def random_levels(rng: random.Random, size: int) -> NDArray[np.int64]:
    """Levels of a block, at least one of them not 0."""
    levels = np.zeros((size, size), np.int64)
    dense, extent = rng.random() < 0.2, rng.choice((1, 2, 4, size))
    count = size * size if dense else rng.randint(1, 6)
    for _ in range(count):
        x, y = rng.randrange(min(extent, size)), rng.randrange(min(extent, size))
        magnitude = rng.choice((1, 1, 1, 2, 3, rng.randint(1, 30), rng.randint(1, 3000)))
        if rng.random() < 0.003:
            magnitude = 32767
        levels[y, x] = magnitude * rng.choice((-1, 1))
    if not levels.any():
        levels[0, 0] = 1
    return levels


def _significant_context(
    log2: int, chroma: bool, kind: int, x: int, y: int, right: int, below: int, plain: bool
) -> int:
    """Return ctxInc of sig_coeff_flag (9.3.4.2.5)."""
    if plain:
        return 43 if chroma else 42
    if log2 == 2:
        context = TABLES["ctxIdxMap_4x4"][4 * y + x]
    elif x + y == 0:
        context = 0
    else:
        inner_x, inner_y = x & 3, y & 3
        if not right and not below:
            context = 2 if inner_x + inner_y == 0 else 1 if inner_x + inner_y < 3 else 0
        elif not below:
            context = 2 if inner_y == 0 else 1 if inner_y == 1 else 0
        elif not right:
            context = 2 if inner_x == 0 else 1 if inner_x == 1 else 0
        else:
            context = 2
        if chroma:
            context += 9 if log2 == 3 else 12
        else:
            context += 3 if x >> 2 or y >> 2 else 0
            context += (9 if kind == DIAGONAL else 15) if log2 == 3 else 21
    return context + (27 if chroma else 0)


def _write_last(coder: ContextCoder, name: str, value: int, log2: int, chroma: bool) -> tuple[int, int]:
    """Prefix of a last position; returns its suffix and how many bits that has."""
    prefix, count, suffix = value, 0, 0
    if value > 3:
        count = value.bit_length() - 2
        prefix = 2 * count + 2 + (value >> count & 1)
        suffix = value & ((1 << count) - 1)
    offset, shift = (15, log2 - 2) if chroma else (3 * (log2 - 2) + ((log2 - 1) >> 2), (log2 + 1) >> 2)
    for index in range(prefix):
        coder.flag(name, 1, offset + (index >> shift))
    if prefix < 2 * log2 - 1:
        coder.flag(name, 0, offset + (prefix >> shift))
    return suffix, count


def write_levels(
    coder: ContextCoder,
    levels: NDArray[np.int64],
    *,
    chroma: bool,
    kind: int,
    hiding: bool,
    plain: bool,
    skipped: bool,
    rice_adapts: bool,
) -> None:
    """residual_coding from the last position on; flips signs of `levels` where they are hidden.

    Args:
        coder: where to.
        levels: int64 (N, N), by row and column.
        chroma: cIdx > 0.
        kind: scanIdx.
        hiding: signs may be hidden.
        plain: the contexts of transform skip and bypass are in use.
        skipped: transform skip or bypass.
        rice_adapts: persistent_rice_adaptation_enabled_flag.
    """
    size = len(levels)
    log2 = size.bit_length() - 1
    blocks, inner = scan(size // 4, kind), scan(4, kind)
    order = [[(4 * bx + x, 4 * by + y) for x, y in inner] for bx, by in blocks]
    last_block = max(i for i, block in enumerate(order) if any(levels[y, x] for x, y in block))
    last = max(n for n, (x, y) in enumerate(order[last_block]) if levels[y, x])
    x, y = order[last_block][last]
    if kind == VERTICAL:
        x, y = y, x
    suffixes = [
        _write_last(coder, f"last_sig_coeff_{axis}_prefix", value, log2, chroma) for axis, value in (("x", x), ("y", y))
    ]
    for suffix, count in suffixes:
        coder.fixed(suffix, count)
    coded: set[tuple[int, int]] = set()
    greater_context = 1
    for number in range(last_block, -1, -1):
        bx, by = blocks[number]
        right, below = int((bx + 1, by) in coded), int((bx, by + 1) in coded)
        places = order[number]
        has = any(levels[y, x] for x, y in places)
        inferred = False
        if 0 < number < last_block:
            coder.flag("coded_sub_block_flag", int(has), (right | below) + (2 if chroma else 0))
            if not has:
                continue
            inferred = True
        coded.add((bx, by))
        for n in range(last - 1 if number == last_block else 15, -1, -1):
            x, y = places[n]
            if n == 0 and inferred and not any(levels[b, a] for a, b in places[1:]):
                break
            context = _significant_context(log2, chroma, kind, x, y, right, below, plain)
            coder.flag("sig_coeff_flag", int(levels[y, x] != 0), context)
        found = [places[n] for n in range(15, -1, -1) if levels[places[n][1], places[n][0]]]
        if found:
            hides = hiding and places.index(found[0]) - places.index(found[-1]) > 3
            first = number == 0 or chroma
            level_set = (0 if first else 2) + (greater_context == 0)
            greater_context = _write_sub_block(
                coder, levels, found, chroma, level_set, hides, 2 * (not chroma) + skipped, rice_adapts
            )


def _write_sub_block(
    coder: ContextCoder,
    levels: NDArray[np.int64],
    found: list[tuple[int, int]],
    chroma: bool,
    level_set: int,
    hides: bool,
    statistic: int,
    rice_adapts: bool,
) -> int:
    """Levels of the coefficients of a sub-block; returns the last greater1Ctx."""
    sizes = [abs(int(levels[y, x])) for x, y in found]
    if hides:
        x, y = found[-1]
        levels[y, x] = -sizes[-1] if sum(sizes) & 1 else sizes[-1]
    context, first_greater = 1, -1
    for number, value in enumerate(sizes[:8]):
        increment = 4 * level_set + min(3, context) + (16 if chroma else 0)
        coder.flag("coeff_abs_level_greater1_flag", int(value > 1), increment)
        if value > 1:
            context = 0
            first_greater = number if first_greater < 0 else first_greater
        elif context:
            context += 1
    if first_greater >= 0:
        increment = level_set + (4 if chroma else 0)
        coder.flag("coeff_abs_level_greater2_flag", int(sizes[first_greater] > 2), increment)
    for x, y in found[: len(found) - hides]:
        coder.bypass(int(levels[y, x] < 0))
    rice = coder.statistics[statistic] // 4 if rice_adapts else 0
    first = True
    for number, value in enumerate(sizes):
        base = (3 if number == first_greater else 2) if number < 8 else 1
        if value < base:
            continue
        rest = value - base
        coder.remaining(rest, rice)
        if rice_adapts and first:
            kept = coder.statistics[statistic]
            if rest >= 3 << (kept // 4):
                coder.statistics[statistic] += 1
            elif 2 * rest < 1 << (kept // 4) and kept:
                coder.statistics[statistic] -= 1
        first = False
        if value > 3 << rice:
            rice = rice + 1 if rice_adapts else min(rice + 1, 4)
    return context


def scale(levels: NDArray[np.int64], weights: NDArray[np.int64], qp: int, depth: int) -> NDArray[np.int64]:
    """Scaled transform coefficients (8-309)."""
    shift = depth + len(levels).bit_length() - 1 - 5
    factor = TABLES["levelScale"][qp % 6] << (qp // 6)
    return np.clip((levels * weights * factor + (1 << (shift - 1))) >> shift, -32768, 32767)


def transform(coefficients: NDArray[np.int64], depth: int, *, sine: bool) -> NDArray[np.int64]:
    """Inverse transform with both roundings (8.6.4.2, 8.6.2)."""
    size = len(coefficients)
    whole = np.array(TABLES["transform_matrix_32"], np.int64)
    matrix = np.array(TABLES["transform_dst_4"], np.int64) if sine else whole[:: 32 // size, :size]
    half = np.clip((matrix.T @ coefficients + 64) >> 7, -32768, 32767)
    return (half @ matrix + (1 << (19 - depth))) >> (20 - depth)


def default_weights(size: int, *, inter: bool) -> NDArray[np.int64]:
    """Scaling factors of the default lists (7.4.5)."""
    if size == 4:
        return np.full((4, 4), 16, np.int64)
    values = TABLES["default_scaling"]["inter_8x8" if inter else "intra_8x8"]
    square = np.zeros((8, 8), np.int64)
    for value, (x, y) in zip(values, scan(8, DIAGONAL), strict=True):
        square[y, x] = value
    weights = square.repeat(size // 8, 0).repeat(size // 8, 1)
    if size > 8:
        weights[0, 0] = 16
    return weights
