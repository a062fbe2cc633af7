from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest

from codecmeta.errors import UsageError
from codecmeta.prediction.block_prediction import (
    chroma_component,
    chroma_component_of_four,
    find_chroma,
    find_points,
    put_chroma,
    put_luma,
)
from codecmeta.prediction.block_records import Interpolation
from codecmeta.prediction.h264_halfpel import BAND
from codecmeta.prediction.padded_reference import MARGIN, ReferenceSamples
from codecmeta.prediction.standards import FILTERS, filter_of
from codecmeta.simd.block_rows import BLOCK
from tests.oracle import interpolation as oracle

HEIGHT, WIDTH = 56, 72


def noise(top: int = 255, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray[Any, Any]:
    # extremes next to noise, so that the filters overshoot and clip
    rng = np.random.default_rng(5)
    plane = rng.integers(0, top + 1, shape)
    plane[rng.random(shape) < 0.3] = top
    plane[rng.random(shape) < 0.3] = 0
    return plane.astype(np.uint8 if top == 255 else np.uint16)


def predict(
    plane: np.ndarray[Any, Any],
    standard: str,
    block: tuple[int, int, int, int],
    dy: int,
    dx: int,
    *,
    rounding: int = 0,
    top: int = 255,
    chroma: bool = False,
) -> np.ndarray[Any, Any]:
    nothing = np.empty((0, 0), plane.dtype)
    reference = ReferenceSamples((plane, nothing, nothing))
    out = np.zeros(BLOCK * BLOCK, plane.dtype)
    rule = Interpolation(FILTERS[standard], rounding, top)
    kind, address, stride = plane.dtype.type(0), reference.addresses[0], plane.shape[1] + 2 * MARGIN
    if chroma:
        at = find_chroma(address, out, plane.shape, block, (dy, dx))
        put_chroma(kind, at, stride, (dy, dx), block, rule, out.ctypes.data)
    elif standard == "h264":
        sums = np.empty((BAND + 5) * stride, np.int16 if top == 255 else np.int32)
        places = find_points(address, out, plane.shape, block, (dy, dx), top, sums)
        first, second = (samples_at(reference, place, plane.dtype, stride, block) for place in places)
        return (first + second + 1) >> 1
    else:
        lines = np.empty((BLOCK + 1) * BLOCK, np.int32)
        put_luma(address, plane.shape, block, (dy, dx), rule, out, lines)
    return out.reshape(BLOCK, BLOCK)[: block[2], : block[3]].astype(np.int64)


def samples_at(
    reference: ReferenceSamples, place: int, dtype: Any, stride: int, block: tuple[int, int, int, int]
) -> np.ndarray[Any, Any]:
    """Return the block of samples at an address, which must lie within the reference's planes."""
    extent = (reference.shapes[0][0] + 2 * MARGIN) * stride * dtype.itemsize
    ends = [(int(base), int(base) + extent) for base in reference.addresses[0, :4]]
    last = place + ((block[2] - 1) * stride + block[3]) * dtype.itemsize
    assert any(first <= place and last <= end for first, end in ends)
    rows = [
        np.ctypeslib.as_array(
            (ctypes.c_ubyte * (block[3] * dtype.itemsize)).from_address(place + row * stride * dtype.itemsize)
        )
        for row in range(block[2])
    ]
    return np.stack([row.view(dtype) for row in rows]).astype(np.int64)


@pytest.mark.parametrize("top", [255, 1023])
def test_h264_luma_at_all_sixteen_positions(top: int) -> None:
    plane = noise(top)
    whole = plane.astype(np.int64)
    for (fy, fx), (height, width) in itertools.product(
        itertools.product(range(4), repeat=2), [(16, 16), (16, 8), (8, 16), (8, 8)]
    ):
        dy, dx = 4 * 3 + fy, -4 * 5 + fx
        got = predict(plane, "h264", (16, 24, height, width), dy, dx, top=top)
        np.testing.assert_array_equal(got, oracle.h264_luma(whole, 16, 24, height, width, dy, dx, top))


def test_h264_luma_oracle_tells_positions_apart() -> None:
    plane = noise()
    got = predict(plane, "h264", (16, 24, 8, 8), 1, 1)
    for fy, fx in itertools.product(range(4), repeat=2):
        equal = np.array_equal(got, oracle.h264_luma(plane.astype(np.int64), 16, 24, 8, 8, fy, fx))
        assert equal == ((fy, fx) == (1, 1))


def test_h264_chroma_at_all_eighths() -> None:
    plane = noise()
    for fy, fx in itertools.product(range(8), repeat=2):
        got = predict(plane, "h264", (16, 24, 8, 8), -8 + fy, 16 + fx, chroma=True)
        expected = oracle.h264_chroma(plane.astype(np.int64), 16, 24, 8, 8, -8 + fy, 16 + fx)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("rounding", [0, 1])
def test_half_samples(rounding: int) -> None:
    plane = noise()
    whole = plane.astype(np.int64)
    for fy, fx in itertools.product(range(2), repeat=2):
        got = predict(plane, "mpeg4", (16, 24, 16, 16), 2 * fy - 8, 2 * fx, rounding=rounding)
        expected = oracle.half_sample(whole, 16, 24, 16, 16, fy - 4, fx, rounding)
        np.testing.assert_array_equal(got, expected)
        if fy or fx:
            wrong = oracle.half_sample(whole, 16, 24, 16, 16, fy - 4, fx, 1 - rounding)
            assert not np.array_equal(got, wrong)


@pytest.mark.parametrize("rounding", [0, 1])
@pytest.mark.parametrize("side", [8, 16])
def test_mpeg4_quarter_samples(side: int, rounding: int) -> None:
    plane = noise()
    whole = plane.astype(np.int64)
    for fy, fx in itertools.product(range(4), repeat=2):
        got = predict(plane, "mpeg4_qpel", (16, 24, side, side), fy, 8 + fx, rounding=rounding)
        expected = oracle.mpeg4_quarter(whole, 16, 24, side, side, fy, 8 + fx, rounding)
        np.testing.assert_array_equal(got, expected)
        if (fy | fx) & 1:  # a mean; a half sample alone is seldom a tie
            wrong = oracle.mpeg4_quarter(whole, 16, 24, side, side, fy, 8 + fx, 1 - rounding)
            assert not np.array_equal(got, wrong)


@pytest.mark.parametrize("standard", ["h264", "mpeg2", "mpeg4_qpel"])
def test_vectors_over_every_edge(standard: str) -> None:
    plane = noise()
    whole = plane.astype(np.int64)
    for dy, dx in itertools.product((-32000, -201, -70, 0, 70, 130, 32000), (-32000, -130, 3, 121, 199, 32000)):
        got = predict(plane, standard, (32, 48, 16, 16), dy, dx)
        if standard == "h264":
            expected = oracle.h264_luma(whole, 32, 48, 16, 16, dy, dx)
        elif standard == "mpeg2":
            expected = oracle.half_sample(whole, 32, 48, 16, 16, dy >> 1, dx >> 1, 0)
        else:
            expected = oracle.mpeg4_quarter(whole, 32, 48, 16, 16, dy, dx, 0)
        np.testing.assert_array_equal(got, expected, err_msg=f"{dy} {dx}")


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (17, 16), (24, 21)])
def test_planes_smaller_than_a_block(shape: tuple[int, int]) -> None:
    plane = noise(shape=shape)
    for dy, dx in itertools.product((-9, 0, 6, 33), repeat=2):
        luma = predict(plane, "h264", (0, 0, 16, 16), dy, dx)
        np.testing.assert_array_equal(luma, oracle.h264_luma(plane.astype(np.int64), 0, 0, 16, 16, dy, dx))
        chroma = predict(plane, "h264", (0, 0, 8, 8), dy, dx, chroma=True)
        np.testing.assert_array_equal(chroma, oracle.h264_chroma(plane.astype(np.int64), 0, 0, 8, 8, dy, dx))


