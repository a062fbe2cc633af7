"""Macroblock types of 16x16 cells (`mb_type`), common to all codecs.

They are those of H.264 (Rec. ITU-T H.264, Tables 7-11, 7-13 and 7-14) without lists and prediction modes.
`codecmeta.hevc.coding_unit` defines their meaning in HEVC.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOT_CODED = 0
I_4X4, I_8X8, I_16X16, I_PCM = 1, 2, 3, 4
P_16X16, P_16X8, P_8X16, P_8X8, P_SKIP = 5, 6, 7, 8, 9
B_DIRECT, B_16X16, B_16X8, B_8X16, B_8X8, B_SKIP = 10, 11, 12, 13, 14, 15

MB_TYPE_NAMES = (
    "not coded",
    "I_4x4",
    "I_8x8",
    "I_16x16",
    "I_PCM",
    "P_16x16",
    "P_16x8",
    "P_8x16",
    "P_8x8",
    "P_Skip",
    "B_Direct_16x16",
    "B_16x16",
    "B_16x8",
    "B_8x16",
    "B_8x8",
    "B_Skip",
)
"""Name of each value of `mb_type`: Tables 7-11, 7-13 and 7-14 without lists and prediction modes."""


def is_intra(mb_type: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which macroblocks are predicted within the picture, or not at all (I_PCM)."""
    return (mb_type >= I_4X4) & (mb_type <= I_PCM)
