"""What is read of the boxes of an MP4 file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from codecmeta import SourceError, extract
from codecmeta.container import mp4_boxes
from codecmeta.container.video import open_video


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def claim_samples(data: bytes, count: int) -> bytes:
    """Let the sample tables of an MP4 say that it has `count` samples of one byte."""
    claims = {
        b"stsz": struct.pack(">III", 0, 1, count),
        b"stts": struct.pack(">IIII", 0, 1, count, 512),
        b"stsc": struct.pack(">IIIII", 0, 1, 1, count, 1),
    }
    out, at = b"", 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        payload = data[at + 8 : at + length]
        at += length
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            payload = claim_samples(payload, count)
        if kind not in (b"ctts", b"stss", b"edts"):
            out += box(kind, claims.get(kind, payload))
    return out


def test_a_header_of_more_samples_than_bytes(tmp_path: Path, data: Path) -> None:
    """It costs 40 bytes to claim any number of samples, and hundreds of bytes of memory to list one."""
    path = tmp_path / "claims.mp4"
    path.write_bytes(claim_samples((data / "still_h264.mp4").read_bytes(), 200_000))
    with path.open("rb") as file:
        track = mp4_boxes.read_track(file, path.stat().st_size, 1)
    assert track is not None
    assert track.composition_offset is None
    with pytest.raises(SourceError, match="lists 200000 packets") as caught:
        extract(path)
    assert caught.value.code == "damaged"


def test_offsets_of_all_samples(data: Path) -> None:
    with open_video(data / "event_h264.mp4") as video:
        entries = video.stream.index_entries
        assert video.track is not None
        offsets = video.track.composition_offset
    assert offsets is not None
    assert offsets.shape == (len(entries),)
    assert np.unique(offsets).size > 1