def test_chroma_vectors_of_each_standard() -> None:
    def components(standard: str, shift: int = 1) -> list[int]:
        step = 1 if standard in ("h264", "mpeg4_qpel") else 2
        return [chroma_component(d, shift, FILTERS[standard]) for d in range(-8, 9, step)]

    # H.264: a quarter of a luma sample is an eighth of a chroma sample
    assert components("h264") == list(range(-8, 9))
    # MPEG-2: half-sample vectors divided by two towards zero (13818-2, 7.6.3.7)
    assert components("mpeg2") == [4 * h for h in (-2, -1, -1, 0, 0, 0, 1, 1, 2)]
    # MPEG-4 and H.263: quarter chroma positions become half ones (H.263, Table 15)
    assert components("mpeg4") == [4 * h for h in (-2, -1, -1, -1, 0, 1, 1, 1, 2)]
    assert components("h263") == components("mpeg4")
    # full-resolution chroma moves like luma
    assert components("h264", 0) == [2 * d for d in range(-8, 9)]
    assert components("mpeg2", 0) == [2 * d for d in range(-8, 9, 2)]


def test_chroma_vector_of_four_luma_vectors() -> None:
    # sixteenths 0 1 2 | 3 .. 13 | 14 15 round to 0, a half, 1 (14496-2, Table 7-9)
    sixteenths = [chroma_component_of_four(total) // 4 for total in range(16)]
    assert sixteenths == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]
    for total in range(-64, 65):
        assert chroma_component_of_four(total + 16) == chroma_component_of_four(total) + 8
        assert chroma_component_of_four(-total) == -chroma_component_of_four(total)


def test_unknown_standard_is_refused() -> None:
    with pytest.raises(UsageError, match="'vp9'"):
        filter_of("vp9")
