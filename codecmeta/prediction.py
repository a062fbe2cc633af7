"""Motion-compensated prediction of one block: vector arithmetic of each standard over `interpolation`.

Vectors are in quarter luma samples, chroma vectors in eighths of a chroma sample, for every standard. A reference
picture continues beyond its edges with its border samples (Rec. ITU-T H.264, 8.4.2.2.1; 14496-2, 7.6.4).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numba as nb
import numpy as np

from codecmeta.errors import UsageError
from codecmeta.interpolation import (
    MARGIN_AFTER,
    MARGIN_BEFORE,
    h264_chroma,
    h264_luma,
    half_sample,
    mpeg4_quarter,
)

Standard: TypeAlias = Literal["h264", "mpeg1", "mpeg2", "mpeg4", "mpeg4_qpel", "h263"]
"""Whose interpolation and chroma vectors apply; mpeg4_qpel is MPEG-4 part 2 with quarter_sample = 1."""

H264, MPEG2, H263, MPEG4_QPEL = range(4)
FILTERS: dict[str, int] = {
    "h264": H264,
    "mpeg1": MPEG2,
    "mpeg2": MPEG2,
    "mpeg4": H263,
    "h263": H263,
    "mpeg4_qpel": MPEG4_QPEL,
}

BLOCK = 16
"""Largest side of a predicted block."""
WINDOW = BLOCK + MARGIN_BEFORE + MARGIN_AFTER


def filter_of(standard: str) -> int:
    """Filter code of a standard.

    Raises:
        UsageError: the standard is not known.
    """
    if standard not in FILTERS:
        raise UsageError(f"standard {standard!r} is unknown; allowed: {', '.join(FILTERS)}")
    return FILTERS[standard]


@nb.njit(cache=True, nogil=True)
def scratch(plane):  # type: ignore[no-untyped-def]
    """Working memory for predictions from planes like this one: window, second prediction, int32 sums."""
    return (
        np.empty((WINDOW, WINDOW), plane.dtype),
        np.empty((BLOCK, BLOCK), plane.dtype),
        np.empty((WINDOW, BLOCK), np.int32),
    )


@nb.njit(cache=True, nogil=True)
def _fetch(plane, y, x, window):  # type: ignore[no-untyped-def]
    last_row = plane.shape[0] - 1
    last_col = plane.shape[1] - 1
    for row in range(WINDOW):
        line = plane[min(max(y + row, 0), last_row)]
        for col in range(WINDOW):
            window[row, col] = line[min(max(x + col, 0), last_col)]


@nb.njit(cache=True, nogil=True, inline="always")
def _inside(plane, y, x, height, width):  # type: ignore[no-untyped-def]
    return (
        y >= MARGIN_BEFORE
        and x >= MARGIN_BEFORE
        and y + height + MARGIN_AFTER <= plane.shape[0]
        and x + width + MARGIN_AFTER <= plane.shape[1]
    )


@nb.njit(cache=True, nogil=True)
def predict_luma(plane, y, x, height, width, dy, dx, code, rounding, top, out, work):  # type: ignore[no-untyped-def]
    """Prediction of the block whose top-left sample is (y, x) from ``plane`` displaced by (dy, dx) quarters."""
    window, extra, sums = work
    row = y + (dy >> 2)
    col = x + (dx >> 2)
    source = plane
    if not _inside(plane, row, col, height, width):
        _fetch(plane, row - MARGIN_BEFORE, col - MARGIN_BEFORE, window)
        source = window
        row = MARGIN_BEFORE
        col = MARGIN_BEFORE
    fy = dy & 3
    fx = dx & 3
    if code == H264:
        h264_luma(source, row, col, fy, fx, height, width, top, out, extra, sums)
    elif code == MPEG4_QPEL:
        mpeg4_quarter(source, row, col, fy, fx, height, width, rounding, out, sums)
    else:
        half_sample(source, row, col, fy >> 1, fx >> 1, height, width, rounding, out)


@nb.njit(cache=True, nogil=True)
def predict_chroma(plane, y, x, height, width, dy, dx, code, rounding, out, work):  # type: ignore[no-untyped-def]
    """As `predict_luma` for a chroma plane, displacement in eighths of its samples."""
    row = y + (dy >> 3)
    col = x + (dx >> 3)
    source = plane
    if not _inside(plane, row, col, height, width):
        _fetch(plane, row - MARGIN_BEFORE, col - MARGIN_BEFORE, work[0])
        source = work[0]
        row = MARGIN_BEFORE
        col = MARGIN_BEFORE
    if code == H264:
        h264_chroma(source, row, col, dy & 7, dx & 7, height, width, out)
    else:
        half_sample(source, row, col, (dy & 7) >> 2, (dx & 7) >> 2, height, width, rounding, out)


@nb.njit(cache=True, nogil=True, inline="always")
def _towards_zero(value):  # type: ignore[no-untyped-def]
    return (value + 1) >> 1 if value < 0 else value >> 1


@nb.njit(cache=True, nogil=True)
def chroma_component(d, shift, code):  # type: ignore[no-untyped-def]
    """Chroma vector component in eighths from a luma component in quarters, for subsampling ``1 << shift``.

    H.264 8.4.1.4 and 8.4.2.2.2; MPEG-1/2: 13818-2, 7.6.3.7; H.263 6.1.1 and 14496-2, 7.6.2.1.
    """
    if shift == 0:
        return d << 1
    if code == H264:
        return d
    if code == MPEG4_QPEL:
        half = _towards_zero(d)
        return ((half >> 1) | (half & 1)) << 2
    half = d >> 1
    if code == MPEG2:
        return _towards_zero(half) << 2
    return (2 * (half >> 2) + (1 if half & 3 else 0)) << 2


@nb.njit(cache=True, nogil=True)
def chroma_component_of_four(total):  # type: ignore[no-untyped-def]
    """Chroma component in eighths from the sum of a macroblock's four luma components in half samples.

    The sum counts sixteenths of a chroma sample, which are rounded to the nearest half sample, sixteenths 3
    to 13 to the middle (14496-2, 7.6.2.1, Table 7-9; H.263, Table F.1).
    """
    part = total & 15
    return (2 * (total >> 4) + (0 if part < 3 else 1 if part < 14 else 2)) << 2
