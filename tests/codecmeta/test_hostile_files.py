"""Files whose headers lie, or that are as small or as odd as files can be (docs/reliability.md lists the faults)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from codecmeta import Limits, SourceError, VideoMeta, extract, load
from tests.codecmeta.make_video import write_video


def read(path: Path, *, limits: Limits | None = None) -> VideoMeta:
    return extract(path, frames="uniform:4", residual="none", pixels=32, limits=limits)


def expect(code: str, path: Path, *, limits: Limits | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        read(path, limits=limits)
    assert caught.value.code == code, caught.value
    return str(caught.value)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_video(tmp_path / "sound.mp4", codec="mpeg4", frames=12, width=64, height=48)


def patch(path: Path, box: bytes, offset: int, number: int) -> Path:
    """Overwrite four bytes of a box of an MP4."""
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, content.index(box) + 4 + offset, number)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("box", "offset", "number"),
    [
        (b"mdhd", 16, 0),
        (b"mdhd", 16, 2**32 - 2),
        (b"mvhd", 12, 0),
        (b"mvhd", 16, 0),
        (b"mvhd", 16, 2**32 - 2),
        (b"tkhd", 20, 0),
    ],
    ids=["no duration", "years", "no time scale", "no film", "a film of years", "a track of nothing"],
)
def test_the_content_wins_over_a_wrong_header(sound: Path, box: bytes, offset: int, number: int) -> None:
    right = read(sound)
    found = read(patch(sound, box, offset, number))
    assert np.array_equal(found.packet_size, right.packet_size)
    assert np.array_equal(found.frame_pts, right.frame_pts)
    assert np.array_equal(found.frames, right.frames)


@pytest.mark.parametrize(
    ("box", "offset", "number", "code"),
    [
        (b"stts", 4, 2**31, "unreadable"),
        (b"stsz", 8, 2**31, "unreadable"),
        (b"mdhd", 12, 0, "no_frames"),
    ],
    ids=["times of 2 billion samples", "2 billion samples", "no time scale of the track"],
)
def test_tables_that_cannot_be(sound: Path, box: bytes, offset: int, number: int, code: str) -> None:
    """libav says of the first that memory is short: it is the file that is wrong."""
    expect(code, patch(sound, box, offset, number))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (48, 2), (17, 33), (34, 18)])
@pytest.mark.parametrize("frames", [1, 2])
def test_small_and_odd_pictures(tmp_path: Path, size: tuple[int, int], frames: int) -> None:
    width, height = size
    path = write_video(tmp_path / "a.mp4", codec="mpeg4", frames=frames, width=width, height=height)
    meta = extract(path, motion=True, qp=True)
    assert (meta.width, meta.height, len(meta.frame_pts)) == (width, height, frames)
    assert meta.frames is not None
    assert meta.frames.shape == (frames, height, width, 3)
    meta.save(tmp_path / "a.npz")
    assert load(tmp_path / "a.npz").density((1, 1), map="innovation").shape == (frames, 1, 1)


def test_pictures_that_grow_beyond_the_limit(tmp_path: Path) -> None:
    """The header is small: the decoder refuses what comes later."""
    parts = [
        write_video(tmp_path / f"{side}.m2v", codec="mpeg2video", frames=5, width=side, height=side).read_bytes()
        for side in (64, 512)
    ]
    path = tmp_path / "both.m2v"
    path.write_bytes(b"".join(parts))
    assert "the decoder refused" in expect("damaged", path, limits=Limits(pixels=64 * 64))
    expect("varying_geometry", path)


def test_a_codec_that_libav_does_not_know(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", codec="mpeg4", frames=3, width=32, height=32)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_UNKNO/WN/CODE"))
    assert "no decoder" in expect("decoder_missing", path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(500), "a JPEG picture"),
        (b"%PDF-1.7\n" + bytes(500), "PDF"),
        (b"PK\x03\x04" + bytes(500), "zip"),
    ],
)
def test_other_kinds_of_file(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert kind in expect("format_refused", path)
