"""Motion-compensated prediction of one block: vector arithmetic of each standard over `interpolation`.

Vectors are in quarter luma samples, chroma vectors in eighths of a chroma sample, for every standard. A reference
picture continues beyond its edges with its border samples (Rec. ITU-T H.264, 8.4.2.2.1; 14496-2, 7.6.4).
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numba as nb
import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.interpolation import (
    BLOCK,
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

WINDOW = BLOCK + MARGIN_BEFORE + MARGIN_AFTER
"""Side of the largest window that a filter reads."""


def filter_of(standard: str) -> int:
    """Filter code of a standard.

    Raises:
        UsageError: the standard is not known.
    """
    if standard not in FILTERS:
        raise UsageError(f"standard {standard!r} is unknown; allowed: {', '.join(FILTERS)}")
    return FILTERS[standard]


def scratch(dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int32]]:
    """Working memory for predictions of one sample type: clamped window, second block, int32 sums."""
    return (
        np.empty(WINDOW * WINDOW, dtype),
        np.empty(BLOCK * BLOCK, dtype),
        np.empty(WINDOW * BLOCK, np.int32),
    )


@nb.njit(cache=True, nogil=True)
def _fetch(plane, size, y, x, rows, window):  # type: ignore[no-untyped-def]
    """Copy the window at (y, x) of a flat plane of ``size``, its border samples continued outwards."""
    height, width = size
    for row in range(rows):
        line = min(max(y + row, 0), height - 1) * width
        for col in range(WINDOW):
            window[row * WINDOW + col] = plane[line + min(max(x + col, 0), width - 1)]


@nb.njit(cache=True, nogil=True, inline="always")
def _is_inside(size, y, x, height):  # type: ignore[no-untyped-def]
    """Whether the filters, which compute whole rows of BLOCK samples, stay in the plane."""
    return (
        y >= MARGIN_BEFORE
        and x >= MARGIN_BEFORE
        and y + height + MARGIN_AFTER <= size[0]
        and x + BLOCK + MARGIN_AFTER <= size[1]
    )


@nb.njit(cache=True, nogil=True)
def predict_luma(plane, size, block, dy, dx, rule, out, base, work):  # type: ignore[no-untyped-def]
    """Prediction of a block from a plane, displaced by (dy, dx) quarter samples.

    Args:
        plane: flat samples of the reference.
        size: its height and width.
        block: y, x of the block's top-left sample, its height and width.
        dy: vertical displacement.
        dx: horizontal displacement.
        rule: filter code, rounding, largest sample value, columns to compute (BLOCK).
        out: flat array for the result.
        base: index in it.
        work: `scratch`.

    Returns:
        Flat array, index and row length where the prediction stands: ``out``, or the plane itself where the
        displacement is whole and stays inside.
    """
    y, x, height, width = block
    code, rounding, top, columns = rule
    row = y + (dy >> 2)
    col = x + (dx >> 2)
    fy = dy & 3
    fx = dx & 3
    source = plane
    stride = size[1]
    start = row * stride + col
    if not _is_inside(size, row, col, height):
        _fetch(plane, size, row - MARGIN_BEFORE, col - MARGIN_BEFORE, height + MARGIN_BEFORE + MARGIN_AFTER, work[0])
        source = work[0]
        stride = WINDOW
        start = MARGIN_BEFORE * WINDOW + MARGIN_BEFORE
    elif fy == 0 and fx == 0:
        return plane, start, stride
    if code == H264:
        h264_luma(source, start, stride, fy, fx, height, columns, top, out, base, work[1], work[2])
    elif code == MPEG4_QPEL:
        mpeg4_quarter(source, start, stride, fy, fx, height, width, rounding, out, base, work[2])
    else:
        half_sample(source, start, stride, fy >> 1, fx >> 1, height, columns, rounding, out, base)
    return out, base, BLOCK


@nb.njit(cache=True, nogil=True)
def predict_chroma(plane, size, block, dy, dx, rule, out, base, work):  # type: ignore[no-untyped-def]
    """As `predict_luma` for a chroma plane; block in its samples, displacement in eighths of them."""
    y, x, height, _ = block
    row = y + (dy >> 3)
    col = x + (dx >> 3)
    fy = dy & 7
    fx = dx & 7
    source = plane
    stride = size[1]
    start = row * stride + col
    if not _is_inside(size, row, col, height):
        _fetch(plane, size, row - MARGIN_BEFORE, col - MARGIN_BEFORE, height + MARGIN_BEFORE + MARGIN_AFTER, work[0])
        source = work[0]
        stride = WINDOW
        start = MARGIN_BEFORE * WINDOW + MARGIN_BEFORE
    elif fy == 0 and fx == 0:
        return plane, start, stride
    if rule[0] == H264:
        h264_chroma(source, start, stride, fy, fx, height, rule[3], out, base)
    else:
        half_sample(source, start, stride, fy >> 2, fx >> 2, height, rule[3], rule[1], out, base)
    return out, base, BLOCK


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
