"""Samples of more than 10 bits, and colour planes coded on their own: streams written here."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.errors import BitstreamError
from codecmeta.h264 import ResidualReader
from tests.codecmeta.h264.bit_writer import BitWriter

COLUMNS, ROWS = 3, 2
LUMA = (16 * ROWS, 16 * COLUMNS)


def parameter_sets(depth: int, *, separate: bool = False) -> bytes:
    """High 4:4:4 Predictive: 4:2:0, or 4:4:4 in separate planes."""
    sps = BitWriter().u(244, 8).u(0, 8).u(30, 8).ue(0).ue(3 if separate else 1)
    if separate:
        sps.u(1, 1)
    sps.ue(depth - 8, depth - 8).u(0, 1).u(0, 1).ue(0, 2, 1).u(0, 1)
    sps.ue(COLUMNS - 1, ROWS - 1).u(1, 1).u(1, 1).u(0, 1).u(0, 1)
    pps = BitWriter().ue(0, 0).u(0, 1).u(0, 1).ue(0, 0, 0).u(0, 1).u(0, 2).se(0, 0, 0).u(1, 1).u(0, 1).u(0, 1)
    return sps.nal(0x67) + pps.nal(0x68)


def pcm_slice(planes: list[NDArray[np.int64]], depth: int, *, colour_plane: int | None = None) -> bytes:
    """Write an IDR slice of I_PCM macroblocks."""
    writer = BitWriter().ue(0, 7, 0)
    if colour_plane is not None:
        writer.u(colour_plane, 2)
    writer.u(0, 4).ue(0).u(0, 2).se(2).ue(1)
    for mb in range(COLUMNS * ROWS):
        writer.ue(25).align_zero()
        y, x = mb // COLUMNS, mb % COLUMNS
        for plane, size in zip(planes, (16, 8, 8), strict=False):
            for sample in plane[y * size : y * size + size, x * size : x * size + size].reshape(-1):
                writer.u(int(sample), depth)
    return writer.nal(0x65)


def predicted_slice(rng: np.random.Generator, qp: int) -> bytes:
    """Write a P slice at QP'Y - QpBdOffsetY = `qp`: the reference plus luma coefficients."""
    writer = BitWriter().ue(0, 5, 0).u(1, 4).u(0, 1).u(0, 1).u(0, 1).se(qp - 26).ue(1)
    totals = np.full((4 * ROWS + 1, 4 * COLUMNS + 1), -1)
    for mb in range(COLUMNS * ROWS):
        y0, x0 = mb // COLUMNS * 4, mb % COLUMNS * 4
        writer.ue(0, 0).se(0, 0).ue(12 - 1).se(0)  # P_L0_16x16, mvd 0, coded_block_pattern 15
        for block in range(16):
            y = y0 + ((block >> 1) & 1) + ((block >> 2) & 2)
            x = x0 + (block & 1) + ((block >> 1) & 2)
            left, above = totals[y + 1, x], totals[y, x + 1]
            both = (left + above + 1) // 2 if left >= 0 and above >= 0 else max(left, 0) + max(above, 0)
            levels = np.where(rng.random(16) < 0.3, rng.integers(-6, 7, 16), 0)
            totals[y + 1, x + 1] = writer.block(levels.tolist(), int(both))
    return writer.nal(0x41)


def decode(stream: bytes) -> list[list[NDArray[np.int64]]]:
    with av.open(io.BytesIO(stream), format="h264") as container:
        return [
            [
                np.frombuffer(plane, np.uint16).reshape(plane.height, -1)[:, : plane.width].astype(np.int64)
                for plane in frame.planes
            ]
            for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("depth", [12, 14])
@pytest.mark.parametrize("qp", [-12, 0, 30])
def test_deep_samples_equal_the_decoded_pixels(depth: int, qp: int) -> None:
    rng = np.random.default_rng(depth)
    middle = 1 << (depth - 1)
    planes = [rng.integers(middle // 2, 3 * middle // 2, (LUMA[0] // d, LUMA[1] // d)) for d in (1, 2, 2)]
    sets, first, second = parameter_sets(depth), pcm_slice(planes, depth), predicted_slice(rng, qp)
    before, after = decode(sets + first + second)
    reader = ResidualReader()
    intra, inter = reader.read(sets + first), reader.read(second)
    assert intra.bit_depth == (depth, depth)
    for own, pixels, plane in zip((intra.y, intra.cb, intra.cr), before, planes, strict=True):
        np.testing.assert_array_equal(pixels, plane)
        np.testing.assert_array_equal(own, plane - middle)
    assert (inter.qp == qp).all()
    np.testing.assert_array_equal(np.clip(before[0] + inter.y, 0, 2 * middle - 1), after[0])
    assert np.abs(inter.y).max() > (0 if qp < 0 else 4)
    other = reader.read(predicted_slice(np.random.default_rng(0), qp))
    assert (np.clip(before[0] + other.y, 0, 2 * middle - 1) != after[0]).any()


def test_colour_planes_coded_on_their_own() -> None:
    rng = np.random.default_rng(4)
    planes = [rng.integers(0, 256, LUMA) for _ in range(3)]
    slices = [pcm_slice([plane], 8, colour_plane=number) for number, plane in enumerate(planes)]
    sets = parameter_sets(8, separate=True)
    picture = ResidualReader().read(sets + b"".join(slices))
    assert picture.chroma_format == 3
    for own, plane in zip((picture.y, picture.cb, picture.cr), planes, strict=True):
        np.testing.assert_array_equal(own, plane - 128)
    with pytest.raises(BitstreamError, match="do not cover"):
        ResidualReader().read(sets + slices[0] + slices[2])
