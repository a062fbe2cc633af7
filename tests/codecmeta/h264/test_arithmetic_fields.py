"""Field pictures in arithmetic code: a stream written here, checked against FFmpeg's decoded pixels."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.errors import BitstreamError
from codecmeta.h264 import MB_TYPE_NAMES, ResidualReader
from codecmeta.h264.tables import build_tables, constants
from tests.codecmeta.h264.arithmetic_writer import ArithmeticWriter
from tests.codecmeta.h264.bit_writer import BitWriter
from tests.codecmeta.h264.field_stream import COLUMNS, ROWS, parameter_sets, pcm_field, random_samples

QP = 28

# Table 9-34 and Table 9-40 for field coded blocks of ctxBlockCat 2
CODED_BLOCK_FLAG, SIGNIFICANT, LAST, ABSOLUTE_LEVEL = 85 + 8, 277 + 29, 338 + 29, 227 + 20


def arithmetic_sets() -> bytes:
    """Write a second picture parameter set, for arithmetic code."""
    pps = BitWriter().ue(1, 0).u(1, 1).u(0, 1).ue(0, 0, 0).u(0, 1).u(0, 2).se(0, 0, 0).u(1, 1).u(0, 1).u(0, 1)
    return pps.nal(0x68)


def write_block(writer: ArithmeticWriter, levels: NDArray[np.int64], increment: int) -> None:
    """residual_block_cabac (7.3.5.3.3) of 16 levels in scan order."""
    places = np.flatnonzero(levels)
    writer.bins(CODED_BLOCK_FLAG + increment, int(places.size > 0))
    if places.size == 0:
        return
    for place in range(min(int(places[-1]) + 1, 15)):
        writer.bins(SIGNIFICANT + place, int(levels[place] != 0))
        if levels[place]:
            writer.bins(LAST + place, int(place == places[-1]))
    ones = above_one = 0
    for place in places[::-1]:
        magnitude = abs(int(levels[place]))
        writer.bins(ABSOLUTE_LEVEL + (0 if above_one else min(4, 1 + ones)), int(magnitude > 1))
        if magnitude > 1:
            # 14 ones are followed by a suffix (9.3.2.3), which these levels do not need
            writer.bins(ABSOLUTE_LEVEL + 5 + min(4, above_one), *[1] * (magnitude - 2), 0)
            above_one += 1
        else:
            ones += 1
        writer.bypass(int(levels[place] < 0))


def predicted_field(rng: np.random.Generator) -> bytes:
    """Write a bottom P field: the first macroblock skipped, the others the top field plus luma coefficients."""
    header = BitWriter().ue(0, 5, 1).u(0, 8).u(1, 1).u(1, 1).u(1, 8)
    # no override: one reference; no list modification; no marking; cabac_init_idc; QP; no loop filter
    header.u(0, 1).u(0, 1).u(0, 1).ue(0).se(QP - 26).ue(1)
    writer = ArithmeticWriter(header, init="0", qp=QP)
    coded = np.zeros((4 * ROWS + 1, 4 * COLUMNS + 1), np.int64)
    patterns = np.full((ROWS + 1, COLUMNS + 1), -1)
    for mb in range(COLUMNS * ROWS):
        row, column = mb // COLUMNS, mb % COLUMNS
        left, above = patterns[row + 1, column], patterns[row, column + 1]
        writer.bins(11 + int(left > 0) + int(above > 0), int(mb == 0))
        patterns[row + 1, column + 1] = 0 if mb == 0 else 15
        if mb:
            writer.bins(14, 0)
            writer.bins(15, 0)
            writer.bins(16, 0)  # P_L0_16x16
            writer.bins(40, 0)
            writer.bins(47, 0)  # mvd 0
            for block in range(4):
                left_coded = bool(block & 1) or left != 0
                above_coded = bool(block & 2) or above != 0
                writer.bins(73 + int(not left_coded) + 2 * int(not above_coded), 1)
            writer.bins(77, 0)
            writer.bins(60, 0)  # mb_qp_delta
            for block in range(16):
                y = 4 * row + ((block >> 1) & 1) + ((block >> 2) & 2)
                x = 4 * column + (block & 1) + ((block >> 1) & 2)
                levels = np.where(rng.random(16) < 0.3, rng.integers(-6, 7, 16), 0)
                write_block(writer, levels, int(coded[y + 1, x] + 2 * coded[y, x + 1]))
                coded[y + 1, x + 1] = int(levels.any())
        writer.terminate(int(mb == COLUMNS * ROWS - 1))
    return writer.writer.nal(0x41)


@pytest.fixture(scope="module")
def stream() -> bytes:
    rng = np.random.default_rng(11)
    return parameter_sets() + arithmetic_sets() + pcm_field(random_samples(rng)) + predicted_field(rng)


def decoded_luma(stream: bytes) -> NDArray[np.int64]:
    with av.open(io.BytesIO(stream), format="h264") as container:
        (frame,) = container.decode(video=0)
        plane = frame.planes[0]
        return np.asarray(plane).reshape(plane.height, plane.line_size)[:, : plane.width].astype(np.int64)


def test_the_bottom_field_is_the_top_one_plus_its_residual(stream: bytes) -> None:
    luma = decoded_luma(stream)
    picture = ResidualReader().read(stream)
    assert picture.structure == "field"
    np.testing.assert_array_equal(picture.y[0::2], luma[0::2] - 128)
    prediction = luma[0::2]
    # the decoder clips what the residual leads beyond
    np.testing.assert_array_equal(np.clip(prediction + picture.y[1::2], 0, 255), luma[1::2])
    assert np.abs(picture.y[1::2]).max() > 30
    names = np.array(MB_TYPE_NAMES)[picture.mb_type[1::2]].reshape(-1)
    assert names.tolist() == ["P_Skip"] + ["P_16x16"] * (COLUMNS * ROWS - 1)


def test_contexts_of_frames_would_not_do(stream: bytes) -> None:
    luma = decoded_luma(stream)
    changed = build_tables(constants())
    changed["map_context"][:, 1] = changed["map_context"][:, 0]
    reader = ResidualReader()
    reader._tables = changed
    try:
        picture = reader.read(stream)
    except BitstreamError:
        return
    assert (np.clip(luma[0::2] + picture.y[1::2], 0, 255) != luma[1::2]).any()
