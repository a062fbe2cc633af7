"""Sub-pel prediction written straight from the standards, sample by sample, in Python integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.int64]


def at(plane: Plane, y: int, x: int) -> int:
    height, width = plane.shape
    return int(plane[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])


def clip(value: int, top: int) -> int:
    return min(max(value, 0), top)


def h264_luma_sample(plane: Plane, y: int, x: int, fy: int, fx: int, top: int = 255) -> int:
    """Rec. ITU-T H.264, 8.4.2.2.1, names of Figure 8-4."""

    def tap(values: list[int]) -> int:
        return sum(w * v for w, v in zip((1, -5, 20, 20, -5, 1), values, strict=True))

    def b1(row: int, col: int) -> int:
        return tap([at(plane, row, col + k) for k in range(-2, 4)])

    def h1(row: int, col: int) -> int:
        return tap([at(plane, row + k, col) for k in range(-2, 4)])

    whole_g = at(plane, y, x)
    whole_h = at(plane, y, x + 1)
    whole_m = at(plane, y + 1, x)
    b = clip((b1(y, x) + 16) >> 5, top)
    s = clip((b1(y + 1, x) + 16) >> 5, top)
    h = clip((h1(y, x) + 16) >> 5, top)
    m = clip((h1(y, x + 1) + 16) >> 5, top)
    j = clip((tap([b1(y + k, x) for k in range(-2, 4)]) + 512) >> 10, top)
    pairs = {
        (0, 0): (whole_g, whole_g),
        (0, 1): (whole_g, b),
        (0, 2): (b, b),
        (0, 3): (b, whole_h),
        (1, 0): (whole_g, h),
        (2, 0): (h, h),
        (3, 0): (h, whole_m),
        (1, 1): (b, h),
        (1, 2): (b, j),
        (1, 3): (b, m),
        (2, 1): (h, j),
        (2, 2): (j, j),
        (2, 3): (j, m),
        (3, 1): (h, s),
        (3, 2): (j, s),
        (3, 3): (s, m),
    }
    first, second = pairs[fy, fx]
    return (first + second + 1) >> 1


def h264_luma(plane: Plane, y: int, x: int, height: int, width: int, dy: int, dx: int, top: int = 255) -> Plane:
    return np.array(
        [
            [h264_luma_sample(plane, y + r + (dy >> 2), x + c + (dx >> 2), dy & 3, dx & 3, top) for c in range(width)]
            for r in range(height)
        ]
    )


def h264_chroma(plane: Plane, y: int, x: int, height: int, width: int, dy: int, dx: int) -> Plane:
    """8.4.2.2.2, displacements in eighths of a chroma sample."""
    y0, x0, fy, fx = y + (dy >> 3), x + (dx >> 3), dy & 7, dx & 7
    return np.array(
        [
            [
                (
                    (8 - fx) * (8 - fy) * at(plane, y0 + r, x0 + c)
                    + fx * (8 - fy) * at(plane, y0 + r, x0 + c + 1)
                    + (8 - fx) * fy * at(plane, y0 + r + 1, x0 + c)
                    + fx * fy * at(plane, y0 + r + 1, x0 + c + 1)
                    + 32
                )
                >> 6
                for c in range(width)
            ]
            for r in range(height)
        ]
    )


def half_sample(plane: Plane, y: int, x: int, height: int, width: int, dy: int, dx: int, rounding: int) -> Plane:
    """MPEG half-sample prediction, displacements in half samples: mean of 1, 2 or 4 samples, halves up or down."""
    y0, x0, fy, fx = y + (dy >> 1), x + (dx >> 1), dy & 1, dx & 1
    block = np.zeros((height, width), np.int64)
    for r in range(height):
        for c in range(width):
            samples = [at(plane, y0 + r + j, x0 + c + i) for j in range(fy + 1) for i in range(fx + 1)]
            half = len(samples) // 2
            block[r, c] = (sum(samples) + max(half - rounding, 0)) // len(samples)
    return block


def mpeg4_quarter(plane: Plane, y: int, x: int, height: int, width: int, dy: int, dx: int, rounding: int) -> Plane:
    """ISO/IEC 14496-2, 7.6.2.2: rows, then columns, of the block's own (height + 1) x (width + 1) samples."""
    y0, x0 = y + (dy >> 2), x + (dx >> 2)
    own = np.array([[at(plane, y0 + r, x0 + c) for c in range(width + 1)] for r in range(height + 1)])
    rows = np.array([_quarter_line(list(row), dx & 3, rounding) for row in own])
    columns = np.array([_quarter_line(list(column), dy & 3, rounding) for column in rows.T])
    return columns.T


def _quarter_line(line: list[int], fraction: int, rounding: int) -> list[int]:
    count = len(line) - 1
    if fraction == 0:
        return [int(v) for v in line[:count]]
    mirrored = line[2::-1] + line + line[:-4:-1]
    weights = (-1, 3, -6, 20, 20, -6, 3, -1)
    halves = [
        clip((sum(w * int(v) for w, v in zip(weights, mirrored[i : i + 8], strict=True)) + 16 - rounding) >> 5, 255)
        for i in range(count)
    ]
    if fraction == 2:
        return halves
    whole = line[:count] if fraction == 1 else line[1:]
    return [(h + int(w) + 1 - rounding) >> 1 for h, w in zip(halves, whole, strict=True)]
