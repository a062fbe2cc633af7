"""What is read of the boxes of an MP4 file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from codecmeta import SourceError, extract
from tests.codecmeta.container.mp4_writer import rewrite


def claim_samples(data: bytes, count: int) -> bytes:
    """Let the sample tables of an MP4 say that it has `count` samples of one byte."""
    claims = {
        b"stsz": struct.pack(">III", 0, 1, count),
        b"stts": struct.pack(">IIII", 0, 1, count, 512),
        b"stsc": struct.pack(">IIIII", 0, 1, 1, count, 1),
    }
    return rewrite(data, {**claims, b"ctts": None, b"stss": None, b"edts": None})


def test_a_header_of_more_samples_than_bytes(tmp_path: Path, data: Path) -> None:
    """It costs 40 bytes to claim any number of samples, and hundreds of bytes of memory to list one."""
    path = tmp_path / "claims.mp4"
    path.write_bytes(claim_samples((data / "still_h264.mp4").read_bytes(), 200_000))
    with pytest.raises(SourceError, match="lists 200000 packets") as caught:
        extract(path)
    assert caught.value.code == "damaged"
