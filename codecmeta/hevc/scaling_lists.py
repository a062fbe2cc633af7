"""Scaling lists and scaling factors (Rec. ITU-T H.265, 7.3.4, 7.4.5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.hevc.tables import constants

FACTORS = 6 * (16 + 64 + 256 + 1024)
"""Scaling factors of all sizes and matrices."""

FIRST_FACTOR = (0, 6 * 16, 6 * (16 + 64), 6 * (16 + 64 + 256))
"""Index of the first factor of each size: 4x4, 8x8, 16x16, 32x32."""


class ScalingLists(NamedTuple):
    """Lists in up-right diagonal order by sizeId and matrixId (0 to 5), and DC factors of sizes 2 and 3."""

    lists: tuple[tuple[tuple[int, ...], ...], ...]
    dc: tuple[tuple[int, ...], ...]


def _default_list(size: int, matrix: int) -> tuple[int, ...]:
    if size == 0:
        return (16,) * 16
    return tuple(constants()["default_scaling"]["intra_8x8" if matrix < 3 else "inter_8x8"])


def default_lists() -> ScalingLists:
    """Return the lists of Tables 7-5 and 7-6."""
    lists = tuple(tuple(_default_list(size, matrix) for matrix in range(6)) for size in range(4))
    return ScalingLists(lists, ((16,) * 6, (16,) * 6))


def read_scaling_lists(reader: BitReader, *, chroma_32: bool) -> ScalingLists:
    """Parse scaling_list_data (7.3.4).

    Args:
        reader: at its first bit.
        chroma_32: chroma_format_idc is 3: its 32x32 factors come from the 16x16 lists.

    Raises:
        BitstreamError: a value is out of range, or the data end first.
    """
    lists = [list(one) for one in default_lists().lists]
    dc = [[16] * 6, [16] * 6]
    for size in range(4):
        step = 3 if size == 3 else 1
        for matrix in range(0, 6, step):
            if not reader.flag():
                delta = step * reader.ue(matrix // step, "scaling_list_pred_matrix_id_delta")
                source = matrix - delta
                lists[size][matrix] = lists[size][source] if delta else _default_list(size, matrix)
                if size > 1:
                    dc[size - 2][matrix] = dc[size - 2][source] if delta else 16
                continue
            following = 8
            if size > 1:
                following = 8 + _delta(reader, -7, 247, "scaling_list_dc_coef_minus8")
                dc[size - 2][matrix] = following
            values = []
            for _ in range(16 if size == 0 else 64):
                following = (following + _delta(reader, -128, 127, "scaling_list_delta_coef")) & 255
                values.append(following)
            lists[size][matrix] = tuple(values)
    if chroma_32:
        for matrix in (1, 2, 4, 5):
            lists[3][matrix], dc[1][matrix] = lists[2][matrix], dc[0][matrix]
    return ScalingLists(tuple(tuple(one) for one in lists), tuple(tuple(one) for one in dc))


def _delta(reader: BitReader, low: int, high: int, name: str) -> int:
    value = reader.se()
    if not low <= value <= high:
        raise BitstreamError(f"scaling list: {name} is {value}; {low} to {high} are allowed")
    return value


def scaling_factors(scaling: ScalingLists) -> NDArray[np.uint8]:
    """Return ScalingFactor (7-42 to 7-52) of all sizes: uint8 (FACTORS,), by size, matrixId and raster position."""
    factors = np.empty(FACTORS, np.uint8)
    for size in range(4):
        side = 4 << size
        coded = min(side, 8)
        x, y = np.array(constants()["scan"]["diag"][2 if size == 0 else 3]).T
        for matrix in range(6):
            square = np.empty((coded, coded), np.uint8)
            square[y, x] = scaling.lists[size][matrix]
            whole = square.repeat(side // coded, 0).repeat(side // coded, 1)
            if size > 1:
                whole[0, 0] = scaling.dc[size - 2][matrix]
            at = FIRST_FACTOR[size] + matrix * side * side
            factors[at : at + side * side] = whole.reshape(-1)
    return factors
