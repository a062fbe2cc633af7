"""Scaling lists and level scale factors (Rec. ITU-T H.264, 7.3.2.1.1.1, 7.4.2.1.1.1, 8.5.9)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError
from codecmeta.h264.tables import constants, zigzag

ScalingLists: TypeAlias = tuple[tuple[int, ...], ...]
"""Twelve lists in zig-zag order: 4x4 Intra Y, Cb, Cr, Inter Y, Cb, Cr; 8x8 Intra Y, Inter Y, Intra Cb to Inter Cr."""

# normAdjust4x4 (8-315) and normAdjust8x8 (8-318): v by qP % 6 and class of position
_NORM_4X4 = ((10, 16, 13), (11, 18, 14), (13, 20, 16), (14, 23, 18), (16, 25, 20), (18, 29, 23))
_NORM_8X8 = (
    (20, 18, 32, 19, 25, 24),
    (22, 19, 35, 21, 28, 26),
    (26, 23, 42, 24, 33, 31),
    (28, 25, 45, 26, 35, 33),
    (32, 28, 51, 30, 40, 38),
    (36, 32, 58, 34, 46, 43),
)


def default_lists(*, flat: bool) -> ScalingLists:
    """Return flat lists of 16, or the default lists of Tables 7-3 and 7-4."""
    if flat:
        return ((16,) * 16,) * 6 + ((16,) * 64,) * 6
    default = constants()["default_scaling"]
    four = tuple(tuple(default[f"4x4_{kind}"][place] for place in zigzag(4)) for kind in ("intra", "inter"))
    eight = tuple(tuple(default[f"8x8_{kind}"][place] for place in zigzag(8)) for kind in ("intra", "inter"))
    return (four[0],) * 3 + (four[1],) * 3 + eight * 3


def read_scaling_lists(reader: BitReader, count: int, fallback: ScalingLists) -> ScalingLists:
    """Parse `count` scaling lists with their present flags.

    Args:
        reader: at the first scaling_list_present_flag.
        count: 6, 8 or 12 lists.
        fallback: lists that replace an absent first list of a kind (Table 7-2): the default lists for rule A, those of
            the sequence for rule B. Any other absent list repeats its predecessor of the same kind.

    Raises:
        BitstreamError: a delta is out of range, or the data end first.
    """
    lists = list(fallback)
    default = default_lists(flat=False)
    for number in range(12):
        size = 16 if number < 6 else 64
        if number < count and reader.flag():
            lists[number] = _read_list(reader, size) or default[number]
        elif number in (0, 3, 6, 7):
            lists[number] = fallback[number]
        else:
            lists[number] = lists[number - (1 if number < 6 else 2)]
    return tuple(lists)


def _read_list(reader: BitReader, size: int) -> tuple[int, ...]:
    """Read scaling_list (7.3.2.1.1.1); return () where it selects the default list."""
    values: list[int] = []
    last = following = 8
    for _ in range(size):
        if following:
            delta = reader.se()
            if not -128 <= delta <= 127:
                raise BitstreamError(f"scaling list: delta_scale {delta} is outside -128..127")
            following = (last + delta) & 255
            if not values and following == 0:
                return ()
        last = following or last
        values.append(last)
    return tuple(values)


def level_scale(lists: ScalingLists) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return LevelScale4x4 and LevelScale8x8 (8-313, 8-317) in raster order.

    Returns:
        int32 (6, 6, 16), indexed by list, qP % 6 and position, and int32 (6, 6, 64); the 8x8 lists are ordered like the
        4x4 ones: Intra Y, Cb, Cr, Inter Y, Cb, Cr.
    """
    y, x = np.divmod(np.arange(16), 4)
    class_4x4 = np.where((x % 2 == 0) & (y % 2 == 0), 0, np.where((x % 2 == 1) & (y % 2 == 1), 1, 2))
    y, x = np.divmod(np.arange(64), 8)
    class_8x8 = np.select(
        [
            (x % 4 == 0) & (y % 4 == 0),
            (x % 2 == 1) & (y % 2 == 1),
            (x % 4 == 2) & (y % 4 == 2),
            ((x % 4 == 0) & (y % 2 == 1)) | ((x % 2 == 1) & (y % 4 == 0)),
            ((x % 4 == 0) & (y % 4 == 2)) | ((x % 4 == 2) & (y % 4 == 0)),
        ],
        [0, 1, 2, 3, 4],
        5,
    )
    four = np.zeros((6, 6, 16), np.int32)
    eight = np.zeros((6, 6, 64), np.int32)
    weight_4x4, weight_8x8 = np.zeros(16, np.int64), np.zeros(64, np.int64)
    for number in range(6):
        weight_4x4[zigzag(4)] = lists[number]
        weight_8x8[zigzag(8)] = lists[6 + 2 * (number % 3) + number // 3]
        four[number] = weight_4x4 * np.array(_NORM_4X4)[:, class_4x4]
        eight[number] = weight_8x8 * np.array(_NORM_8X8)[:, class_8x8]
    return four, eight
