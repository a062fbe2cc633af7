"""Motion-compensated prediction of one block: vector arithmetic of each standard over `interpolation`.

Vectors are in quarter luma samples, chroma vectors in eighths of a chroma sample, for every standard. References are
rows of addresses (`reference_samples`), and ``like`` is any array of their sample type. A prediction is written to a
flat block of `BLOCK` samples per row.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from codecmeta.errors import UsageError
from codecmeta.half_samples import BAND, compute_band
from codecmeta.interpolation import BLOCK, h264_chroma, half_sample, mpeg4_quarter
from codecmeta.kernels import kernel
from codecmeta.reference_samples import MARGIN, REACH, READY
from codecmeta.strips import ROWS, put_average_8, put_average_16
from codecmeta.views import borrow_at

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


def filter_of(standard: str) -> int:
    """Filter code of a standard.

    Raises:
        UsageError: the standard is not known.
    """
    if standard not in FILTERS:
        raise UsageError(f"standard {standard!r} is unknown; allowed: {', '.join(FILTERS)}")
    return FILTERS[standard]


_G, _B, _H, _J = range(4)
_POINTS = np.array(
    [
        [(_G, 0, 0, _G, 0, 0), (_G, 0, 0, _B, 0, 0), (_B, 0, 0, _B, 0, 0), (_B, 0, 0, _G, 0, 1)],
        [(_G, 0, 0, _H, 0, 0), (_B, 0, 0, _H, 0, 0), (_B, 0, 0, _J, 0, 0), (_B, 0, 0, _H, 0, 1)],
        [(_H, 0, 0, _H, 0, 0), (_H, 0, 0, _J, 0, 0), (_J, 0, 0, _J, 0, 0), (_J, 0, 0, _H, 0, 1)],
        [(_H, 0, 0, _G, 1, 0), (_H, 0, 0, _B, 1, 0), (_J, 0, 0, _B, 1, 0), (_B, 1, 0, _H, 0, 1)],
    ],
    np.int64,
).reshape(16, 6)
"""Whole or half samples (plane, row, column; twice) whose mean stands at each quarter position (Table 8-12)."""


@kernel(_nrt=False, inline="always")
def _outside(position, length):  # type: ignore[no-untyped-def]
    """A row or column of a plane as one of the plane with its margin."""
    return min(max(position, -REACH), length + REACH - BLOCK) + MARGIN


@kernel(_nrt=False)
def _compute_bands(address, plane, first, last, shape, top, like, sums):  # type: ignore[no-untyped-def]
    """See to it that rows first to last of a plane of half samples are there."""
    bands = (shape[0] + BAND - 1) // BAND
    ready = borrow_at(address[READY], like)
    for band in range(first // BAND, last // BAND + 1):
        flag = (plane - 1) * bands + band
        if ready[flag] == 0:
            compute_band(borrow_at(address[0], like), shape, plane, band, top, borrow_at(address[plane], like), sums)
            ready[flag] = 1


@kernel(_nrt=False)
def find_points(address, like, size, block, vector, top, sums):  # type: ignore[no-untyped-def]
    """The two blocks of whole or half samples whose mean predicts an H.264 block.

    Args:
        address: uintp (5,), a channel of the reference.
        like: array of the sample type.
        size: height and width of the plane.
        block: y, x of the block's top-left sample, its height and width.
        vector: dy and dx in quarter samples.
        top: largest sample value.
        sums: scratch of `half_samples.compute_band`.

    Returns:
        Samples and index of both, and the length of a row.
    """
    y, x, height, _ = block
    dy, dx = vector
    shape = (size[0] + 2 * MARGIN, size[1] + 2 * MARGIN)
    row = _outside(y + (dy >> 2), size[0])
    col = _outside(x + (dx >> 2), size[1])
    k = ((dy & 3) << 2) | (dx & 3)
    a, b = _POINTS[k, 0], _POINTS[k, 3]
    row_a, row_b = row + _POINTS[k, 1], row + _POINTS[k, 4]
    if a:
        _compute_bands(address, a, row_a, row_a + height - 1, shape, top, like, sums)
    if b:
        _compute_bands(address, b, row_b, row_b + height - 1, shape, top, like, sums)
    first, second = borrow_at(address[a], like), borrow_at(address[b], like)
    stride = shape[1]
    return first, row_a * stride + col + _POINTS[k, 2], second, row_b * stride + col + _POINTS[k, 5], stride


@kernel(_nrt=False)
def put_points(points, height, width, out, base):  # type: ignore[no-untyped-def]
    """Mean of the two blocks of `find_points`."""
    first, i, second, j, stride = points
    for row in range(0, height, ROWS):
        at, step = base + row * BLOCK, row * stride
        if width == BLOCK:
            put_average_16(first, i + step, second, j + step, stride, out, at, np.int64(BLOCK))
        else:
            put_average_8(first, i + step, second, j + step, stride, out, at, np.int64(BLOCK))


@kernel(_nrt=False)
def predict_luma(address, size, block, vector, rule, out, base, sums, lines):  # type: ignore[no-untyped-def]
    """Prediction of a block of 8 or 16 rows and columns.

    Args:
        address: uintp (5,), a channel of the reference.
        size: height and width of the plane.
        block: y, x of the block's top-left sample, its height and width.
        vector: dy and dx in quarter samples.
        rule: filter code, rounding, largest sample value.
        out: flat array for the result.
        base: index in it.
        sums: scratch of `half_samples.compute_band`.
        lines: int32 scratch of BLOCK + 1 rows of BLOCK.
    """
    code, rounding, top = rule
    if code == H264:
        points = find_points(address, out, size, block, vector, top, sums)
        put_points(points, block[2], block[3], out, base)
        return
    y, x, height, width = block
    dy, dx = vector
    stride = size[1] + 2 * MARGIN
    source = borrow_at(address[0], out)
    start = _outside(y + (dy >> 2), size[0]) * stride + _outside(x + (dx >> 2), size[1])
    if code == MPEG4_QPEL:
        mpeg4_quarter(source, start, stride, dy & 3, dx & 3, height, width, rounding, out, base, lines)
    else:
        half_sample(source, start, stride, (dy >> 1) & 1, (dx >> 1) & 1, height, width, rounding, out, base)


@kernel(_nrt=False)
def predict_chroma(address, size, block, vector, rule, out, base):  # type: ignore[no-untyped-def]
    """As `predict_luma` for a chroma plane; block in its samples, displacement in eighths of them."""
    code, rounding, _ = rule
    y, x, height, width = block
    dy, dx = vector
    stride = size[1] + 2 * MARGIN
    source = borrow_at(address[0], out)
    start = _outside(y + (dy >> 3), size[0]) * stride + _outside(x + (dx >> 3), size[1])
    fy, fx = dy & 7, dx & 7
    if code == H264:
        h264_chroma(source, start, stride, fy, fx, height, width, out, base)
    else:
        half_sample(source, start, stride, fy >> 2, fx >> 2, height, width, rounding, out, base)


@kernel(_nrt=False, inline="always")
def _towards_zero(value):  # type: ignore[no-untyped-def]
    return (value + 1) >> 1 if value < 0 else value >> 1


@kernel(_nrt=False)
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


@kernel(_nrt=False)
def chroma_component_of_four(total):  # type: ignore[no-untyped-def]
    """Chroma component in eighths from the sum of a macroblock's four luma components in half samples.

    The sum counts sixteenths of a chroma sample, which are rounded to the nearest half sample, sixteenths 3
    to 13 to the middle (14496-2, 7.6.2.1, Table 7-9; H.263, Table F.1).
    """
    part = total & 15
    return (2 * (total >> 4) + (0 if part < 3 else 1 if part < 14 else 2)) << 2
