"""Cells: a grid of tokens divided into any number of nearly square rectangles."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from compress.stage import Signals


def grid_of(signals: Signals, per_frame: int) -> tuple[tuple[int, int], dict[str, str]]:
    """Return rows and columns of a frame's tokens, and a note where they are not known."""
    if signals.grid is not None and signals.grid[0] * signals.grid[1] == per_frame:
        return signals.grid, {}
    given = "none given" if signals.grid is None else f"{signals.grid[0]} x {signals.grid[1]} does not fit"
    return (1, per_frame), {"grid": f"one row of {per_frame} tokens ({given})"}


def bands_of(rows: int, cols: int, count: int) -> NDArray[np.int64]:
    """Count the cells in each band of rows that ``count`` cells are laid out in, int64 (bands,).

    The number of bands makes the cells nearly square; numbers of cells differ by at most one.

    Args:
        rows: of the grid.
        cols: of the grid.
        count: at least 1, at most rows * cols.
    """
    fewest, most = -(-count // cols), min(rows, count)
    bands = min(max(round(math.sqrt(count * rows / cols)), fewest), most)
    edges = np.arange(bands + 1) * count // bands
    return np.diff(edges)


def whole_cells(rows: int, cols: int, count: int) -> NDArray[np.int64]:
    """Return the cell of every token, int64 (rows * cols,), for cells of whole tokens, numbered in raster order."""
    bands = bands_of(rows, cols, count)
    start = np.cumsum(bands) - bands
    band = (np.arange(rows) * len(bands) + len(bands) - 1) // rows  # band b begins at row floor(b rows / bands)
    width = bands[band][:, None]
    return (start[band][:, None] + (np.arange(cols) * width + width - 1) // cols).ravel()


def fractional_cells(
    rows: int, cols: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Divide into cells of equal height, and of equal width within a band; tokens count by the area they share.

    Returns:
        Entries of the averaging matrix: cell, token, weight; the weights of a cell sum to 1.
    """
    bands = bands_of(rows, cols, count)
    cell, token, weight = [], [], []
    start = 0
    down = _overlaps(rows, len(bands))
    for band, width in enumerate(bands.tolist()):
        across = _overlaps(cols, width)
        share = down[band][None, :, None] * across[:, None, :]
        where, row, col = np.nonzero(share)
        cell.append(start + where)
        token.append(row * cols + col)
        weight.append(share[where, row, col])
        start += width
    return np.concatenate(cell), np.concatenate(token), np.concatenate(weight)


def cell_centres(rows: int, cols: int, count: int) -> NDArray[np.int64]:
    """Return the token at the centre of every cell of equal size, int64 (count,), strictly ascending."""
    bands = bands_of(rows, cols, count)
    centres = []
    for band, width in enumerate(bands.tolist()):
        row = (2 * band + 1) * rows // (2 * len(bands))
        centres.append(row * cols + (2 * np.arange(width) + 1) * cols // (2 * width))
    return np.concatenate(centres)


def _overlaps(places: int, parts: int) -> NDArray[np.float64]:
    """Return the share of each part of equal length that lies in each place, (parts, places); rows sum to 1."""
    edge = np.arange(parts + 1) * places / parts
    low = np.maximum(edge[:-1, None], np.arange(places)[None])
    high = np.minimum(edge[1:, None], np.arange(places)[None] + 1)
    shared = np.maximum(high - low, 0)
    shared[shared < 1e-9] = 0
    return np.asarray(shared / shared.sum(axis=1, keepdims=True))
