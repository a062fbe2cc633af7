"""Streams of field pictures (PAFF), written here since no encoder at hand makes them (Rec. ITU-T H.264, 7.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.codecmeta.h264.bit_writer import BitWriter

COLUMNS, ROWS = 3, 2  # macroblocks of a field


def parameter_sets() -> bytes:
    sps = BitWriter().u(77, 8).u(0, 8).u(30, 8).ue(0)  # Main profile
    sps.ue(4, 0, 4, 2).u(0, 1)  # frame_num, pic_order_cnt of 8 bits; two reference frames
    sps.ue(COLUMNS - 1, ROWS - 1).u(0, 1).u(0, 1).u(1, 1).u(0, 1).u(0, 1)
    pps = BitWriter().ue(0, 0).u(0, 1).u(0, 1).ue(0, 0, 0).u(0, 1).u(0, 2).se(0, 0, 0).u(1, 1).u(0, 1).u(0, 1)
    return sps.nal(0x67) + pps.nal(0x68)


def slice_header(
    *, slice_type: int, bottom: bool | None, idr: bool, frame_num: int, order: int, reference: bool, qp: int
) -> BitWriter:
    """`bottom` is None for a picture that is a whole frame."""
    writer = BitWriter().ue(0, slice_type, 0).u(frame_num, 8)
    writer.u(0, 1) if bottom is None else writer.u(1, 1).u(int(bottom), 1)
    if idr:
        writer.ue(0)
    writer.u(order, 8)
    if slice_type == 5:
        writer.u(0, 1).u(0, 1)  # no override: one reference; no list modification
    if reference:
        writer.u(0, 2) if idr else writer.u(0, 1)
    return writer.se(qp - 26).ue(1)  # no loop filter


def pcm_field(samples: list[NDArray[np.uint8]]) -> bytes:
    """Write an IDR top field of I_PCM macroblocks; `samples` are its Y, Cb and Cr planes."""
    writer = slice_header(slice_type=7, bottom=False, idr=True, frame_num=0, order=0, reference=True, qp=28)
    for mb in range(COLUMNS * ROWS):
        writer.ue(25).align_zero()
        y, x = mb // COLUMNS, mb % COLUMNS
        for plane, size in zip(samples, (16, 8, 8), strict=True):
            for sample in plane[y * size : y * size + size, x * size : x * size + size].reshape(-1):
                writer.u(int(sample), 8)
    return writer.nal(0x65)


def predicted_field(
    rng: np.random.Generator,
    *,
    bottom: bool = True,
    frame_num: int = 0,
    order: int = 1,
    reference: bool = True,
    qp: int = 28,
) -> bytes:
    """Write a P field: the first macroblock skipped, the others their reference plus luma coefficients."""
    writer = slice_header(
        slice_type=5, bottom=bottom, idr=False, frame_num=frame_num, order=order, reference=reference, qp=qp
    )
    totals = np.full((4 * ROWS + 1, 4 * COLUMNS + 1), -1)
    totals[1:5, 1:5] = 0
    writer.ue(1)
    for mb in range(1, COLUMNS * ROWS):
        y0, x0 = mb // COLUMNS * 4, mb % COLUMNS * 4
        if mb > 1:
            writer.ue(0)
        writer.ue(0).se(0, 0)  # P_L0_16x16, mvd 0
        writer.ue(12 - 1)  # coded_block_pattern 15 by Table 9-4
        writer.se(0)
        for block in range(16):
            y = y0 + ((block >> 1) & 1) + ((block >> 2) & 2)
            x = x0 + (block & 1) + ((block >> 1) & 2)
            left, above = totals[y + 1, x], totals[y, x + 1]
            both = (left + above + 1) // 2 if left >= 0 and above >= 0 else max(left, 0) + max(above, 0)
            levels = np.where(rng.random(16) < 0.25, rng.integers(-3, 4, 16), 0)
            totals[y + 1, x + 1] = writer.block(levels.tolist(), int(both))
    return writer.nal(0x41 if reference else 0x01)


def skipped_frame(*, frame_num: int, order: int) -> bytes:
    """Write a P picture that is a whole frame of skipped macroblocks, and that nothing refers to."""
    writer = slice_header(
        slice_type=5, bottom=None, idr=False, frame_num=frame_num, order=order, reference=False, qp=28
    )
    return writer.ue(2 * COLUMNS * ROWS).nal(0x01)


def random_samples(rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Y, Cb and Cr planes of a field."""
    shapes = ((16 * ROWS, 16 * COLUMNS), (8 * ROWS, 8 * COLUMNS), (8 * ROWS, 8 * COLUMNS))
    return [rng.integers(90, 160, shape).astype(np.uint8) for shape in shapes]


def coded_frames(count: int, *, gop: int = 8) -> list[list[bytes]]:
    """Write the pictures of each frame in decode and display order, which are the same: two fields, or one frame.

    Of eight frames the first is an IDR field with a P field, the third and the sixth are no references, the fifth is
    coded as a frame, the others are pairs of P fields. Access unit delimiters and parameter sets come where an encoder
    for broadcasts would put them.
    """
    rng = np.random.default_rng(1)
    delimiter = BitWriter().u(7, 3).nal(0x09)
    frames: list[list[bytes]] = []
    frame_num = 0
    for index in range(count):
        place = index % gop
        frame_num = 0 if place == 0 else frame_num
        reference = place not in (2, 4, 5)
        order = 2 * place
        if place == 4:
            pictures = [skipped_frame(frame_num=frame_num, order=order)]
        else:
            pictures = [
                parameter_sets() + pcm_field(random_samples(rng))
                if place == 0 and not bottom
                else predicted_field(
                    rng, bottom=bottom, frame_num=frame_num, order=order + bottom, reference=reference, qp=12
                )
                for bottom in (False, True)
            ]
        frames.append([delimiter + picture for picture in pictures])
        frame_num += reference
    return frames
