"""Streams of random syntax: residual, QP and bits are those that were known while they were written."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codecmeta.hevc import ResidualReader
from tests.codecmeta.hevc.stream_writer import Tools, WrittenPicture, write_picture


def write(seed: int, pictures: int = 2) -> tuple[Tools, list[WrittenPicture]]:
    """Write a stream of one intra picture and others."""
    rng = random.Random(seed)
    tools = Tools.choose(rng)
    written = [write_picture(tools, rng, first=number == 0) for number in range(pictures)]
    written[0].packet = tools.sequence() + tools.picture() + written[0].packet
    return tools, written


def expected_bits(tools: Tools, picture: WrittenPicture) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Bits of 16x16 cells; those of larger units are split evenly, the remainder to the first cells."""
    bits = np.zeros((-(-tools.size[1] // 16), -(-tools.size[0] // 16)), np.int64)
    for x, y, size, count in picture.units:
        side = max(abs(size) // 16, 1)
        if size < 0 or side == 1:
            # what ends a segment is its last unit's first cell's
            bits[y // 16, x // 16] += count
            continue
        share, more = divmod(count, side * side)
        cells = share + (np.arange(side * side) < more)
        bits[y // 16 : y // 16 + side, x // 16 : x // 16 + side] += cells.reshape(side, side)
    return bits


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_random_streams(seed: int) -> None:
    tools, written = write(seed)
    reader = ResidualReader()
    for picture in written:
        found = reader.read(picture.packet)
        for plane, expected in zip((found.y, found.cb, found.cr), picture.planes, strict=True):
            np.testing.assert_array_equal(plane, np.clip(expected, -32768, 32767), err_msg=str(tools))
        np.testing.assert_array_equal(found.qp, picture.qp[::2, ::2], err_msg=str(tools))
        bits = expected_bits(tools, picture)
        assert bits.sum() == picture.slice_bits
        np.testing.assert_array_equal(found.mb_bits, np.minimum(bits, 65535), err_msg=str(tools))


def test_another_residual_shows() -> None:
    _, written = write(7)
    found = ResidualReader().read(written[0].packet)
    assert np.array_equal(found.y, np.clip(written[0].planes[0], -32768, 32767))
    other = written[0].planes[0].copy()
    other[np.unravel_index(np.abs(other).argmax(), other.shape)] ^= 1
    assert not np.array_equal(found.y, other)


@pytest.mark.parametrize("seed", range(4))
def test_writing_is_repeatable(seed: int) -> None:
    assert write(seed)[1][1].packet == write(seed)[1][1].packet
