"""Field pictures (PAFF): a stream written here, checked against FFmpeg's decoded pixels."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.errors import BitstreamError
from codecmeta.h264 import MB_TYPE_NAMES, ResidualReader
from tests.codecmeta.h264.bit_writer import BitWriter

COLUMNS, ROWS = 3, 2  # macroblocks of a field


def parameter_sets() -> bytes:
    sps = BitWriter().u(77, 8).u(0, 8).u(30, 8).ue(0)  # Main profile
    sps.ue(0, 0, 0, 2).u(0, 1)  # frame_num, pic_order_cnt of 4 bits; two reference frames
    sps.ue(COLUMNS - 1, ROWS - 1).u(0, 1).u(0, 1).u(1, 1).u(0, 1).u(0, 1)
    pps = BitWriter().ue(0, 0).u(0, 1).u(0, 1).ue(0, 0, 0).u(0, 1).u(0, 2).se(0, 0, 0).u(1, 1).u(0, 1).u(0, 1)
    return sps.nal(0x67) + pps.nal(0x68)


def slice_header(*, slice_type: int, bottom: bool, idr: bool) -> BitWriter:
    writer = BitWriter().ue(0, slice_type, 0).u(0, 4).u(1, 1).u(int(bottom), 1)
    if idr:
        writer.ue(0)
    writer.u(int(bottom), 4)
    if slice_type == 5:
        writer.u(0, 1).u(0, 1)  # no override: one reference; no list modification
    writer.u(0, 2) if idr else writer.u(0, 1)
    return writer.se(2).ue(1)  # QP 28; no loop filter


def pcm_field(samples: list[NDArray[np.uint8]]) -> bytes:
    """An IDR top field of I_PCM macroblocks; `samples` are its Y, Cb and Cr planes."""
    writer = slice_header(slice_type=7, bottom=False, idr=True)
    for mb in range(COLUMNS * ROWS):
        writer.ue(25).align_zero()
        y, x = mb // COLUMNS, mb % COLUMNS
        for plane, size in zip(samples, (16, 8, 8), strict=True):
            for sample in plane[y * size : y * size + size, x * size : x * size + size].reshape(-1):
                writer.u(int(sample), 8)
    return writer.nal(0x65)


def predicted_field(rng: np.random.Generator) -> bytes:
    """A bottom P field: the first macroblock skipped, the others the top field plus luma coefficients."""
    writer = slice_header(slice_type=5, bottom=True, idr=False)
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
    return writer.nal(0x41)


@pytest.fixture(scope="module")
def stream() -> tuple[bytes, bytes, list[NDArray[np.uint8]]]:
    rng = np.random.default_rng(5)
    shapes = ((16 * ROWS, 16 * COLUMNS), (8 * ROWS, 8 * COLUMNS), (8 * ROWS, 8 * COLUMNS))
    samples = [rng.integers(90, 160, shape).astype(np.uint8) for shape in shapes]
    return parameter_sets() + pcm_field(samples), predicted_field(rng), samples


def decode(stream: bytes) -> list[NDArray[np.int64]]:
    with av.open(io.BytesIO(stream), format="h264") as container:
        (frame,) = container.decode(video=0)
        return [
            np.asarray(plane).reshape(plane.height, plane.line_size)[:, : plane.width].astype(int)
            for plane in frame.planes
        ]


def test_both_fields_equal_the_decoded_pixels(
    stream: tuple[bytes, bytes, list[NDArray[np.uint8]]],
) -> None:
    top, bottom, samples = stream
    decoded = decode(top + bottom)
    picture = ResidualReader().read(top + bottom)
    assert picture.structure == "field"
    assert picture.slice_types == ("I", "P")
    for plane, pixels, source in zip((picture.y, picture.cb, picture.cr), decoded, samples, strict=True):
        np.testing.assert_array_equal(pixels[0::2], source)
        np.testing.assert_array_equal(plane[0::2], source.astype(int) - 128)
    np.testing.assert_array_equal(picture.y[1::2], decoded[0][1::2] - decoded[0][0::2])
    # no chroma is coded, its prediction from the other parity lies between lines (8.4.1.4)
    assert not picture.cb[1::2].any()
    assert not picture.cr[1::2].any()
    assert np.abs(picture.y[1::2]).max() > 10
    names = np.array(MB_TYPE_NAMES)[picture.mb_type]
    np.testing.assert_array_equal(names[0::2], "I_PCM")
    assert names[1, 0] == "P_Skip"
    assert (names[1::2].reshape(-1)[1:] == "P_16x16").all()


def test_fields_may_come_in_two_packets(stream: tuple[bytes, bytes, list[NDArray[np.uint8]]]) -> None:
    top, bottom, _ = stream
    together = ResidualReader().read(top + bottom)
    apart = ResidualReader().read([top, bottom])
    np.testing.assert_array_equal(apart.y, together.y)


def test_one_field_alone_is_no_picture(stream: tuple[bytes, bytes, list[NDArray[np.uint8]]]) -> None:
    with pytest.raises(BitstreamError, match="bottom field"):
        ResidualReader().read(stream[0])


def test_measure_equals_read(stream: tuple[bytes, bytes, list[NDArray[np.uint8]]]) -> None:
    top, bottom, _ = stream
    moments = ResidualReader().measure(top + bottom, block=8)
    picture = ResidualReader().read(top + bottom)
    blocks = picture.y.astype(np.int64).reshape(ROWS * 4, 8, COLUMNS * 2, 8)
    np.testing.assert_array_equal(moments.energy.mean[0], blocks.sum((1, 3)) / 64)
