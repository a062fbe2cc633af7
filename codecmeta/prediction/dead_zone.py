"""Dead zone of H.264: quantiser steps, and the residual energy below which a block counts as not coded."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray


def quantiser_step(qp: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the quantiser step of H.264: 0.625 at QP 0, doubled every 6 (H.264, 8.5.9, normAdjust over 16)."""
    return np.asarray(np.array([0.625, 0.6875, 0.8125, 0.875, 1.0, 1.125])[qp % 6] * 2.0 ** (qp // 6))


def chroma_quantiser(qp: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return QP_C for a luma QP and a chroma offset of 0 (Rec. ITU-T H.264, Table 8-15)."""
    above = np.array([29, 30, 31, 32, 32, 33, 34, 34, 35, 35, 36, 36, 37, 37, 37, 38, 38, 38, 39, 39, 39, 39])
    return np.asarray(np.where(qp < 30, qp, above[np.clip(qp - 30, 0, 21)]))


@cache
def dead_zones(bit_depth: int = 8) -> NDArray[np.float64]:
    """Return the sum of squares below which a 4x4 block counts as not coded: 16 (Qstep / 8)².

    Args:
        bit_depth: bits per sample.

    Returns:
        float64 (2, 256), read-only: limits for luma and for chroma, for each quantiser from -128 on as
        `side_data.quantisers` returns them, which includes the 6 steps per bit beyond 8.
    """
    offset = 6 * (bit_depth - 8)
    luma = np.arange(-128, 128)
    chroma = chroma_quantiser(luma - offset) + offset
    limits = np.stack([quantiser_step(luma), quantiser_step(chroma)]) ** 2 / 4
    limits.setflags(write=False)
    return limits
