"""Syntax elements of headers, read from an RBSP."""

from __future__ import annotations

import numpy as np
import pytest

from codecmeta.entropy.bits import BitReader, stop_bit
from codecmeta.errors import BitstreamError
from tests.codecmeta.entropy.bit_writer import BitWriter


def test_a_bit_reader_reads_what_was_written() -> None:
    rng = np.random.default_rng(0)
    values = [int(value) for value in rng.integers(0, 1 << rng.integers(1, 20, 200))]
    writer = BitWriter()
    for value in values:
        writer.ue(value).se(-value).u(value & 7, 3)
    rbsp = writer.nal(0)[5:].replace(b"\0\0\3", b"\0\0")
    reader = BitReader(rbsp, "test")
    for value in values:
        assert (reader.ue(), reader.se(), reader.u(3)) == (value, -value, value & 7)
    assert not reader.more_rbsp_data()
    assert stop_bit(rbsp) == reader.position
    with pytest.raises(BitstreamError, match="cut short"):
        for _ in range(20):
            reader.u(32)
